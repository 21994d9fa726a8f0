//! The server: our data plane with its recorder and a log on disk, told on standard input to publish.

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flagmint_evaluator::directory::{Directory, KeyFacts, key_hash};
use flagmint_evaluator::engine::CompiledEnvironment;
use flagmint_evaluator::http::{DataPlane, Settings, router};
use flagmint_evaluator::serve::{Limits, listen, serve};
use flagmint_evaluator::snapshot::{Configuration, Snapshot, recorded_outcomes};
use flagmint_ingest::{ContextRedactor, EnvironmentIdentity, Recorder};
use flagmint_log::{LocalLog, Options};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The one key.
pub const KEY: &str = "bench";
/// What sessions are sealed under, so that clients can make their own.
pub const SECRET: [u8; 32] = [7; 32];
const FLAGS: usize = 49;

/// The environment.
pub fn environment() -> EnvironmentId {
    EnvironmentId(Uuid::from_u128(3))
}

/// Microseconds since the epoch.
pub fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since_epoch.as_micros()).expect("a few more years")
}

fn flag(number: usize) -> Value {
    let id = |kind: u128| Uuid::from_u128(kind << 64 | number as u128).to_string();
    json!({
        "id": id(1), "key": format!("flag-{number:02}"), "type": "boolean", "default_value": false, "analytics_enabled": true,
        "variations": [{ "id": id(2), "value": true }, { "id": id(3), "value": false }],
        "targeting_rules": [{ "id": id(4), "kind": "custom", "rollout_id": id(5), "conditions": [
            { "attribute": "country", "operator": "in", "value": ["IE", "DE", "FR"] },
            { "attribute": "plan", "operator": "eq", "value": "pro" }] }],
        "rollouts": { id(5): { "strategy": "percentage", "percentage": 50, "salt": format!("salt-{number}") } },
    })
}

/// Puts a configuration in force whose flag `marker` says when that was.
fn publish(directory: &Directory, version: u64) {
    let marker = json!({ "id": Uuid::from_u128(9).to_string(), "key": "marker", "type": "string",
        "default_value": format!("{}", now_us()), "variations": [], "targeting_rules": [], "rollouts": {} });
    let flags: Vec<Value> = (0..FLAGS).map(flag).chain([marker]).collect();
    let configuration = Configuration::parse(&json!({ "flags": flags }).to_string()).expect("made here");
    let compiled = CompiledEnvironment::compile(&configuration.flags, &configuration.segments);
    let identity = EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: environment(),
    };
    let redactor = ContextRedactor::new([7; 32], false);
    let recorder = directory.recorder_for(identity, recorded_outcomes(&compiled), redactor);
    let revision = i64::try_from(version).expect("few");
    directory.publish(Snapshot::new(identity, version, revision, true, compiled, Some(recorder)));
}

/// Prints its address, then obeys until standard input ends.
pub fn run() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _guard = runtime.enter();
    let log = Arc::new(LocalLog::open(Options::new(files.path().join("log"), 1)).expect("a new log"));
    let spool_directory = files.path().join("spool");
    let settings = flagmint_ingest::Settings { spool_directory, ..flagmint_ingest::Settings::default() };
    let recorder = Recorder::start(log, settings).expect("a recorder");
    let directory = Arc::new(Directory::new(recorder.clone()));
    publish(&directory, 1);
    directory.put_key(KeyFacts {
        id: KeyId(Uuid::from_u128(4)),
        hash: key_hash(KEY),
        environment: environment(),
        expires_at_us: None,
        revoked: false,
        rate_limit_per_minute: 0,
    });
    let plane = DataPlane::new(Arc::clone(&directory), Settings { secret: SECRET.into(), ..Settings::default() });
    let listener = listen(([127, 0, 0, 1], 0).into()).expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    let limits = Limits { per_address_max: u32::MAX, ..Limits::default() };
    runtime.spawn(serve(listener, router(plane), limits, CancellationToken::new()));
    for (line, version) in std::io::stdin().lock().lines().map_while(Result::ok).zip(2..) {
        assert_eq!(line, "publish");
        publish(&directory, version);
        println!("published; {} decisions refused", recorder.stats().refused_decisions);
    }
}
