//! What sockets, streams, config-sync and events count, and what they do not (data-plane.md 10.1), read back through BIL-1.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::metering::{Metered, Used, metered};
use crate::sse::Events;
use crate::support::{PATIENCE, Place, Shop};
use crate::sync_client::SyncClient;

const CONNECTION: Used = Used { calls: 0, connections: 1, track_events: 0 };
const NOTHING: Used = Used { calls: 0, connections: 0, track_events: 0 };

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(metered: &Metered, key: &str) -> Socket {
    let url = format!("{}/ws/sdk?apiKey={key}", metered.person.url.replace("http", "ws"));
    tokio_tungstenite::connect_async(url).await.expect("an upgrade, always").0
}

/// The next thing a socket says, pings aside.
async fn said(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
        let Message::Text(text) = message.expect("it is open").expect("it is read") else { continue };
        let message: Value = serde_json::from_str(&text).expect("JSON");
        if message["type"] != "ping" {
            assert_eq!(message["type"], kind, "{message}");
            return message;
        }
    }
}

impl Metered {
    /// One management write that changes what is served.
    async fn change(&self, percentage: u32) {
        let Shop { project_id, environment_id, flag_id, .. } = &self.shop;
        let path = format!("/projects/{project_id}/flags/{flag_id}/environments/{environment_id}/rollouts");
        assert_eq!(self.manage(&path, json!({ "strategy": "percentage", "percentage": percentage })).await, 201);
    }

    async fn session(&self, body: &Value) -> Value {
        let answer = self.post("/auth/asl-handshake", &[("x-api-key", &self.shop.key)], &body.to_string()).await;
        answer.json::<Value>().await.expect("JSON")["data"].take()
    }

    async fn plain_session(&self) -> String {
        self.session(&json!({})).await["sessionId"].as_str().expect("a session").to_owned()
    }

    async fn signed_session(&self, client: &mut SyncClient) -> String {
        let ask = client.ask();
        client.agree(&self.session(&ask).await)
    }

    async fn open(&self, query: &str) -> Events {
        Events::open(&self.person.http, &self.person.url, query).await
    }

    async fn post_context(&self, connection: &Value, context: Value) -> u16 {
        let body = json!({ "connectionId": connection, "context": context }).to_string();
        self.keyed("/evaluator/v2/flags/context", &body).await
    }

    async fn get_keyed(&self, path: &str) -> u16 {
        let request = self.person.http.get(format!("{}{path}", self.person.url));
        request.header("x-api-key", &self.shop.key).send().await.expect("an answer").status().as_u16()
    }
}

fn user(key: &str) -> Value {
    json!({ "kind": "user", "key": key })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_costs_a_connection_and_each_answered_context_a_call() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    let mut open = socket(&metered, &metered.shop.key).await;
    said(&mut open, "flags").await;
    metered.expect_used("a socket and its first flags", CONNECTION).await;
    for key in ["a", "b"] {
        let message = json!({ "type": "context", "context": user(key) });
        open.send(Message::text(message.to_string())).await.expect("sent");
        said(&mut open, "flags").await;
    }
    metered.expect("two contexts answered", 2).await;
    for text in ["{\"type\":\"pong\"}", "nonsense", "{\"type\":\"context\",\"context\":7}", "{\"type\":\"ping\"}"] {
        open.send(Message::text(text)).await.expect("sent");
    }
    said(&mut open, "pong").await;
    metered.expect("pings, pongs, nonsense and a context that is none", 0).await;
    metered.change(0).await;
    said(&mut open, "flags").await;
    metered.expect("the write, and not the push that it caused", 1).await;
    let mut refused = socket(&metered, "ff_no").await;
    let first = tokio::time::timeout(PATIENCE, refused.next()).await.expect("in time");
    assert!(matches!(first, Some(Ok(Message::Close(Some(_))))), "{first:?}");
    metered.expect_used("a socket with a bad key", NOTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_costs_a_connection_and_each_posted_context_a_call() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    let query = format!("sessionId={}", metered.plain_session().await);
    metered.plain_session().await;
    metered.expect_used("two handshakes", NOTHING).await;
    let mut stream = metered.open(&query).await;
    let connection = stream.next_named("connected").await.expect("connected")["connectionId"].take();
    stream.next_named("flags").await.expect("flags");
    metered.expect_used("a stream and its first payloads", CONNECTION).await;
    for key in ["a", "b"] {
        assert_eq!(metered.post_context(&connection, user(key)).await, 202);
        stream.next_named("flags").await.expect("flags");
    }
    metered.expect("two posted contexts", 2).await;
    assert_eq!(metered.post_context(&json!("nobody's"), user("c")).await, 404);
    assert_eq!(metered.post_context(&connection, json!(7)).await, 400);
    assert!(metered.open(&query).await.next_named("error").await.is_some(), "a session is good once");
    metered.expect_used("a lost connection, a bad context, a session used twice", NOTHING).await;
    metered.change(0).await;
    stream.next_named("flags").await.expect("flags");
    metered.expect("the write, and not the push that it caused", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_sync_costs_a_connection_and_no_calls_and_its_contexts_are_observed() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    let mut client = SyncClient::default();
    let session = metered.signed_session(&mut client).await;
    let mut stream = metered.open(&format!("sessionId={session}&fullConfig=true")).await;
    let connection = stream.next_named("connected").await.expect("connected")["connectionId"].take();
    stream.next_named("fullConfig").await.expect("the configuration");
    let usage = metered.expect_used("a handshake with a key, a stream, its first payloads", CONNECTION).await;
    let observed = usage["observedContexts"]["used"].as_u64().expect("a count");
    // Keys alone tell contexts apart, and how they come does not matter.
    for context in [user("a"), user("b"), json!({ "kind": "user", "key": "a", "plan": "pro" }), user("marker")] {
        assert_eq!(metered.post_context(&connection, context).await, 202);
    }
    let usage = metered.expect_used("four posted contexts", NOTHING).await;
    assert_eq!(usage["observedContexts"]["used"], observed + 2, "{usage}");
    let body = json!({ "context": { "targetingKey": "b" } }).to_string();
    assert_eq!(metered.keyed("/ofrep/v1/evaluate/flags/checkout", &body).await, 200);
    let usage = metered.expect_used("OFREP", Used { calls: 1, ..NOTHING }).await;
    assert_eq!(usage["observedContexts"]["used"], observed + 2, "{usage}");

    let session = metered.signed_session(&mut client).await;
    assert_eq!(metered.get_keyed(&format!("/evaluator/v2/flags/config?sessionId={session}")).await, 200);
    assert_eq!(metered.get_keyed("/evaluator/config").await, 200);
    metered.expect_used("configuration by REST, signed and not", NOTHING).await;
    metered.change(0).await;
    stream.next_named("delta").await.expect("a delta");
    metered.expect("the write, and not the push that it caused", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goals_and_application_errors_are_track_events_and_reported_evaluations_nothing() {
    let place = Place::new().await;
    let (_server, mut metered) = metered(&place).await;
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let event = |kind: &str, flag: &str, count: u32| {
        json!({ "flagKey": flag, "kind": kind, "eventName": "bought", "variationValue": true, "userKey": "u", "count": count,
            "timestamp": now })
    };
    let batch = |events: &[Value]| json!({ "events": events }).to_string();
    let reported = batch(&[event("evaluation", "checkout", 40), event("evaluation", "checkout", 2)]);
    assert_eq!(metered.keyed("/evaluator/events", &reported).await, 202);
    metered.expect_used("reported evaluations", NOTHING).await;
    let tracked = batch(&[
        event("custom", "checkout", 1),
        event("custom", "checkout", 7),
        event("error", "checkout", 1),
        event("custom", "nowhere", 1),
        event("wish", "checkout", 1),
    ]);
    assert_eq!(metered.keyed("/evaluator/events", &tracked).await, 202);
    metered.expect_used("three good events of five", Used { track_events: 3, ..NOTHING }).await;
    assert_eq!(metered.keyed("/evaluator/events", &tracked).await, 202);
    metered.expect_used("the same batch again", NOTHING).await;
    assert_eq!(metered.keyed("/evaluator/events", "[]").await, 400);
    metered.expect_used("no list of events", NOTHING).await;
}
