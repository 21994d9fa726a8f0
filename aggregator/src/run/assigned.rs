//! The partitions assigned to this process: opened when they come, read together, let go of when they leave.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use flagmint_log::{Assignment, DecisionLog, LogError};
use flagmint_store::{Position, RollupStore};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::RunError;
use super::failpoint::{Failpoint, Step};
use super::lag::Meter;
use super::opener::Opener;
use super::partition::{Folded, Partition, Reading};
use super::status::PartitionStatus;
use crate::fold::{Emitted, FoldLimits, Part, PartitionFold};
use crate::limits::{READ_BYTES, READ_BYTES_ALL, READ_BYTES_MIN};

/// Cells and the positions they bring the fold to, by partition.
type Leftover = (Emitted, BTreeMap<u32, Position>);

/// The partitions folded here and those being opened.
pub(super) struct Assigned<L, S> {
    log: Arc<L>,
    opener: Opener<L, S>,
    failpoint: Failpoint,
    epoch: u64,
    assignment: watch::Receiver<Assignment>,
    /// The assignment can change no more.
    is_final: bool,
    generation: u64,
    open: BTreeMap<u32, Partition>,
    opening: JoinSet<(u32, u64, Result<Partition, RunError>)>,
    /// Which opening is the valid one of a partition.
    tickets: BTreeMap<u32, (u64, AbortHandle)>,
    last_ticket: u64,
    /// What partitions had not emitted when they left.
    leftover: Leftover,
    log_trouble: Option<String>,
    /// How old the records read last were, at most.
    behind: Duration,
}

impl<L: DecisionLog, S: RollupStore> Assigned<L, S> {
    pub fn new(log: Arc<L>, store: Arc<S>, limits: FoldLimits, failpoint: Failpoint) -> Self {
        Self {
            epoch: log.epoch(),
            assignment: log.assignment(),
            opener: Opener::new(Arc::clone(&log), store, limits),
            log,
            failpoint,
            is_final: false,
            generation: 0,
            open: BTreeMap::new(),
            opening: JoinSet::new(),
            tickets: BTreeMap::new(),
            last_ticket: 0,
            leftover: Leftover::default(),
            log_trouble: None,
            behind: Duration::ZERO,
        }
    }

    /// How far folding is behind appending, by the records read last.
    pub fn behind(&self) -> Duration {
        self.behind
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn is_opening(&self) -> bool {
        !self.tickets.is_empty()
    }

    pub fn log_trouble(&self) -> Option<String> {
        self.log_trouble.clone().or_else(|| self.opener.log_trouble())
    }

    pub fn store_trouble(&self) -> Option<String> {
        self.opener.store_trouble()
    }

    /// Does what the assignment says now, and takes in what was opened meanwhile. Whether it left cells to emit.
    pub fn follow(&mut self) -> Result<bool, RunError> {
        let assignment = self.assignment.borrow_and_update().clone();
        if assignment.generation != self.generation {
            self.apply(&assignment);
        }
        while let Some(opened) = self.opening.try_join_next() {
            self.take_in(opened)?;
        }
        Ok(!self.leftover.1.is_empty())
    }

    fn apply(&mut self, assignment: &Assignment) {
        self.generation = assignment.generation;
        let gone: Vec<u32> =
            self.open.keys().copied().filter(|number| !assignment.partitions.contains(number)).collect();
        for number in &gone {
            self.release(*number);
        }
        self.tickets.retain(|number, (_, opening)| {
            let is_kept = assignment.partitions.contains(number);
            if !is_kept {
                opening.abort();
            }
            is_kept
        });
        let is_new = |number: &u32| !self.open.contains_key(number) && !self.tickets.contains_key(number);
        let new: Vec<u32> = assignment.partitions.iter().copied().filter(is_new).collect();
        tracing::info!(generation = assignment.generation, ?new, ?gone, "partitions assigned");
        self.start_opening(&new);
    }

    fn start_opening(&mut self, numbers: &[u32]) {
        // They share one question to the store.
        let batch = self.opener.batch(self.epoch);
        for number in numbers.iter().copied() {
            self.last_ticket += 1;
            let (ticket, batch) = (self.last_ticket, batch.clone());
            let task = self.opening.spawn(async move { (number, ticket, batch.open(number).await) });
            self.tickets.insert(number, (ticket, task));
        }
    }

    fn take_in(&mut self, opened: Result<(u32, u64, Result<Partition, RunError>), JoinError>) -> Result<(), RunError> {
        let (number, ticket, partition) = match opened {
            Ok(opened) => opened,
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => return Err(RunError::Fold(error.to_string())),
        };
        if self.tickets.get(&number).is_some_and(|(valid, _)| *valid == ticket) {
            self.tickets.remove(&number);
            self.open.insert(number, partition?);
            self.failpoint.pass(Step::AfterOpen);
        }
        Ok(())
    }

    /// Lets go of a partition; what it has not emitted goes with the next emission.
    fn release(&mut self, number: u32) {
        let Some(mut partition) = self.open.remove(&number) else { return };
        self.failpoint.pass(Step::AtRevoke);
        partition.forget_metrics();
        if let Some((mut cells, position)) = partition.fold_mut().emit() {
            self.leftover.0.append(&mut cells);
            put(&mut self.leftover.1, position);
        }
    }

    /// Reads each partition once and folds what came, of all of them at the same time.
    pub async fn step(&mut self) -> Result<Folded, RunError> {
        let max_bytes = (READ_BYTES_ALL / self.open.len().max(1)).clamp(READ_BYTES_MIN, READ_BYTES);
        let (log, now) = (&*self.log, Instant::now());
        let due = self.open.values_mut().filter(|partition| partition.is_due(now));
        let readings =
            join_all(due.map(async |partition| (partition.number, partition.step(log, max_bytes).await))).await;
        let mut folded = Folded::default();
        self.behind = Duration::ZERO;
        for (number, reading) in readings {
            match reading? {
                Reading::Folded(mut own) => {
                    self.log_trouble = None;
                    self.behind = self.behind.max(own.age());
                    folded.records += own.records;
                    folded.dead_letters.append(&mut own.dead_letters);
                }
                Reading::Later(reason) => self.log_trouble = Some(reason),
                Reading::Gone(reason) => self.reopen(number, &reason),
            }
        }
        Ok(folded)
    }

    /// The log does not have what comes next: it was trimmed before it was folded.
    fn reopen(&mut self, number: u32, reason: &str) {
        tracing::warn!(partition = number, reason, "the partition is opened again where the store says");
        self.release(number);
        self.start_opening(&[number]);
    }

    pub fn pending_cells(&self) -> usize {
        let pending: usize = self.open.values().map(|partition| partition.fold().pending_cells()).sum();
        pending + self.leftover.0.len()
    }

    /// A part of the changed cells of the open chunks of all partitions; `None` if there are others to be handed over.
    pub fn emit_part(&mut self, part: Part) -> Option<Emitted> {
        if !self.leftover.1.is_empty() || self.open.values().any(|partition| partition.fold().has_closed()) {
            return None;
        }
        let mut cells = Emitted::default();
        for partition in self.open.values_mut() {
            cells.append(&mut partition.fold_mut().emit_part(part)?);
            // Where requests are answered on the same core, they wait for one partition at most.
            std::thread::yield_now();
        }
        Some(cells)
    }

    /// The last values of all closed chunks, and where they bring the fold.
    pub fn emit_closed(&mut self) -> (Emitted, Vec<Position>) {
        self.emit_each(PartitionFold::emit_closed)
    }

    /// All changed cells of all partitions, and where they bring the fold.
    pub fn emit(&mut self) -> (Emitted, Vec<Position>) {
        self.emit_each(PartitionFold::emit)
    }

    fn emit_each(
        &mut self,
        emit: impl Fn(&mut PartitionFold) -> Option<(Emitted, Position)>,
    ) -> (Emitted, Vec<Position>) {
        let (mut cells, mut positions) = std::mem::take(&mut self.leftover);
        for partition in self.open.values_mut() {
            if let Some((mut own, position)) = emit(partition.fold_mut()) {
                cells.append(&mut own);
                put(&mut positions, position);
            }
            std::thread::yield_now();
        }
        (cells, positions.into_values().collect())
    }

    /// Takes note that the store has what was emitted up to `positions`, and tells the log of chunks that are complete.
    pub fn acknowledge(&mut self, positions: &[Position]) {
        let mut has_committed = false;
        for position in positions {
            let Some(partition) = self.open.get_mut(&position.partition) else { continue };
            if partition.acknowledge(position) {
                self.log.commit(position.partition, position.chunk);
                has_committed = true;
            }
        }
        if has_committed {
            self.failpoint.pass(Step::AfterCommit);
        }
    }

    pub fn status(&self, lag: &Meter<L>) -> Vec<PartitionStatus> {
        self.open.values().map(|partition| partition.status(lag)).collect()
    }

    /// Waits until there may be something to read or to follow. Goes on where it was if dropped.
    pub async fn wait(&mut self) -> Result<(), RunError> {
        let grown = any_grown(&*self.log, self.open.values());
        tokio::select! {
            changed = self.assignment.changed(), if !self.is_final => {
                self.is_final = changed.is_err();
                Ok(())
            }
            Some(opened) = self.opening.join_next(), if !self.opening.is_empty() => self.take_in(opened),
            woken = grown => woken,
        }
    }
}

/// The further of two positions of one partition: both are backed by cells that go with them.
fn put(positions: &mut BTreeMap<u32, Position>, position: Position) {
    let held = positions.entry(position.partition).or_insert(position);
    if (held.chunk, held.next_offset) < (position.chunk, position.next_offset) {
        *held = position;
    }
}

/// Completes when a partition of the log has grown or may be read again.
type Growth<'a> = Pin<Box<dyn Future<Output = Result<(), LogError>> + Send + 'a>>;

async fn any_grown<L: DecisionLog>(log: &L, partitions: impl Iterator<Item = &Partition>) -> Result<(), RunError> {
    let mut grown: Vec<Growth<'_>> = Vec::new();
    for partition in partitions.filter(|partition| !partition.is_stopped) {
        grown.push(match partition.retry_at() {
            Some(at) => Box::pin(async move {
                sleep_until(at).await;
                Ok(())
            }),
            None => Box::pin(log.wait_beyond(partition.number, partition.fold().next_offset())),
        });
    }
    let first = poll_fn(|context| {
        let ready = grown.iter_mut().find_map(|future| match future.as_mut().poll(context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    });
    match first.await {
        // The reading that follows meets the same and knows what to do.
        Ok(()) | Err(LogError::Retry(_) | LogError::Refuse(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
