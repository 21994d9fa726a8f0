//! The fold: records of one partition in, rollup cells out. Pure: the same records give the same cells.
//!
//! A **chunk** is a run of offsets named by its first; it ends after a number of records or of distinct cells. Within it every
//! cell holds cumulative values, so an emission may be lost, repeated or come late, and the greatest value is the truth.
//! Where chunks end, what is a duplicate, and who has fallen silent follow from the records alone.
//!
//! What counts where:
//! - a decision in the minute of its event if that is believable, else in the minute of its append (and in `clamped`);
//! - meters in the minute of the append, since billing months are;
//! - a client's goal or application error beside the decisions, in a row of its own measure; it makes nobody a user of the flag;
//! - a distinct user of a flag on the day of that minute, a distinct context of an environment on the day of the append, by its key
//!   or, without one, its user key;
//! - a call that failed before evaluation in `usage.failed_calls` and in a row of `decisions` without a flag, which is no decision;
//! - a context without a key in no row of `contexts`, since it cannot be told from others;
//! - whatever is in a row of `decisions` with a flag also in the row of `flags` of its flag's hour and in that of `totals` of its minute, with its
//!   latency; a distinct user of a flag also among the `users` of all flags.
//!
//! So per environment: `ledger.produced = counted + duplicate_decisions + parked_decisions`, and `ledger.counted` = sum of
//! `decisions.count` over rows with a flag = sum of `latency.count` + sum of `decisions.count` over what clients report
//! = sum of `served + reported + app_errors + goals` of `flags` and, again, of `totals`. `produced` is what
//! the headers announce, plus, for a client's report of several evaluations in one row, those beyond the first.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod batch;
mod cells;
mod chunk;
mod dead_letter;
mod duplicates;
mod emission;
mod hash;
mod histograms;
mod index;
mod keys;
mod lanes;
mod outcomes;
mod pages;
mod prefetch;
mod producers;
mod profile;
mod rows;
mod shared_texts;
mod sightings;
mod sums;
mod time;
mod uniques;

use flagmint_log::Record;
use flagmint_schemas::batch::{BatchHeader, BatchView};
use flagmint_store::Position;

use crate::limits;
use batch::Scratch;
use chunk::{Chunk, ChunkId};
use dead_letter::PoisonWindow;
use duplicates::DuplicateWindow;
use hash::Seeded;
use keys::Environment;
use producers::Producers;

pub use dead_letter::DeadLetter;
pub use emission::{Emitted, Part};

/// The limits that shape chunks and judgements. The defaults are those of a release; tests take smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldLimits {
    /// See [`limits::CHUNK_RECORDS`].
    pub chunk_records: u64,
    /// See [`limits::CHUNK_CELLS`].
    pub chunk_cells: usize,
    /// See [`limits::DUPLICATE_WINDOW_RECORDS`].
    pub duplicate_window_records: usize,
    /// See [`limits::POISON_WINDOW_RECORDS`].
    pub poison_window_records: usize,
    /// See [`limits::POISON_PERCENT`].
    pub poison_percent: usize,
}

impl Default for FoldLimits {
    fn default() -> Self {
        Self {
            chunk_records: limits::CHUNK_RECORDS,
            chunk_cells: limits::CHUNK_CELLS,
            duplicate_window_records: limits::DUPLICATE_WINDOW_RECORDS,
            poison_window_records: limits::POISON_WINDOW_RECORDS,
            poison_percent: limits::POISON_PERCENT,
        }
    }
}

/// Where a fold starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// First offset of a chunk; 0, or where the log begins, for a new partition.
    pub chunk: u64,
    /// The watermark reached before, microseconds; `i64::MIN` for a new partition.
    pub complete_through_us: i64,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its rows are in the cells, or it is a heartbeat.
    Folded,
    /// A repetition: counted as such and left out.
    Duplicate,
    /// It cannot be read: counted as such; the dead letter is to be kept.
    Parked(Box<DeadLetter>),
    /// Its offset was folded before: nothing changed.
    Old,
}

/// The fold of one partition.
#[derive(Debug)]
pub struct PartitionFold {
    epoch: u64,
    partition: u32,
    limits: FoldLimits,
    next_offset: u64,
    chunk: Option<Chunk>,
    /// Last values of closed chunks, not emitted yet.
    closed: Emitted,
    /// Where they bring the fold; none if there are none.
    closed_to: Option<Position>,
    moved: bool,
    duplicates: DuplicateWindow,
    producers: Producers,
    poison: PoisonWindow,
    scratch: Scratch,
}

impl PartitionFold {
    /// A fold that starts at `resume`. Before the first [`Self::fold`], the record that precedes the start, those of
    /// [`limits::PRIME_US`] of append time before that one, and as many as [`FoldLimits::duplicate_window_records`] before
    /// those (so that repetitions among them are recognised), go to [`Self::prime`].
    #[must_use]
    pub fn new(epoch: u64, partition: u32, resume: Resume, limits: FoldLimits) -> Self {
        Self {
            epoch,
            partition,
            limits,
            next_offset: resume.chunk,
            chunk: None,
            closed: Emitted::default(),
            closed_to: None,
            moved: false,
            duplicates: DuplicateWindow::new(limits.duplicate_window_records, Seeded(epoch)),
            producers: Producers::new(resume.complete_through_us),
            poison: PoisonWindow::new(limits.poison_window_records, limits.poison_percent),
            scratch: Scratch::default(),
        }
    }

    /// Takes note of a record that an earlier run has folded: who its producer is, and its name. Its payload is not looked at.
    ///
    /// With records as far back as [`Self::new`] says, the fold then stands as if it had never stopped. With fewer (the log
    /// was trimmed), repetitions of the missing ones are not recognised, and gaps and losses that they would prove not counted.
    pub fn prime(&mut self, record: &Record) {
        let header = BatchHeader::decode(&record.header).ok();
        let is_duplicate = self.duplicates.push(header.map(|header| (header.producer, header.sequence)));
        self.producers.prime(header.as_ref().filter(|_| !is_duplicate), record.append_time_us);
    }

    /// Folds the next record of the partition.
    ///
    /// # Panics
    /// If the record is of another partition.
    pub fn fold(&mut self, record: &Record) -> Verdict {
        assert_eq!(record.partition, self.partition, "a partition is folded by its own fold");
        if record.offset < self.next_offset {
            return Verdict::Old;
        }
        let id = ChunkId { epoch: self.epoch, partition: self.partition, chunk: record.offset };
        // Taken out while it is worked on, since the rest of the fold is needed, too.
        let mut chunk = self.chunk.take().unwrap_or_else(|| Chunk::new(id, record.append_time_us));
        self.note_losses(record.append_time_us, &mut chunk);
        let verdict = self.fold_into(record, &mut chunk);
        self.poison.push(matches!(verdict, Verdict::Parked(_)));
        self.next_offset = record.offset + 1;
        self.moved = true;
        chunk.advance(self.next_offset);
        if chunk.records >= self.limits.chunk_records || chunk.cell_count() >= self.limits.chunk_cells {
            chunk.emit(true, &mut self.closed);
            self.closed_to = Some(self.position());
        } else {
            self.chunk = Some(chunk);
        }
        verdict
    }

    fn note_losses(&mut self, append_time_us: i64, chunk: &mut Chunk) {
        for loss in self.producers.expire(append_time_us) {
            let environment = chunk.environment(loss.environment);
            chunk.ledger(environment, loss.last_append_us).estimated_missing += loss.decisions;
        }
    }

    fn fold_into(&mut self, record: &Record, chunk: &mut Chunk) -> Verdict {
        let append_time_us = record.append_time_us;
        let header = match BatchHeader::decode(&record.header) {
            Ok(header) => header,
            Err(error) => {
                self.duplicates.push(None);
                let nobody = chunk.environment(Environment::default());
                let ledger = chunk.ledger(nobody, append_time_us);
                ledger.records += 1;
                ledger.parked_records += 1;
                return self.park(record, error.to_string());
            }
        };
        let environment = chunk.environment(Environment::of(&header));
        let announced = u64::from(header.decisions);
        let is_duplicate = self.duplicates.push(Some((header.producer, header.sequence)));
        let gaps = if is_duplicate { 0 } else { self.producers.observe(&header, append_time_us) };
        let ledger = chunk.ledger(environment, append_time_us);
        ledger.records += 1;
        ledger.produced += announced;
        ledger.gaps += gaps;
        if is_duplicate {
            ledger.duplicate_records += 1;
            ledger.duplicate_decisions += announced;
            return Verdict::Duplicate;
        }
        let view = match read(&header, record) {
            Ok(view) => view,
            Err(reason) => {
                ledger.parked_records += 1;
                ledger.parked_decisions += announced;
                return self.park(record, reason);
            }
        };
        let totals = batch::fold(&view, environment, append_time_us, chunk, &mut self.scratch);
        let ledger = chunk.ledger(environment, append_time_us);
        ledger.counted += totals.counted;
        // Wrapping: a row that stands for no evaluation takes one off what the header announced.
        ledger.produced = ledger.produced.wrapping_add(totals.counted.wrapping_sub(announced));
        ledger.clamped += totals.clamped;
        ledger.calls += u64::from(header.calls);
        Verdict::Folded
    }

    fn park(&self, record: &Record, reason: String) -> Verdict {
        Verdict::Parked(Box::new(DeadLetter::new(self.epoch, record, reason)))
    }

    /// Whether so many of the last records were poison that somebody must look before the fold goes on.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_exceeded()
    }

    /// The offset that follows the last record folded.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Every event of this partition before this is folded, microseconds; `i64::MIN` if unknown.
    #[must_use]
    pub fn complete_through_us(&self) -> i64 {
        self.producers.complete_through_us()
    }

    /// Cells that take memory until [`Self::emit`] or [`Self::emit_part`]: those of closed chunks, and changed contexts of the open one.
    #[must_use]
    pub fn pending_cells(&self) -> usize {
        self.closed.len() + self.chunk.as_ref().map_or(0, |chunk| chunk.contexts.dirty_len())
    }

    /// Whether chunks were closed since the last [`Self::emit`].
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.closed_to.is_some()
    }

    /// Hands over a part of the open chunk's changed cells, as they are now. They vouch for nothing, so there is no
    /// position; [`Self::emit`] still has the rest. `None` if a chunk was closed, since only all of its cells together may follow.
    pub fn emit_part(&mut self, part: Part) -> Option<Emitted> {
        if self.has_closed() {
            return None;
        }
        let mut cells = Emitted::default();
        if let Some(chunk) = &mut self.chunk {
            chunk.emit_part(part, &mut cells);
        }
        Some(cells)
    }

    /// Hands over the last values of the chunks closed since the last emission, and where they bring the fold: to where the last of them ends. `None` if
    /// none was closed. [`Self::emit`] still has the open chunk's.
    pub fn emit_closed(&mut self) -> Option<(Emitted, Position)> {
        let position = self.closed_to.take()?;
        Some((std::mem::take(&mut self.closed), position))
    }

    /// Hands over the last values of the chunks closed since the last emission and the changed cells of the open one, and
    /// where they bring the fold; `None` if nothing was folded since.
    pub fn emit(&mut self) -> Option<(Emitted, Position)> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        self.closed_to = None;
        let mut cells = std::mem::take(&mut self.closed);
        if let Some(chunk) = &mut self.chunk {
            chunk.emit(false, &mut cells);
        }
        Some((cells, self.position()))
    }

    /// Where the fold stands.
    fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            partition: self.partition,
            chunk: self.chunk.as_ref().map_or(self.next_offset, |chunk| chunk.id.chunk),
            next_offset: self.next_offset,
            complete_through_us: self.complete_through_us(),
        }
    }
}

fn read(header: &BatchHeader, record: &Record) -> Result<BatchView, String> {
    if header.is_heartbeat() && (header.decisions, header.calls) != (0, 0) {
        return Err("rows without an environment".to_owned());
    }
    BatchView::decode(header, &record.payload).map_err(|error| error.to_string())
}
