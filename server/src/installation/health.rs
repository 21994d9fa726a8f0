//! The state of each dependency, for `/health/ready`. Ready means able to evaluate: nothing else stops traffic.

use std::sync::Arc;

use flagmint_evaluator::directory::Directory;
use flagmint_ingest::{Health as RecorderHealth, Recorder};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What health is read from.
pub struct Health {
    /// The configuration in force.
    pub directory: Arc<Directory>,
    /// The recorder.
    pub recorder: Recorder,
    /// Where the fold stands.
    pub aggregator: watch::Receiver<flagmint_aggregator::Status>,
}

impl Health {
    /// Whether requests can be answered.
    pub fn is_ready(&self) -> bool {
        self.directory.is_loaded()
    }

    /// Each dependency with its state.
    pub fn report(&self) -> Value {
        let stats = self.recorder.stats();
        let aggregator = self.aggregator.borrow().clone();
        let configuration = match (self.directory.is_loaded(), self.directory.is_source_away()) {
            (false, _) => "not loaded",
            (true, true) => "loaded; Postgres is away, changes wait",
            (true, false) => "in step",
        };
        json!({
            "status": if self.is_ready() { "ready" } else { "not ready" },
            "configuration": { "state": configuration },
            "log": { "state": log_state(&self.recorder.health()), "refused_decisions": stats.refused_decisions, "in_flight_decisions": stats.in_flight_decisions },
            "aggregator": {
                "state": if aggregator.partitions.iter().any(|partition| partition.is_stopped) { "stopped: too many unreadable records" } else { "folding" },
                "lag_records": aggregator.lag_records(), "complete_through_us": aggregator.complete_through_us(),
                "parked_records": aggregator.parked_records, "upsert_retries": aggregator.upsert_retries,
            },
        })
    }
}

fn log_state(health: &RecorderHealth) -> String {
    match health {
        RecorderHealth::Appending => "appending".into(),
        RecorderHealth::LogBehind => "behind; batches wait".into(),
        RecorderHealth::LogFailed { reason } => format!("failed: {reason}"),
    }
}
