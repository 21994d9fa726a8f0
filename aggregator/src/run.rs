//! The loop around the fold: log in, cells out.
//!
//! It starts where the store says its durable cells end, folds every partition as far as the log goes, and hands the
//! changed cells of all partitions to the store in one emission. While the store does not take an emission, the very same rows are
//! offered again and nothing more is folded: the log holds the rest. When told to stop, it folds what is in
//! the log, emits, and returns.

mod partition;
mod status;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use flagmint_log::{DecisionLog, LogError};
use flagmint_store::{Emission, Position, RollupStore, StoreError};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::fold::{DeadLetter, Emitted, FoldLimits};
use crate::limits;
use partition::Partition;

pub use status::{PartitionStatus, Status};

/// How the loop works, and whom it reports to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of the fold.
    pub fold: FoldLimits,
    /// Shortest time between two emissions.
    pub emit_interval_min: Duration,
    /// Longest time that folded cells wait while there is more to fold.
    pub emit_interval: Duration,
    /// Takes the records that could not be read. The loop waits while it is full. A crash may repeat some.
    pub dead_letters: mpsc::Sender<DeadLetter>,
    /// Takes the state of the loop after each emission; [`watch::Sender::subscribe`] it beforehand.
    pub status: watch::Sender<Status>,
}

impl Settings {
    /// The intervals and limits of [`limits`].
    #[must_use]
    pub fn new(dead_letters: mpsc::Sender<DeadLetter>, status: watch::Sender<Status>) -> Self {
        Self {
            fold: FoldLimits::default(),
            emit_interval_min: limits::EMIT_INTERVAL_MIN,
            emit_interval: limits::EMIT_INTERVAL,
            dead_letters,
            status,
        }
    }
}

/// Why the loop ended before it was told to.
#[derive(Debug, Error)]
pub enum RunError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed, or still refused to take the last cells at the end.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is ahead of the log: they do not belong together, or the log was restored from an older copy.
    #[error("partition {partition}: the rollups reach offset {stored}, but the log ends at {end}")]
    Ahead {
        /// Log partition.
        partition: u32,
        /// Where the store says to resume.
        stored: u64,
        /// End of the log.
        end: u64,
    },
    /// A thread that folded ended early.
    #[error("folding ended early: {0}")]
    Fold(String),
}

/// Runs until `shutdown` completes and everything then in the log is folded and emitted.
///
/// # Errors
/// If the log or the store fails for good; see [`RunError`]. Nothing is lost by that: a new run resumes from the store.
pub async fn run<L: DecisionLog, S: RollupStore>(
    log: Arc<L>,
    store: Arc<S>,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let mut shutdown = pin!(shutdown);
    let mut aggregator = Aggregator::open(log, store, settings).await?;
    let mut is_draining = false;
    loop {
        let has_more = aggregator.fold_once().await?;
        let is_drained = is_draining && !has_more;
        if is_drained || aggregator.is_emission_due(has_more) {
            aggregator.emit(is_draining).await?;
        }
        if is_drained {
            return Ok(());
        }
        if has_more {
            // Folding may never wait for anything: let others run.
            tokio::task::yield_now().await;
            is_draining = is_draining || is_ready(shutdown.as_mut()).await;
        } else if !is_draining {
            tokio::select! {
                () = shutdown.as_mut() => is_draining = true,
                woken = aggregator.wait() => woken?,
            }
        }
    }
}

/// Whether a future has completed; it is not polled again afterwards.
async fn is_ready(mut future: Pin<&mut (impl Future<Output = ()> + Send)>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

/// Completes when a partition of the log has grown.
type Growth<'a> = Pin<Box<dyn Future<Output = Result<(), LogError>> + Send + 'a>>;

struct Aggregator<L, S> {
    log: Arc<L>,
    store: Arc<S>,
    settings: Settings,
    partitions: Vec<Partition>,
    status: Status,
    last_emission: Instant,
    /// Records were folded since the last emission.
    is_dirty: bool,
}

impl<L: DecisionLog, S: RollupStore> Aggregator<L, S> {
    async fn open(log: Arc<L>, store: Arc<S>, settings: Settings) -> Result<Self, RunError> {
        let stored = store.resume_positions().await?;
        let mut partitions = Vec::new();
        for number in 0..log.partitions() {
            let of_this = |position: &&Position| position.partition == number && position.epoch == log.epoch();
            let position = stored.iter().find(of_this).copied();
            partitions.push(Partition::open(&*log, number, position, settings.fold).await?);
        }
        let mut aggregator = Self {
            log,
            store,
            settings,
            partitions,
            status: Status::default(),
            last_emission: Instant::now(),
            is_dirty: false,
        };
        aggregator.publish().await?;
        Ok(aggregator)
    }

    /// Reads each partition once; whether any had something.
    async fn fold_once(&mut self) -> Result<bool, RunError> {
        let mut records = 0;
        for partition in &mut self.partitions {
            let step = partition.step(&*self.log).await?;
            records += step.records;
            for letter in step.dead_letters {
                self.status.parked_records += 1;
                metrics::counter!("flagmint_aggregator_parked_records_total").increment(1);
                tracing::warn!(
                    partition = letter.partition,
                    offset = letter.offset,
                    reason = letter.reason,
                    "record parked"
                );
                if self.settings.dead_letters.send(letter).await.is_err() {
                    tracing::error!("nobody takes dead letters any more; the record stays in the log only");
                }
            }
        }
        metrics::counter!("flagmint_aggregator_records_total").increment(records);
        self.is_dirty |= records > 0;
        Ok(records > 0)
    }

    fn is_emission_due(&self, has_more: bool) -> bool {
        let interval = if has_more { self.settings.emit_interval } else { self.settings.emit_interval_min };
        let pending: usize = self.partitions.iter().map(|partition| partition.fold().pending_cells()).sum();
        self.is_dirty && (self.last_emission.elapsed() >= interval || pending >= limits::PENDING_CELLS)
    }

    /// Waits until there is something to read or to emit.
    async fn wait(&self) -> Result<(), RunError> {
        let wait = if self.is_dirty {
            self.settings.emit_interval_min.saturating_sub(self.last_emission.elapsed())
        } else {
            limits::IDLE_WAIT
        };
        let moving = self.partitions.iter().filter(|partition| !partition.is_stopped);
        let mut grown: Vec<Growth<'_>> = Vec::new();
        for partition in moving {
            grown.push(Box::pin(self.log.wait_beyond(partition.number, partition.fold().next_offset())));
        }
        let any_grown = poll_fn(|context| {
            let ready = grown.iter_mut().find_map(|future| match future.as_mut().poll(context) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        match tokio::time::timeout(wait, any_grown).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Ok(()),
        }
    }

    /// Hands all changed cells over, the same rows again and again until the store takes them.
    async fn emit(&mut self, is_draining: bool) -> Result<(), RunError> {
        let started = Instant::now();
        let (mut cells, mut positions) = (Emitted::default(), Vec::new());
        for partition in &mut self.partitions {
            if let Some((mut own, position)) = partition.fold_mut().emit() {
                cells.append(&mut own);
                positions.push(position);
            }
        }
        self.is_dirty = false;
        self.last_emission = started;
        if !positions.is_empty() {
            metrics::counter!("flagmint_aggregator_cells_total").increment(cells.len() as u64);
            self.upsert(Emission { cells: cells.to_batches(), positions }, is_draining).await?;
            metrics::histogram!("flagmint_aggregator_emission_seconds").record(started.elapsed().as_secs_f64());
        }
        self.publish().await
    }

    async fn upsert(&mut self, emission: Emission, is_draining: bool) -> Result<(), RunError> {
        let (mut wait, longest) = limits::RETRY_WAIT;
        let started = Instant::now();
        loop {
            match self.store.upsert(emission.clone()).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Retry(reason)) if !is_draining || started.elapsed() < limits::DRAIN_WAIT => {
                    tracing::warn!(reason, "the rollup store does not take cells; they are offered again");
                    self.status.upsert_retries += 1;
                    metrics::counter!("flagmint_aggregator_upsert_retries_total").increment(1);
                    self.settings.status.send_replace(self.status.clone());
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(longest);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells where the loop stands, after an emission: everything folded is then in the store.
    async fn publish(&mut self) -> Result<(), RunError> {
        self.status.partitions.clear();
        for partition in &self.partitions {
            let fold = partition.fold();
            let end = match self.log.bounds(partition.number).await {
                Ok(bounds) => bounds.end,
                Err(LogError::Retry(_)) => fold.next_offset(),
                Err(error) => return Err(error.into()),
            };
            let lag_records = end.saturating_sub(fold.next_offset());
            metrics::gauge!("flagmint_aggregator_lag_records", "partition" => partition.number.to_string())
                .set(lag_records as f64);
            self.status.partitions.push(PartitionStatus {
                partition: partition.number,
                emitted_offset: fold.next_offset(),
                lag_records,
                complete_through_us: fold.complete_through_us(),
                is_stopped: partition.is_stopped,
            });
        }
        self.settings.status.send_replace(self.status.clone());
        Ok(())
    }
}
