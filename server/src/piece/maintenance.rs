//! What has to be done now and then: rollups written, rewritten and thinned, the log trimmed, metrics kept small.

use std::sync::Arc;
use std::time::Duration;

use flagmint_aggregator::Status;
use flagmint_log::{DecisionLog as _, LocalLog, wall_clock_us};
use flagmint_store::RollupStore;
use flagmint_store::clickhouse::ClickHouseStore;
use flagmint_store::parquet::ParquetStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::process::Assembly;
use crate::exit::Failure;
use crate::limits::{CONDENSE_INTERVAL, LOG_RECORDS_BEFORE_CHUNK, MAINTENANCE_INTERVAL};

/// Condenses the histograms of the process now and then; every process needs that.
pub fn condense_metrics(assembly: &mut Assembly) {
    let metrics = assembly.metrics();
    every(assembly, CONDENSE_INTERVAL, move || {
        metrics.run_upkeep();
        std::future::ready(())
    });
}

/// Maintains the local rollups; draining, what is final is written.
pub fn start_parquet(assembly: &mut Assembly, store: Arc<ParquetStore>) {
    let flushed = Arc::clone(&store);
    assembly.on_drain(async move || flushed.flush().await.map_err(|error| Failure::resource("rollups", error)));
    every(assembly, MAINTENANCE_INTERVAL, move || {
        let store = Arc::clone(&store);
        async move {
            if let Err(error) = store.maintain(wall_clock_us()).await {
                warn!(%error, "rollup maintenance is tried again");
            }
        }
    });
}

/// Trims the local log of what is older than `retention` and folded.
pub fn start_trimming<S: RollupStore>(assembly: &mut Assembly, log: Arc<LocalLog>, store: Arc<S>, retention: Duration) {
    every(assembly, MAINTENANCE_INTERVAL, move || {
        let (log, store) = (Arc::clone(&log), Arc::clone(&store));
        async move {
            if let Err(error) = trim(&log, &*store, retention).await {
                warn!(error, "the log could not be trimmed; it is tried again");
            }
        }
    });
}

/// Maintains ClickHouse, from the one aggregator that has the first partition.
pub fn start_clickhouse(assembly: &mut Assembly, store: Arc<ClickHouseStore>, statuses: watch::Receiver<Status>) {
    every(assembly, MAINTENANCE_INTERVAL, move || {
        let (store, is_mine) = (Arc::clone(&store), statuses.borrow().partition(0).is_some());
        async move {
            if is_mine && let Err(error) = store.maintain(wall_clock_us()).await {
                warn!(%error, "rollup maintenance is tried again");
            }
        }
    });
}

/// Does `work` every `interval` until the process ends, which waits for the work under way.
pub fn every<F>(assembly: &mut Assembly, interval: Duration, work: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let working = tokio::spawn(async move {
        let mut timer = tokio::time::interval(interval);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer.tick().await;
        loop {
            tokio::select! {
                _ = timer.tick() => work().await,
                () = stopped.cancelled() => break,
            }
        }
    });
    assembly.on_drain(async move || {
        stop.cancel();
        working.await.map_err(|error| Failure::resource("maintenance", error))
    });
}

async fn trim(log: &LocalLog, store: &impl RollupStore, retention: Duration) -> Result<(), String> {
    let positions = store.resume_positions().await.map_err(|error| error.to_string())?;
    let folded: Vec<u64> = (0..log.partitions())
        .map(|partition| {
            let held =
                positions.iter().find(|position| position.partition == partition && position.epoch == log.epoch());
            // A fold that resumes reads some records before its chunk to know duplicates again.
            held.map_or(0, |position| position.chunk.saturating_sub(LOG_RECORDS_BEFORE_CHUNK))
        })
        .collect();
    let before = wall_clock_us() - i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    log.trim(before, &folded).await.map(|_| ()).map_err(|error| error.to_string())
}
