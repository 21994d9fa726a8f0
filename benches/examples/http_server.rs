//! `http_server bare FILE | plain | recording`: what `dev/bench-http` compares over HTTP, each on one tokio worker.
//!
//! `bare` is an axum server that parses the body and answers the bytes of a file: the ceiling of any server with these parts.
//! `recording` is our data plane with its recorder and a log on disk, `plain` the same with decisions not recorded. Neither has
//! Postgres or the aggregator beside it, so that the two differ in recording alone. Prints the address it serves on.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use flagmint_evaluator::directory::{Directory, KeyFacts, key_hash};
use flagmint_evaluator::engine::CompiledEnvironment;
use flagmint_evaluator::http::{DataPlane, router};
use flagmint_evaluator::snapshot::{Configuration, Snapshot, recorded_outcomes};
use flagmint_ingest::{ContextRedactor, EnvironmentIdentity, Recorder, Settings};
use flagmint_log::{LocalLog, Options};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

/// The allocator of the real server, for all three.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: &str = "bench";
const FLAGS: usize = 12;

#[derive(Deserialize)]
struct Ask {
    context: HashMap<String, Value>,
}

async fn bare(State(answer): State<Bytes>, Json(ask): Json<Ask>) -> impl IntoResponse {
    std::hint::black_box(ask.context);
    ([(header::CONTENT_TYPE, "application/json")], answer)
}

fn flag(number: usize) -> Value {
    let id = |kind: u128| Uuid::from_u128(kind << 64 | number as u128).to_string();
    let conditions = json!([
        { "attribute": "country", "operator": "in", "value": ["IE", "DE", "FR", "GB", "US"] },
        { "attribute": "plan", "operator": "eq", "value": "pro" },
    ]);
    json!({
        "id": id(1), "key": format!("flag-{number:02}"), "type": "boolean", "default_value": false, "analytics_enabled": true,
        "variations": [{ "id": id(2), "value": true }, { "id": id(3), "value": false }],
        "targeting_rules": [{ "id": id(4), "kind": "custom", "conditions": conditions, "rollout_id": id(5) }],
        "rollouts": { id(5): { "strategy": "percentage", "percentage": 50, "salt": format!("salt-{number}") } },
    })
}

fn data_plane(recording: bool, directory: &std::path::Path) -> Router {
    let log = Arc::new(LocalLog::open(Options::new(directory.join("log"), 1)).expect("a new log"));
    let settings = Settings { spool_directory: directory.join("spool"), ..Settings::default() };
    let recorder = Recorder::start(log, settings).expect("a recorder");
    let keys = Arc::new(Directory::new(recorder));
    let identity = EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: EnvironmentId(Uuid::from_u128(3)),
    };
    let text = json!({ "flags": (0..FLAGS).map(flag).collect::<Vec<_>>() }).to_string();
    let configuration = Configuration::parse(&text).expect("made here");
    let compiled = CompiledEnvironment::compile(&configuration.flags, &configuration.segments);
    let environment = recording
        .then(|| keys.recorder_for(identity, recorded_outcomes(&compiled), ContextRedactor::new([7; 32], false)));
    keys.publish(Snapshot::new(identity, 1, 1, true, compiled, environment));
    keys.put_key(KeyFacts {
        id: KeyId(Uuid::from_u128(4)),
        hash: key_hash(KEY),
        environment: identity.environment,
        expires_at_us: None,
        revoked: false,
        rate_limit_per_minute: 0,
    });
    router(DataPlane::new(keys, flagmint_evaluator::http::Settings::default()))
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let app = match mode.as_str() {
            "bare" => {
                let file = arguments.next().expect("a file with the answer");
                let answer = Bytes::from(std::fs::read(file).expect("a readable answer"));
                let by_ofrep = "/ofrep/v1/evaluate/flags";
                let router = Router::new().route("/evaluator/evaluate", post(bare)).route(by_ofrep, post(bare));
                router.route(&[by_ofrep, "/{key}"].concat(), post(bare)).with_state(answer)
            }
            "plain" | "recording" => data_plane(mode == "recording", directory.path()),
            _ => panic!("usage: http_server bare FILE | plain | recording"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("http://{}", listener.local_addr().expect("an address"));
        // A task of the worker, not of this thread, so that accepting and serving share the one worker.
        tokio::spawn(async move { axum::serve(listener, app).await }).await.expect("serves").expect("serves");
    });
}
