//! What is at the other end of streams and sockets: clients that read what they are sent, event by event, with a deadline.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flagmint_schemas::batch::{Batch, Call, Caller};
use flagmint_schemas::decision::Trigger;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{KEY, Plane};

/// How long anything may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A context whose new-checkout is true under the test configuration.
pub fn irish(key: &str) -> Value {
    json!({ "kind": "user", "key": key, "country": "IE" })
}

/// An event of a stream; a comment has no name.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// A stream.
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    /// A stream with a fresh session for a context; `more` is appended to the query.
    pub async fn open(plane: &Plane, context: Option<&Value>, more: &str) -> Self {
        let session = session(plane).await;
        let context = context.map_or(String::new(), |context| {
            let text = STANDARD.encode(context.to_string());
            format!("&context={}", text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"))
        });
        Self::with_query(plane, &format!("sessionId={session}{context}{more}")).await
    }

    /// A stream with this query.
    pub async fn with_query(plane: &Plane, query: &str) -> Self {
        let url = format!("http://{}/evaluator/v2/flags/stream?{query}", plane.address);
        let response = plane.http.get(url).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-cache, no-transform");
        assert_eq!(header("x-accel-buffering"), "no");
        assert!(!response.headers().contains_key("content-encoding"));
        Self { response, text: String::new() }
    }

    /// The next event or comment; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event or the end in time")
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let data = serde_json::from_str(field("data: ")).unwrap_or_default();
                let event = Event { name: field("event: ").to_owned(), data };
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = self.response.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// The next event, which must have this name; its data. Heartbeats are passed over.
    pub async fn expect(&mut self, name: &str) -> Value {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if !event.name.is_empty() {
                assert_eq!(event.name, name, "{event:?}");
                return event.data;
            }
        }
    }

    /// Reads `connected` and the first `flags`: the connection's id and the values.
    pub async fn begin(&mut self) -> (String, Value) {
        let connected = self.expect("connected").await;
        let flags = self.expect("flags").await;
        (connected["connectionId"].as_str().expect("an id").to_owned(), flags["flags"].clone())
    }

    /// The last event, an error of this code, and the end.
    pub async fn expect_error(&mut self, code: &str) {
        assert_eq!(self.expect("error").await, json!({ "error": code }));
        assert_eq!(self.next().await, None, "the stream ends after an error");
    }

    /// Whether nothing but heartbeats comes for so long.
    pub async fn is_silent_for(&mut self, duration: Duration) -> bool {
        let event = async {
            loop {
                match self.read().await {
                    Some(event) if event.name.is_empty() => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(duration, event).await.is_err()
    }
}

/// A fresh session id for the test key.
pub async fn session(plane: &Plane) -> String {
    let url = format!("http://{}/auth/asl-handshake", plane.address);
    let answer = plane.http.post(url).header("x-api-key", KEY).send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    answer["data"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Posts a context: status and body.
pub async fn post_context(plane: &Plane, connection_id: &str, context: &Value) -> (u16, Value) {
    post_context_with(plane, KEY, json!({ "connectionId": connection_id, "context": context }).to_string()).await
}

/// Posts a body with a key.
pub async fn post_context_with(plane: &Plane, key: &str, body: String) -> (u16, Value) {
    let url = format!("http://{}/evaluator/v2/flags/context", plane.address);
    let answer = plane.http.post(url).header("x-api-key", key).body(body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// A socket.
pub struct Socket {
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// A socket with the test key.
    pub async fn open(plane: &Plane) -> Self {
        Self::with(plane, &format!("?apiKey={KEY}"), &[]).await
    }

    /// A socket with this query and these headers.
    pub async fn with(plane: &Plane, query: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{}/ws/sdk{query}", plane.address).into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let connected = tokio::time::timeout(PATIENCE, tokio_tungstenite::connect_async(request)).await;
        Self { stream: connected.expect("in time").expect("an upgrade, always").0 }
    }

    /// The next message of the server other than its pings.
    pub async fn next(&mut self) -> Result<Value, Option<CloseFrame>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = tokio::time::timeout(left, self.stream.next()).await.expect("a message in time");
            match message {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    if message["type"] != "ping" {
                        return Ok(message);
                    }
                }
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The values of the next message, which must be `flags`.
    pub async fn flags(&mut self) -> Value {
        let message = self.next().await.unwrap_or_else(|frame| panic!("closed: {frame:?}"));
        assert_eq!(message["type"], "flags", "{message}");
        message["flags"].clone()
    }

    /// How the server closes; messages before that are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(frame) = self.next().await {
                let frame = frame.expect("a close frame");
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        self.stream.send(Message::text(text.into())).await.expect("sent");
    }

    pub async fn send_context(&mut self, context: &Value) {
        self.send(json!({ "type": "context", "context": context }).to_string()).await;
    }

    /// Whether nothing but pings comes for so long.
    pub async fn is_silent_for(&mut self, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.next()).await.is_err()
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The calls of a log with their callers.
pub fn calls(batches: &[(flagmint_schemas::batch::BatchHeader, Batch)]) -> Vec<(Call, Caller)> {
    let of_batch = |batch: &Batch| {
        batch.calls.iter().map(|call| (*call, batch.callers[call.caller as usize].clone())).collect::<Vec<_>>()
    };
    batches.iter().flat_map(|(_, batch)| of_batch(batch)).collect()
}

/// Of the calls with this trigger: how many, their decisions, API calls and connections.
pub fn totals(calls: &[(Call, Caller)], trigger: Trigger) -> [u32; 4] {
    let found: Vec<&Call> =
        calls.iter().filter(|(_, caller)| caller.trigger == trigger).map(|(call, _)| call).collect();
    let sum = |of: fn(&Call) -> u32| found.iter().map(|call| of(call)).sum::<u32>();
    [found.len() as u32, sum(|call| call.decisions), sum(|call| call.api_calls), sum(|call| call.connections)]
}
