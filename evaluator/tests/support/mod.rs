//! A data plane on a free port with a real log behind it: what the endpoint tests ask.
#![expect(dead_code, reason = "each test program uses a part of it")]

pub mod clients;
pub mod sync_client;

use std::net::SocketAddr;
use std::sync::Arc;

use flagmint_evaluator::directory::{Directory, KeyFacts, key_hash};
use flagmint_evaluator::engine::CompiledEnvironment;
use flagmint_evaluator::http::{DataPlane, Settings as PlaneSettings, router};
use flagmint_evaluator::serve::{Limits, listen, serve};
use flagmint_evaluator::snapshot::{Configuration, Snapshot, recorded_outcomes};
use flagmint_ingest::{ContextRedactor, EnvironmentIdentity, Recorder, Settings};
use flagmint_log::{DecisionLog as _, LocalLog, Options};
use flagmint_schemas::batch::{Batch, BatchHeader};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The key of the environment under test.
pub const KEY: &str = "ff_0000000000000000000000000000000000000000000000000000000000000001";

/// Two flags: one with a rule and a split, one static.
pub const CONFIGURATION: &str = r#"{"version":7,"flags":[
  {"id":"00000000-0000-0000-0000-0000000000f1","key":"new-checkout","type":"boolean","is_active":true,"default_value":false,"analytics_enabled":true,
   "variations":[{"id":"00000000-0000-0000-0000-0000000000a1","value":true},{"id":"00000000-0000-0000-0000-0000000000a2","value":false}],
   "targeting_rules":[{"id":"00000000-0000-0000-0000-0000000000b1","kind":"custom","order_index":0,
     "conditions":[{"attribute":"country","operator":"eq","value":"IE"}],"variation_id":"00000000-0000-0000-0000-0000000000a1"}],
   "rollouts":{}},
  {"id":"00000000-0000-0000-0000-0000000000f2","key":"button \"color\"","type":"string","is_active":true,"default_value":"blue","analytics_enabled":false,
   "variations":[{"id":"00000000-0000-0000-0000-0000000000a3","value":"blue"}],"targeting_rules":[],"rollouts":{}}],
  "segments":{}}"#;

/// A running data plane.
pub struct Plane {
    pub address: SocketAddr,
    pub directory: Arc<Directory>,
    pub recorder: Recorder,
    pub http: reqwest::Client,
    pub plane: DataPlane,
    log: Arc<LocalLog>,
    _files: tempfile::TempDir,
}

impl Plane {
    /// With [`CONFIGURATION`] in force for [`KEY`].
    pub async fn start() -> Self {
        Self::start_with(PlaneSettings::default(), Limits::default()).await
    }

    /// The same, set up differently. Where others reach it is filled in.
    pub async fn start_with(settings: PlaneSettings, limits: Limits) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let log = Arc::new(LocalLog::open(Options::new(files.path().join("log"), 1)).expect("a new log"));
        let spool_directory = files.path().join("spool");
        let recorder =
            Recorder::start(Arc::clone(&log), Settings { spool_directory, ..Settings::default() }).expect("a recorder");
        let directory = Arc::new(Directory::new(recorder.clone()));
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let settings =
            PlaneSettings { bypass_token: Some("let-me-pass".into()), address: Some(address.to_string()), ..settings };
        let data_plane = DataPlane::new(Arc::clone(&directory), settings);
        tokio::spawn(serve(listener, router(data_plane.clone()), limits, CancellationToken::new()));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let plane = Self { address, directory, recorder, http, plane: data_plane, log, _files: files };
        plane.publish(CONFIGURATION, 7, true);
        plane.directory.put_key(facts(KEY));
        plane
    }

    /// Puts a configuration in force.
    pub fn publish(&self, text: &str, version: u64, subscription_active: bool) {
        self.publish_with(redactor(), text, version, subscription_active);
    }

    /// The same where something else may be logged of contexts.
    pub fn publish_with(&self, redactor: ContextRedactor, text: &str, version: u64, subscription_active: bool) {
        let configuration = Configuration::parse(text).expect("a readable configuration");
        let compiled = CompiledEnvironment::compile(&configuration.flags, &configuration.segments);
        let recorder = self.directory.recorder_for(identity(), recorded_outcomes(&compiled), redactor);
        let revision = i64::try_from(version).expect("small");
        let snapshot = Snapshot::new(identity(), version, revision, subscription_active, compiled, Some(recorder));
        self.directory.publish(snapshot.with_metadata(&configuration.metadata).with_stored(text.to_owned()));
    }

    /// Streams and sockets open now.
    pub fn open_streams(&self) -> usize {
        self.plane.open_streams()
    }

    /// A request to the evaluate endpoint with the test key.
    pub fn evaluate(&self) -> reqwest::RequestBuilder {
        self.http.post(format!("http://{}/evaluator/evaluate", self.address)).header("x-api-key", KEY)
    }

    /// A request to an OFREP endpoint, by its path below `/ofrep/v1/evaluate/flags`, with the test key.
    pub fn ofrep(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("http://{}/ofrep/v1/evaluate/flags{path}", self.address)).header("x-api-key", KEY)
    }

    /// Drains the recorder and reads the log back.
    pub async fn recorded(&self) -> Vec<(BatchHeader, Batch)> {
        self.recorder.drain().await.expect("a drained recorder");
        let end = self.log.bounds(0).await.expect("bounds").end;
        let mut batches = Vec::new();
        let mut next = 0;
        while next < end {
            for record in self.log.read(0, next, 1 << 20).await.expect("records") {
                next = record.offset + 1;
                let header = BatchHeader::decode(&record.header).expect("a header");
                if !header.is_heartbeat() {
                    batches.push((header, Batch::decode(&header, &record.payload).expect("a batch")));
                }
            }
        }
        batches
    }
}

/// What makes pseudonyms unless a test has another one.
pub fn redactor() -> ContextRedactor {
    ContextRedactor::new([7; 32], false)
}

/// Whose environment it is.
pub fn identity() -> EnvironmentIdentity {
    EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: EnvironmentId(Uuid::from_u128(3)),
    }
}

/// A key of that environment, without a limit.
pub fn facts(text: &str) -> KeyFacts {
    KeyFacts {
        id: KeyId(Uuid::from_u128(4)),
        hash: key_hash(text),
        environment: identity().environment,
        expires_at_us: None,
        revoked: false,
        rate_limit_per_minute: 0,
    }
}
