//! The aggregator: the log folded into the store.

use std::sync::Arc;

use flagmint_aggregator::fold::FoldLimits;
use flagmint_aggregator::limits::CHUNK_CELLS_CLICKHOUSE;
use flagmint_aggregator::{self as aggregator, Failpoint, RunError, Settings, Status};
use flagmint_log::{DecisionLog, LogError};
use flagmint_store::RollupStore;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::health::{Check, check_now};
use super::process::Assembly;
use crate::exit::Failure;
use crate::limits::REOPEN_WAIT;

/// A running fold.
pub struct Fold {
    /// Where it stands.
    pub statuses: watch::Receiver<Status>,
    ended: oneshot::Receiver<String>,
}

impl Fold {
    /// Completes when the fold ends without having been told to.
    pub async fn ended(self) -> Failure {
        match self.ended.await {
            Ok(reason) => Failure::resource("aggregator", reason),
            Err(_told_to) => std::future::pending().await,
        }
    }
}

/// Where `FLAGMINT_FAILPOINT` says to crash: for tests of crashes ([`Failpoint`]).
///
/// # Errors
/// If it names no step.
pub fn failpoint() -> Result<Failpoint, Failure> {
    let Ok(text) = std::env::var("FLAGMINT_FAILPOINT") else { return Ok(Failpoint::default()) };
    tracing::warn!(text, "this process is armed to crash");
    text.parse().map_err(|error| Failure::Usage(format!("FLAGMINT_FAILPOINT {text:?}: {error}")))
}

/// The fold's limits where ClickHouse keeps the cells.
pub fn limits_clickhouse() -> FoldLimits {
    FoldLimits { chunk_cells: CHUNK_CELLS_CLICKHOUSE, ..FoldLimits::default() }
}

/// Opens a log that has failed for good once more: one that was made anew then goes on as another.
pub type Reopen<L> = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<L>, LogError>> + Send + Sync>;

/// Starts the fold. Draining, it folds what the log then holds, in the time that `settings` gives. When the log fails for good, the fold
/// goes on with what `reopen` gives, or ends where there is none.
pub fn start<L: DecisionLog, S: RollupStore>(
    assembly: &mut Assembly,
    log: Arc<L>,
    store: Arc<S>,
    settings: Settings,
    reopen: Option<Reopen<L>>,
) -> Fold {
    let statuses = settings.status.subscribe();
    let folding = CancellationToken::new();
    let stop = folding.clone();
    let (tell, ended) = oneshot::channel();
    let fold = tokio::spawn(async move {
        let folded = fold(log, store, settings, reopen, stop).await;
        if let Err(error) = &folded {
            tracing::error!(%error, "the fold ended; a start begins where the store says");
            let _ = tell.send(error.to_string());
        }
        folded
    });
    assembly.on_drain(async move || {
        folding.cancel();
        fold.await
            .map_err(|error| Failure::resource("aggregator", error))?
            .map_err(|error| Failure::resource("aggregator", error))
    });
    Fold { statuses, ended }
}

/// Folds one log after the other until told to stop.
async fn fold<L: DecisionLog, S: RollupStore>(
    mut log: Arc<L>,
    store: Arc<S>,
    settings: Settings,
    reopen: Option<Reopen<L>>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    loop {
        let folded = aggregator::run(log, Arc::clone(&store), settings.clone(), stop.clone().cancelled_owned()).await;
        let (Some(reopen), Err(RunError::Log(LogError::Fatal(reason)))) = (&reopen, &folded) else { return folded };
        tracing::warn!(reason, "the log is opened again; folding goes on with what is there then");
        tell_trouble(&settings.status, reason);
        log = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            log = open_again(reopen, &settings.status) => log,
        };
    }
}

fn tell_trouble(status: &watch::Sender<Status>, reason: &str) {
    status.send_modify(|status| {
        *status = Status { log_trouble: Some(reason.to_owned()), partitions: Vec::new(), ..status.clone() };
    });
}

async fn open_again<L>(reopen: &Reopen<L>, status: &watch::Sender<Status>) -> Arc<L> {
    let mut wait = REOPEN_WAIT.0;
    loop {
        match reopen().await {
            Ok(log) => return log,
            Err(error) => {
                tracing::warn!(%error, "the log cannot be opened again now");
                tell_trouble(status, &error.to_string());
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(REOPEN_WAIT.1);
    }
}

/// Waits until what the log held at the start is folded: before that, answers from a store that keeps open chunks in memory would lack
/// what they had before the restart.
///
/// # Errors
/// If the fold ended.
pub async fn catch_up<L: DecisionLog>(log: &L, mut statuses: watch::Receiver<Status>) -> Result<(), Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::resource("aggregator", error);
    for partition in 0..log.partitions() {
        let end = log.bounds(partition).await.map_err(|error| refuse(&error))?.end;
        let is_there = |status: &Status| {
            status.partition(partition).is_some_and(|found| found.emitted_offset >= end || found.is_stopped)
        };
        statuses.wait_for(is_there).await.map_err(|_| refuse(&"the fold ended at its start; its log line says why"))?;
    }
    Ok(())
}

/// Whether the fold can do its work, from what it says about itself.
pub fn check(statuses: watch::Receiver<Status>) -> Check {
    check_now("aggregator", move || state(&statuses))
}

fn state(statuses: &watch::Receiver<Status>) -> (bool, Value) {
    let is_running = statuses.has_changed().is_ok();
    let status = statuses.borrow().clone();
    let stopped = status.partitions.iter().filter(|partition| partition.is_stopped).count();
    let state = match (&status.store_trouble, &status.log_trouble) {
        _ if !is_running => "ended; the log line of its end says why".to_owned(),
        (Some(reason), _) => format!("the store does not take cells: {reason}"),
        (_, Some(reason)) => format!("the log cannot be read: {reason}"),
        _ if status.generation == 0 => "waiting for its share of the partitions".to_owned(),
        _ if stopped > 0 => format!("{stopped} partitions stopped: too many unreadable records"),
        _ if status.is_opening => "opening partitions".to_owned(),
        _ => "folding".to_owned(),
    };
    let is_good = is_running
        && status.store_trouble.is_none()
        && status.log_trouble.is_none()
        && status.generation > 0
        && stopped == 0;
    let partitions: Vec<u32> = status.partitions.iter().map(|partition| partition.partition).collect();
    let report = json!({
        "state": state, "partitions": partitions,
        "lag_records": status.lag_records(), "complete_through_us": status.complete_through_us(),
        "parked_records": status.parked_records, "upsert_retries": status.upsert_retries,
    });
    (is_good, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_told() {
        let sender = watch::Sender::new(Status::default());
        let receiver = sender.subscribe();
        let check = |change: fn(&mut Status), expected: &str, good: bool| {
            sender.send_modify(|status| {
                *status = Status { generation: 1, ..Status::default() };
                change(status);
            });
            let (is_good, report) = state(&receiver);
            assert!(report["state"].as_str().unwrap().contains(expected), "{report}");
            assert_eq!(is_good, good, "{report}");
        };
        check(|status| status.generation = 0, "waiting for its share", false);
        check(|_| {}, "folding", true);
        check(|status| status.is_opening = true, "opening", true);
        check(|status| status.store_trouble = Some("no route".into()), "does not take cells: no route", false);
        check(|status| status.log_trouble = Some("no route".into()), "cannot be read: no route", false);
        drop(sender);
        assert!(state(&receiver).1["state"].as_str().unwrap().starts_with("ended"));
    }
}
