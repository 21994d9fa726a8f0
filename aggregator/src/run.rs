//! The loop around the fold: log in, cells out.
//!
//! It folds the partitions that the log assigns to this process, each from where the store says its durable cells end, and hands the
//! changed cells of all of them to the store in one emission. A partition that comes is opened beside the work on the others;
//! one that goes is let go of at once: what it had not emitted its next owner folds again, to the same cells.
//!
//! While an emission is under way folding goes on, until the next one is due; then it waits. So a store that is slow or away is offered the
//! very same rows again and again, memory holds one emission more, and the log holds the rest. When told to stop, the loop folds what
//! is in the log, emits, and returns.

mod assigned;
mod emitter;
mod failpoint;
mod lag;
mod opener;
mod partition;
mod status;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flagmint_log::{DecisionLog, LogError};
use flagmint_store::{RollupStore, StoreError};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::fold::{DeadLetter, FoldLimits, Part};
use crate::limits;
use assigned::Assigned;
use emitter::{Emitter, Progress};

pub use failpoint::{Failpoint, Step, UnknownFailpoint};
pub use status::{PartitionStatus, Status};

/// How the loop works, and whom it reports to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of the fold.
    pub fold: FoldLimits,
    /// Shortest time between two emissions.
    pub emit_interval_min: Duration,
    /// Longest time that folded cells wait while there is more to fold. Longer while folding is far behind: [`limits::EMIT_PART_BEHIND`].
    pub emit_interval: Duration,
    /// Shortest time between two emissions that are whole: with sketches, contexts, ledger and positions. Those between are of counts alone.
    pub whole_interval: Duration,
    /// Cells that may wait, at most: see [`limits::PENDING_CELLS`].
    pub pending_cells: usize,
    /// How long folding goes on, at most, once told to stop. What is left then is folded by the next run.
    pub drain_fold_max: Duration,
    /// Takes the records that could not be read. The loop waits while it is full. A crash may repeat some.
    pub dead_letters: mpsc::Sender<DeadLetter>,
    /// Takes the state of the loop after each change; [`watch::Sender::subscribe`] it beforehand.
    pub status: watch::Sender<Status>,
    /// Where to crash, for tests.
    pub failpoint: Failpoint,
}

impl Settings {
    /// The intervals and limits of [`limits`]; a drain folds all there is.
    #[must_use]
    pub fn new(dead_letters: mpsc::Sender<DeadLetter>, status: watch::Sender<Status>) -> Self {
        Self {
            fold: FoldLimits::default(),
            emit_interval_min: limits::EMIT_INTERVAL_MIN,
            emit_interval: limits::EMIT_INTERVAL,
            whole_interval: Duration::ZERO,
            pending_cells: limits::PENDING_CELLS,
            drain_fold_max: Duration::MAX,
            dead_letters,
            status,
            failpoint: Failpoint::default(),
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

/// Runs until `shutdown` completes and everything then in the assigned partitions is folded and emitted.
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
    let mut aggregator = Aggregator::new(log, store, settings);
    let mut has_more = true;
    loop {
        if aggregator.may_fold() {
            has_more = aggregator.fold_once().await?;
        }
        aggregator.emit_if_due(has_more);
        if aggregator.is_drained(has_more) {
            return Ok(());
        }
        let is_draining = aggregator.drain.is_some();
        let woken = tokio::select! {
            biased;
            () = shutdown.as_mut(), if !is_draining => Woken::Stop,
            woken = aggregator.wait(has_more) => woken?,
        };
        aggregator.react(woken)?;
    }
}

/// Why the loop goes round again.
enum Woken {
    /// It was told to stop.
    Stop,
    /// The log may have more, or an emission is due.
    Work,
    /// The store took an emission or did not.
    Emission(Progress),
}

struct Aggregator<L, S> {
    settings: Settings,
    assigned: Assigned<L, S>,
    emitter: Emitter<S>,
    lag: lag::Meter<L>,
    status: Status,
    last_emission: Instant,
    /// Records were folded since the last emission.
    is_dirty: bool,
    last_whole: Instant,
    /// Counts were emitted since the last whole emission.
    owes_rest: bool,
    /// Since when it drains.
    drain: Option<Instant>,
}

impl<L: DecisionLog, S: RollupStore> Aggregator<L, S> {
    fn new(log: Arc<L>, store: Arc<S>, settings: Settings) -> Self {
        let failpoint = settings.failpoint.clone();
        Self {
            assigned: Assigned::new(Arc::clone(&log), Arc::clone(&store), settings.fold, failpoint.clone()),
            emitter: Emitter::new(store, failpoint),
            lag: lag::Meter::new(log),
            status: Status::default(),
            last_emission: Instant::now(),
            is_dirty: false,
            last_whole: Instant::now(),
            owes_rest: false,
            drain: None,
            settings,
        }
    }

    /// Whether there is room for more cells.
    fn may_fold(&self) -> bool {
        let is_full = self.emitter.is_busy() && self.is_due(true);
        !is_full && !self.is_out_of_time()
    }

    /// Follows the assignment and reads each partition once; whether any had something.
    async fn fold_once(&mut self) -> Result<bool, RunError> {
        self.is_dirty |= self.assigned.follow()?;
        self.settings.failpoint.pass(Step::BeforeRead);
        let step = self.assigned.step().await?;
        metrics::counter!("flagmint_aggregator_records_total").increment(step.records);
        for letter in step.dead_letters {
            self.park(letter).await;
        }
        if step.records > 0 {
            self.is_dirty = true;
            self.settings.failpoint.pass(Step::AfterFold);
        }
        Ok(step.records > 0)
    }

    async fn park(&mut self, letter: DeadLetter) {
        self.status.parked_records += 1;
        metrics::counter!("flagmint_aggregator_parked_records_total").increment(1);
        tracing::warn!(partition = letter.partition, offset = letter.offset, reason = letter.reason, "record parked");
        if self.settings.dead_letters.send(letter).await.is_err() {
            tracing::error!("nobody takes dead letters any more; the record stays in the log only");
        }
    }

    /// How long folded cells wait.
    fn interval(&self, has_more: bool) -> Duration {
        if !has_more {
            return self.settings.emit_interval_min;
        }
        let behind = self.assigned.behind() / limits::EMIT_PART_BEHIND;
        self.settings.emit_interval.max(behind.min(limits::EMIT_INTERVAL_BEHIND))
    }

    /// Time between two emissions that are whole: no shorter than cells wait, since an earlier one is early for want of memory only.
    fn whole_interval(&self, has_more: bool) -> Duration {
        match self.settings.whole_interval {
            Duration::ZERO => Duration::ZERO,
            interval => interval.max(self.interval(has_more)),
        }
    }

    /// Whether a drain has folded all it will.
    fn is_ending(&self, has_more: bool) -> bool {
        self.drain.is_some() && (!has_more || self.is_out_of_time())
    }

    /// When to emit next, if there is something to emit.
    fn next_emission(&self, has_more: bool) -> Option<Instant> {
        let changed = self.is_dirty.then(|| self.last_emission + self.interval(has_more));
        let rest = self.owes_rest.then(|| self.last_whole + self.whole_interval(has_more));
        changed.into_iter().chain(rest).min()
    }

    fn is_due(&self, has_more: bool) -> bool {
        let Some(next) = self.next_emission(has_more) else { return false };
        let pending = || self.assigned.pending_cells() >= self.settings.pending_cells;
        next <= Instant::now() || self.is_ending(has_more) || pending()
    }

    /// Hands changed cells over, if it is time and the last ones were taken.
    fn emit_if_due(&mut self, has_more: bool) {
        if self.emitter.is_busy() || !self.is_due(has_more) {
            return;
        }
        let now = Instant::now();
        let is_ending = self.is_ending(has_more);
        if !is_ending && self.next_emission(has_more).is_some_and(|next| next > now) {
            return self.emit_early();
        }
        let is_whole = is_ending || now >= self.last_whole + self.whole_interval(has_more);
        self.last_emission = now;
        self.is_dirty = false;
        if !is_whole && let Some(cells) = self.assigned.emit_part(Part::Counts) {
            self.owes_rest = true;
            if !cells.is_empty() {
                self.emitter.start(&cells, Vec::new());
            }
            return;
        }
        (self.last_whole, self.owes_rest) = (now, false);
        let (cells, positions) = self.assigned.emit();
        if !positions.is_empty() {
            self.emitter.start(&cells, positions);
        }
    }

    /// Hands over what takes memory while it waits: closed chunks, or contexts of open ones. Counts and sketches of open chunks would only be written once more.
    fn emit_early(&mut self) {
        let (cells, positions) = self.assigned.emit_closed();
        if !positions.is_empty() {
            self.emitter.start(&cells, positions);
        } else if let Some(cells) = self.assigned.emit_part(Part::Contexts)
            && !cells.is_empty()
        {
            self.emitter.start(&cells, Vec::new());
        }
    }

    /// Whether everything is done that a drain does.
    fn is_drained(&self, has_more: bool) -> bool {
        let is_folded = (!has_more && !self.assigned.is_opening()) || self.is_out_of_time();
        self.drain.is_some() && is_folded && !self.is_dirty && !self.owes_rest && !self.emitter.is_busy()
    }

    /// Whether a drain may fold no more.
    fn is_out_of_time(&self) -> bool {
        self.drain.is_some_and(|since| since.elapsed() >= self.settings.drain_fold_max)
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, has_more: bool) -> Result<Woken, RunError> {
        let is_full = !self.may_fold();
        let next = self.next_emission(has_more).filter(|_| !self.emitter.is_busy());
        let emission_wait = next.map_or(limits::IDLE_WAIT, |next| next.saturating_duration_since(Instant::now()));
        tokio::select! {
            biased;
            progress = self.emitter.progress() => Ok(Woken::Emission(progress?)),
            // Folding may never wait for anything: let others run.
            () = tokio::task::yield_now(), if has_more && !is_full => Ok(Woken::Work),
            woken = self.assigned.wait(), if !has_more && !is_full => woken.map(|()| Woken::Work),
            () = self.lag.measured() => Ok(Woken::Work),
            () = tokio::time::sleep(emission_wait) => Ok(Woken::Work),
        }
    }

    fn react(&mut self, woken: Woken) -> Result<(), RunError> {
        match woken {
            Woken::Stop => self.drain = Some(Instant::now()),
            Woken::Emission(Progress::Taken(positions)) => {
                self.status.store_trouble = None;
                self.assigned.acknowledge(&positions);
            }
            Woken::Emission(Progress::Refused(reason)) => {
                self.status.upsert_retries += 1;
                if self.drain.is_some_and(|since| since.elapsed() >= limits::DRAIN_WAIT) {
                    return Err(StoreError::Retry(reason).into());
                }
                self.status.store_trouble = Some(reason);
            }
            Woken::Work => {}
        }
        self.publish();
        Ok(())
    }

    /// Tells where the loop stands.
    fn publish(&mut self) {
        let mut status = Status { partitions: self.assigned.status(&self.lag), ..self.status.clone() };
        status.generation = self.assigned.generation();
        status.is_opening = self.assigned.is_opening();
        status.log_trouble = self.assigned.log_trouble();
        status.store_trouble = status.store_trouble.or_else(|| self.assigned.store_trouble());
        self.lag.watch(status.partitions.iter().map(|partition| partition.partition));
        self.settings.status.send_if_modified(|held| {
            let is_other = *held != status;
            *held = status;
            is_other
        });
    }
}
