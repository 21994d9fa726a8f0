//! What has to be done now and then: rollups written, rewritten and thinned, the log trimmed, metrics kept small, dead
//! letters written down.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flagmint_aggregator::fold::DeadLetter;
use flagmint_log::{DecisionLog as _, LocalLog, wall_clock_us};
use flagmint_store::RollupStore as _;
use flagmint_store::parquet::ParquetStore;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::limits::{DEAD_LETTERS_BYTES_MAX, LOG_RECORDS_BEFORE_CHUNK, MAINTENANCE_INTERVAL};

/// What is maintained.
pub struct Kept {
    /// Trimmed once folded and older than `retention`.
    pub log: Arc<LocalLog>,
    /// Written, rewritten, thinned.
    pub store: Arc<ParquetStore>,
    /// Histograms are condensed.
    pub metrics: PrometheusHandle,
    /// How long the log is kept.
    pub retention: Duration,
}

/// Maintains until `shutdown`.
pub async fn maintain(kept: Kept, shutdown: CancellationToken) {
    let mut timer = tokio::time::interval(MAINTENANCE_INTERVAL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    timer.tick().await;
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = shutdown.cancelled() => break,
        }
        kept.metrics.run_upkeep();
        if let Err(error) = kept.store.maintain(wall_clock_us()).await {
            warn!(%error, "rollup maintenance is tried again");
        }
        if let Err(error) = trim(&kept).await {
            warn!(error, "the log could not be trimmed; it is tried again");
        }
    }
}

async fn trim(kept: &Kept) -> Result<(), String> {
    let positions = kept.store.resume_positions().await.map_err(|error| error.to_string())?;
    let folded: Vec<u64> = (0..kept.log.partitions())
        .map(|partition| {
            let held =
                positions.iter().find(|position| position.partition == partition && position.epoch == kept.log.epoch());
            // A fold that resumes reads some records before its chunk to know duplicates again.
            held.map_or(0, |position| position.chunk.saturating_sub(LOG_RECORDS_BEFORE_CHUNK))
        })
        .collect();
    let before = wall_clock_us() - i64::try_from(kept.retention.as_micros()).unwrap_or(i64::MAX);
    kept.log.trim(before, &folded).await.map(|_| ()).map_err(|error| error.to_string())
}

/// Letters waiting to be written down at most; the aggregator waits beyond that.
const DEAD_LETTERS_WAITING_MAX: usize = 64;

/// Writes the letters sent to it down in `path`, one line of JSON each, on a thread of its own. Beyond the file's limit they are
/// counted in the ledger only.
pub fn write_dead_letters(path: PathBuf) -> mpsc::Sender<DeadLetter> {
    let (sender, mut letters) = mpsc::channel::<DeadLetter>(DEAD_LETTERS_WAITING_MAX);
    std::thread::spawn(move || {
        while let Some(letter) = letters.blocking_recv() {
            warn!(partition = letter.partition, offset = letter.offset, reason = %letter.reason, "a record is parked");
            if let Err(error) = append(&path, &letter) {
                warn!(%error, "a dead letter could not be written");
            }
        }
    });
    sender
}

fn append(path: &Path, letter: &DeadLetter) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() > DEAD_LETTERS_BYTES_MAX {
        return Ok(());
    }
    let line = json!({
        "epoch": letter.epoch, "partition": letter.partition, "offset": letter.offset,
        "append_time_us": letter.append_time_us, "reason": letter.reason, "header_hex": hex::encode(&letter.header),
        "payload_hex": hex::encode(&letter.payload), "payload_bytes": letter.payload_bytes,
    });
    writeln!(file, "{line}")
}
