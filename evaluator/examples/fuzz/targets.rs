//! The targets: each takes bytes and panics if something does not hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flagmint_evaluator::config_sync::canonical_json;
use flagmint_evaluator::directory::{Directory, KeyFacts, key_hash};
use flagmint_evaluator::engine::{CompiledEnvironment, Context};
use flagmint_evaluator::http::{DataPlane, Settings as PlaneSettings, router};
use flagmint_evaluator::serve::{Limits, listen, serve as serve_on};
use flagmint_evaluator::snapshot::{Configuration, Snapshot};
use flagmint_ingest::{ContextRedactor, EnvironmentIdentity, Recorder, Settings};
use flagmint_log::{LocalLog, Options};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

/// Takes one input; it may refuse it, but not panic.
type Reader = Box<dyn FnMut(&[u8])>;

/// Something that reads bytes.
pub struct Target {
    pub name: &'static str,
    /// Valid inputs to begin with.
    pub seeds: &'static [&'static str],
    /// Makes what each input is given to.
    pub prepare: fn() -> Reader,
}

const CONTEXTS: &[&str] = &[
    r#"{"kind":"user","key":"user-123","country":"IE","plan":"pro","age":31,"list":[1,"a",null],"object":{"a":{"b":1}}}"#,
    r#"{"kind":"multi","user":{"kind":"user","key":"u"},"organization":{"kind":"organization","key":"o"},"custom":{"source":"SDK"}}"#,
    r#"{"user.key":"u","organization.plan":"enterprise","custom.7":true}"#,
    r#"{"user":{"key":"u","custom":[1,2]},"custom":{"tier":2,"source":"API"},"user_id":"x"}"#,
    r#"{"kind":"","country":"IE","country":"DE","__proto__":{"a":1}}"#,
    "{}",
];

const BODIES: &[&str] = &[
    r#"{"context":{"kind":"user","key":"user-123","country":"IE","custom":{"source":"SDK"}}}"#,
    r#"{"context":null,"x":[1,2,{"a":"b"}]}"#,
    r#"{"context":{"targetingKey":"u","country":"IE"}}"#,
];

const EVENTS: &[&str] = &[
    r#"{"events":[{"flagKey":"split","kind":"evaluation","count":3,"variationValue":true,"userKey":"u","timestamp":"2026-11-25T12:00:00.000Z"}]}"#,
    r#"{"events":[{"flagKey":"split","kind":"custom","eventName":"x","timestamp":"2026-11-25T12:00:00.000Z","extra":{}},{"flagKey":"split","kind":"error","timestamp":"2026-11-25T12:00:00.000Z","extra":{"message":"m","name":"n"}}]}"#,
];

const MESSAGES: &[&str] = &[
    r#"{"type":"context","context":{"kind":"user","key":"u","country":"IE"}}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"pong"}"#,
    r#"{"type":"context","context":null}"#,
    r#"{"context":{},"type":"context","context":{"user":{"key":"x"}}}"#,
];

const JSON: &[&str] = &[
    r#"{"b":1.0,"a":1e21,"c":0.0000001,"d":-0.0,"e":100000000000000000000}"#,
    r#"{"10":1,"9":2,"b":3,"01":4,"a":{"4294967294":[{},[]],"4294967295":null}}"#,
    r#"{"s":"a/b\u00e9\u2028\"\\\n\u0001\u007f","😀":1,"\ue000":2}"#,
];

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "context", seeds: CONTEXTS, prepare: context },
    Target { name: "evaluate", seeds: BODIES, prepare: || post("/evaluator/evaluate") },
    Target { name: "events", seeds: EVENTS, prepare: || post("/evaluator/events") },
    Target { name: "ofrep", seeds: BODIES, prepare: || post("/ofrep/v1/evaluate/flags") },
    Target { name: "ofrep_one", seeds: BODIES, prepare: || post("/ofrep/v1/evaluate/flags/split") },
    Target { name: "canonical_json", seeds: JSON, prepare: canonical },
    Target { name: "websocket", seeds: MESSAGES, prepare: websocket },
];

const KEY: &str = "ff_fuzz";

/// Flags of every kind of rollout and with many operators, so that what is read is also used.
const CONFIGURATION: &str = r#"{"version":2,"flags":[
  {"key":"split","type":"boolean","is_active":true,"default_value":false,"analytics_enabled":true,
   "variations":[{"id":"v1","value":true},{"id":"v2","value":false}],
   "targeting_rules":[{"id":"r","kind":"custom","order_index":0,"logical_op":"OR","rollout_id":"p","conditions":[
     {"attribute":"country","operator":"in","value":["IE","DE"]},{"attribute":"user.age","operator":"gt","value":"18"},
     {"attribute":"custom.tier","operator":"eq","value":2},{"attribute":"list","operator":"nin","value":"[a, b]"},
     {"attribute":"plan","operator":"contains","value":"o"},{"attribute":"kind","operator":"exists"}]}],
   "rollouts":{"p":{"strategy":"percentage","percentage":50,"salt":"s"}}},
  {"key":"variant","type":"json","is_active":true,"default_value":{"a":1},"variations":[{"id":"v3","value":{"a":[1]}}],"targeting_rules":[],
   "rollouts":{"w":{"strategy":"variant","salt":7,"variants":[{"variation_id":"v3","weight":60}]}}},
  {"key":"gradual","type":"boolean","is_active":true,"default_value":false,"variations":[],"targeting_rules":[],
   "rollouts":{"g":{"strategy":"gradual","salt":"s","target_percentage":90,"increment":10,"interval_hours":1,"start_at":"2026-01-01T00:00:00Z"}}}],
 "segments":{}}"#;

/// Contexts are read, decided for and made loggable without a panic, whatever they are; and a context that is read again from what
/// was read is the same.
fn context() -> Reader {
    let configuration = Configuration::parse(CONFIGURATION).expect("readable");
    let compiled = CompiledEnvironment::compile(&configuration.flags, &configuration.segments);
    let redactors = [ContextRedactor::new([7; 32], false), ContextRedactor::new([7; 32], true)];
    Box::new(move |input| {
        let Ok(context) = Context::from_json(input) else { return };
        for flag in 0..compiled.flags().len() {
            let decision = compiled.decide(flag, &context, 1_795_608_000_000_000);
            assert!(decision.bucket.is_none_or(|bucket| bucket < 100));
        }
        for redactor in &redactors {
            let observed = redactor.observe(context.members());
            let attributes: Value = serde_json::from_str(observed.attributes_json()).expect("JSON");
            assert!(attributes.as_object().expect("an object").len() <= 64);
        }
        let text = serde_json::to_vec(context.members()).expect("JSON");
        let again = Context::from_json(&text).expect("an object again");
        assert_eq!(context.bucketing_key(), again.bucketing_key());
    })
}

/// The canonical text of whatever is JSON is JSON again, and its own canonical text.
fn canonical() -> Reader {
    Box::new(|input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
        let text = canonical_json(&value);
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(canonical_json(&read), text);
    })
}

/// A route of the data plane answers every body without a panic, and never with 5xx.
fn post(path: &'static str) -> Reader {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let files = tempfile::tempdir().expect("a temporary directory");
    let routes = runtime.block_on(async { serve(files.path()) });
    Box::new(move |input| {
        let _ = &files;
        for header in [None, Some(STANDARD.encode(input)).filter(|header| header.len() < 60_000)] {
            let mut request = Request::post(path).header("x-api-key", KEY);
            if let Some(header) = header {
                request = request.header("x-flagmint-context", header);
            }
            let request = request.body(Body::from(input.to_vec())).expect("a request");
            let status = runtime.block_on(async {
                let response = routes.clone().oneshot(request).await.expect("infallible");
                let status = response.status();
                let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
                serde_json::from_slice::<Value>(&body).expect("a JSON body");
                status
            });
            let expected =
                [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE];
            assert!(expected.contains(&status), "{status}");
        }
    })
}

/// How long an answer may take before the server counts as hung. Runs go on for long beside other work, and may be halted for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Sockets that were sent this many messages are replaced: one takes 500 a second.
const MESSAGES_OF_A_SOCKET: usize = 400;

/// Whatever is sent on sockets, as a message or as bytes that are no frames, the next client is served.
fn websocket() -> Reader {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let files = tempfile::tempdir().expect("a temporary directory");
    let address = runtime.block_on(async {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve_on(listener, serve(files.path()), Limits::default(), CancellationToken::new()));
        address
    });
    let mut socket = None;
    let mut sent = 0;
    Box::new(move |input| {
        let _ = &files;
        runtime.block_on(async {
            if sent % MESSAGES_OF_A_SOCKET == 0 {
                socket = Some(greeted(address).await);
            }
            sent += 1;
            let open = socket.as_mut().expect("opened above");
            let message = match std::str::from_utf8(input) {
                Ok(text) => Message::text(text),
                Err(_) => Message::binary(input.to_vec()),
            };
            if open.send(message).await.is_err() {
                socket = Some(greeted(address).await);
            }
            if sent % 50 == 0 {
                let mut raw = greeted(address).await;
                let _ = raw_stream(&mut raw).write_all(input).await;
                let last = r#"{"type":"context","context":{}}"#;
                let open = socket.as_mut().expect("opened above");
                if open.send(Message::text(last)).await.is_err() {
                    socket = Some(greeted(address).await);
                }
            }
        });
    })
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A new socket that has been sent its first map.
async fn greeted(address: SocketAddr) -> Socket {
    let (mut socket, _) = connect_async(format!("ws://{address}/ws/sdk?apiKey={KEY}")).await.expect("an upgrade");
    let first = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
    let text = first.expect("a message").expect("a message").into_text().expect("text");
    assert!(text.contains("\"flags\""), "{text}");
    socket
}

/// What is below a socket.
fn raw_stream(socket: &mut Socket) -> &mut TcpStream {
    match socket.get_mut() {
        MaybeTlsStream::Plain(stream) => stream,
        _ => unreachable!("ws is not encrypted"),
    }
}

fn serve(files: &std::path::Path) -> Router {
    let log = Arc::new(LocalLog::open(Options::new(files.join("log"), 1)).expect("a new log"));
    let settings = Settings { spool_directory: files.join("spool"), ..Settings::default() };
    let directory = Arc::new(Directory::new(Recorder::start(log, settings).expect("a recorder")));
    let environment = EnvironmentId(Uuid::from_u128(3));
    let identity = EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment,
    };
    let configuration = Configuration::parse(CONFIGURATION).expect("readable");
    let compiled = CompiledEnvironment::compile(&configuration.flags, &configuration.segments);
    // Nothing is recorded, as it would fill the disk; what becomes of a context in the log is the target `context`.
    directory.publish(Snapshot::new(identity, 2, 2, true, compiled, None));
    directory.put_key(KeyFacts {
        id: KeyId(Uuid::from_u128(4)),
        hash: key_hash(KEY),
        environment,
        expires_at_us: None,
        revoked: false,
        rate_limit_per_minute: 0,
    });
    router(DataPlane::new(directory, PlaneSettings::default()))
}
