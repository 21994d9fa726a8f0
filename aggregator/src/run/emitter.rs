//! Brings emissions to the store: one at a time, the same rows again and again until they are taken, beside the folding.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flagmint_store::{Emission, Position, RollupStore, StoreError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::RunError;
use super::failpoint::{Failpoint, Step};
use crate::fold::Emitted;
use crate::limits::RETRY_WAIT;

/// Holds the emission that the store has not taken yet.
pub(super) struct Emitter<S> {
    store: Arc<S>,
    failpoint: Failpoint,
    pending: Option<Pending>,
}

/// What came of offering the emission.
pub(super) enum Progress {
    /// The store has it; where it brings the fold.
    Taken(Vec<Position>),
    /// Not now; it will be offered again.
    Refused(String),
}

struct Pending {
    emission: Emission,
    started: Instant,
    /// The attempt under way, ended with this; empty while waiting for the next one.
    attempt: JoinSet<Result<(), StoreError>>,
    attempt_started: Instant,
    next_attempt: Instant,
    wait: Duration,
}

impl<S: RollupStore> Emitter<S> {
    pub fn new(store: Arc<S>, failpoint: Failpoint) -> Self {
        Self { store, failpoint, pending: None }
    }

    /// Whether an emission is under way.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Begins to offer an emission. Nothing else may be under way.
    pub fn start(&mut self, cells: &Emitted, positions: Vec<Position>) {
        assert!(self.pending.is_none(), "emissions go one after the other");
        let started = Instant::now();
        let emission = Emission { cells: cells.to_batches(), positions };
        let bytes: usize = emission.cells.iter().map(|(_, batch)| batch.get_array_memory_size()).sum();
        metrics::counter!("flagmint_aggregator_cells_total").increment(cells.len() as u64);
        metrics::counter!("flagmint_aggregator_emitted_bytes_total").increment(bytes as u64);
        self.failpoint.pass(Step::BeforeInsert);
        let mut pending = Pending {
            emission,
            started,
            attempt: JoinSet::new(),
            attempt_started: started,
            next_attempt: started,
            wait: RETRY_WAIT.0,
        };
        pending.offer(&self.store, &self.failpoint);
        self.pending = Some(pending);
    }

    /// Completes when the store has answered; never, if nothing is under way. Goes on where it was if dropped.
    pub async fn progress(&mut self) -> Result<Progress, RunError> {
        let Some(pending) = &mut self.pending else { return std::future::pending().await };
        if pending.attempt.is_empty() {
            sleep_until(pending.next_attempt).await;
            pending.offer(&self.store, &self.failpoint);
        }
        let answer = pending.attempt.join_next().await.expect("one was spawned");
        metrics::histogram!("flagmint_aggregator_insert_seconds").record(pending.attempt_started.elapsed());
        match answer.map_err(|error| RunError::Fold(error.to_string()))? {
            Ok(()) => {
                self.failpoint.pass(Step::AfterInsert);
                metrics::histogram!("flagmint_aggregator_tick_seconds").record(pending.started.elapsed());
                let taken = self.pending.take().map(|pending| pending.emission.positions);
                Ok(Progress::Taken(taken.unwrap_or_default()))
            }
            Err(StoreError::Retry(reason)) => {
                tracing::warn!(reason, "the rollup store does not take cells; they are offered again");
                metrics::counter!("flagmint_aggregator_upsert_retries_total").increment(1);
                pending.next_attempt = Instant::now() + pending.wait;
                pending.wait = (pending.wait * 2).min(RETRY_WAIT.1);
                Ok(Progress::Refused(reason))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Pending {
    /// Starts an attempt on a task of its own, so that it goes on while this thread folds.
    fn offer<S: RollupStore>(&mut self, store: &Arc<S>, failpoint: &Failpoint) {
        let (store, failpoint, emission) = (Arc::clone(store), failpoint.clone(), self.emission.clone());
        self.attempt_started = Instant::now();
        self.attempt.spawn(async move {
            let mut upsert = pin!(store.upsert(emission));
            poll_fn(|context| {
                let polled = upsert.as_mut().poll(context);
                if polled.is_pending() {
                    failpoint.pass(Step::DuringInsert);
                }
                polled
            })
            .await
        });
    }
}
