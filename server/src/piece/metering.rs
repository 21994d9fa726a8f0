//! Management writes are API calls too (data-plane.md 10.1): they are recorded in the same log as all others.

use std::sync::Arc;

use flagmint_control_plane::MeteredWrite;
use flagmint_ingest::{CallFacts, CallerName, ContextRedactor, EnvironmentIdentity, Recorder};
use flagmint_schemas::decision::{Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use tokio::sync::mpsc::Receiver;

/// Records each write as one API call without decisions, until the senders are gone.
///
/// A write that concerns no single environment (a flag, a segment) is kept under its project's own id.
pub async fn record(mut writes: Receiver<MeteredWrite>, recorder: Recorder) {
    while let Some(write) = writes.recv().await {
        let identity = EnvironmentIdentity {
            organization: OrganizationId(write.organization_id),
            project: ProjectId(write.project_id),
            environment: EnvironmentId(write.environment_id.unwrap_or(write.project_id)),
        };
        // No context is ever recorded with it, so any pseudonym key will do.
        let environment = recorder.environment(identity, Arc::from([]), ContextRedactor::new([0; 32], false));
        let caller = environment.caller(CallerName::silent(KeyId::NONE, Transport::Management, Trigger::Evaluate));
        let facts = CallFacts {
            call_id: uuid::Uuid::now_v7().as_u128(),
            event_time_us: write.at.timestamp_micros(),
            caller,
            api_calls: 1,
            ..CallFacts::default()
        };
        // A refusal is counted by the recorder.
        let _ = environment.record(facts, &[]);
    }
}
