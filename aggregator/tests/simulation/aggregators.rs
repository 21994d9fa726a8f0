//! The simulated aggregators: the real fold, and around it a loop in single steps, at each of which it may be killed, paused or lied to.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use flagmint_aggregator::fold::{Emitted, FoldLimits, Part, PartitionFold, Resume, Verdict};
use flagmint_aggregator::limits::PRIME_US;
use flagmint_schemas::rollup::Table;
use flagmint_store::Position;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::evaluators::WINDOW;
use crate::log::Log;
use crate::store::Store;

/// Small, so that a short log has many chunks.
const LIMITS: FoldLimits = FoldLimits {
    chunk_records: 9,
    chunk_cells: 60,
    duplicate_window_records: WINDOW,
    poison_window_records: 16,
    poison_percent: 100,
};

/// Where a fold starts that takes a partition over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where the store says.
    Stored,
    /// Where somebody committed last, maybe long ago.
    Committed,
    /// At the beginning of the log.
    Beginning,
}

#[derive(Debug)]
struct Owned {
    epoch: u64,
    fold: Box<PartitionFold>,
    complete_through_us: i64,
}

/// An emission that the store has not acknowledged in full.
#[derive(Debug)]
struct InFlight {
    inserts: Vec<(Table, RecordBatch)>,
    positions: Vec<Position>,
}

#[derive(Debug, Default)]
pub struct Instance {
    pub is_alive: bool,
    pub is_paused: bool,
    owned: BTreeMap<u32, Owned>,
    in_flight: Option<InFlight>,
    /// Records that could not be read, as (epoch, partition, offset).
    pub dead_letters: Vec<(u64, u32, u64)>,
}

/// What a step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Folded(u32, usize),
    Emitted(usize),
    Inserted(Table),
    /// The store did it, but the answer was lost.
    AnswerLost(Table),
    /// The store did not do it, or only a part.
    Failed(Table),
    Acknowledged,
}

impl Instance {
    pub fn started() -> Self {
        Self { is_alive: true, ..Self::default() }
    }

    pub fn can_act(&self) -> bool {
        self.is_alive && !self.is_paused
    }

    pub fn owns(&self, partition: u32) -> bool {
        self.owned.contains_key(&partition)
    }

    /// Everything in memory is gone.
    pub fn kill(&mut self) {
        (self.is_alive, self.is_paused) = (false, false);
        self.owned.clear();
        self.in_flight = None;
    }

    pub fn give_up(&mut self, partition: u32) {
        self.owned.remove(&partition);
    }

    /// Takes a partition over.
    pub fn take(&mut self, partition: u32, start: Start, log: &Log, store: &Store) {
        let stored = store.position(log.epoch, partition);
        let chunk = match start {
            Start::Stored => stored.map_or(0, |position| position.chunk),
            Start::Committed => store.commits.get(&(log.epoch, partition)).copied().unwrap_or(0),
            Start::Beginning => 0,
        };
        let complete_through_us = stored.map_or(i64::MIN, |position| position.complete_through_us);
        let mut fold = PartitionFold::new(log.epoch, partition, Resume { chunk, complete_through_us }, LIMITS);
        let records = &log.partitions[partition as usize].records;
        let first = records.partition_point(|record| record.offset < chunk);
        if let Some(before) = records[..first].last() {
            let horizon_us = before.append_time_us - PRIME_US;
            let by_time = records.partition_point(|record| record.append_time_us < horizon_us);
            records[by_time.saturating_sub(WINDOW)..first].iter().for_each(|record| fold.prime(record));
        }
        self.owned.insert(partition, Owned { epoch: log.epoch, fold: Box::new(fold), complete_through_us });
    }

    /// Does one thing.
    pub fn step(&mut self, random: &mut StdRng, log: &Log, store: &mut Store) -> Step {
        if self.in_flight.is_some() {
            return self.insert(random, store);
        }
        match random.random_range(0..8) {
            0 => self.emit(random),
            1 => self.emit_part(random),
            _ => self.fold(random, log),
        }
    }

    fn fold(&mut self, random: &mut StdRng, log: &Log) -> Step {
        let count = self.owned.len();
        let Some((&partition, owned)) = self.owned.iter_mut().nth(random.random_range(0..count.max(1))) else {
            return Step::Nothing;
        };
        if owned.epoch != log.epoch {
            // What it reads is of another topic: it begins anew there.
            self.owned.remove(&partition);
            return Step::Nothing;
        }
        let most = random.random_range(1..12);
        let records = log.read(partition, owned.fold.next_offset(), most);
        for record in records {
            if let Verdict::Parked(letter) = owned.fold.fold(record) {
                self.dead_letters.push((letter.epoch, letter.partition, letter.offset));
            }
        }
        Step::Folded(partition, records.len())
    }

    /// Counts or contexts alone, unless a chunk was closed somewhere: then closed chunks alone, or all that changed.
    fn emit_part(&mut self, random: &mut StdRng) -> Step {
        if self.owned.values().any(|owned| owned.fold.has_closed()) {
            let is_alone = random.random();
            return self.emit_by(random, |fold| if is_alone { fold.emit_closed() } else { fold.emit() });
        }
        let part = if random.random() { Part::Counts } else { Part::Contexts };
        let counts = self.owned.values_mut().filter_map(|owned| owned.fold.emit_part(part));
        let mut inserts: Vec<_> = counts.flat_map(|cells| cells.to_batches()).collect();
        inserts.shuffle(random);
        let count = inserts.len();
        self.in_flight = Some(InFlight { inserts, positions: Vec::new() });
        Step::Emitted(count)
    }

    /// All that changed goes into one emission, one insert per table.
    pub fn emit(&mut self, random: &mut StdRng) -> Step {
        self.emit_by(random, PartitionFold::emit)
    }

    fn emit_by(
        &mut self,
        random: &mut StdRng,
        emit: impl Fn(&mut PartitionFold) -> Option<(Emitted, Position)>,
    ) -> Step {
        let (mut inserts, mut positions) = (Vec::new(), Vec::new());
        for owned in self.owned.values_mut() {
            let Some((cells, position)) = emit(&mut owned.fold) else { continue };
            assert!(position.complete_through_us >= owned.complete_through_us, "the watermark of a fold went back");
            owned.complete_through_us = position.complete_through_us;
            inserts.extend(cells.to_batches());
            positions.push(position);
        }
        if positions.is_empty() {
            return Step::Nothing;
        }
        inserts.shuffle(random);
        let count = inserts.len();
        self.in_flight = Some(InFlight { inserts, positions });
        Step::Emitted(count)
    }

    /// The next insert of an emission; the same again until it is acknowledged. Positions move when all are.
    fn insert(&mut self, random: &mut StdRng, store: &mut Store) -> Step {
        let in_flight = self.in_flight.as_mut().expect("asked with one in flight");
        let Some((table, rows)) = in_flight.inserts.last() else {
            store.advance(&in_flight.positions);
            self.in_flight = None;
            return Step::Acknowledged;
        };
        let table = *table;
        match random.random_range(0..10) {
            0 => {
                store.insert(table, rows);
                Step::AnswerLost(table)
            }
            1 => {
                store.insert(table, &rows.slice(0, random.random_range(0..=rows.num_rows())));
                Step::Failed(table)
            }
            _ => {
                store.insert(table, rows);
                in_flight.inserts.pop();
                Step::Inserted(table)
            }
        }
    }

    /// Whether some of an emission is in the store and some is not.
    pub fn is_within_emission(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Chunk starts that may be committed: those of the emission just acknowledged.
    pub fn to_commit(&self) -> Vec<(u64, u32, u64)> {
        let positions = self.in_flight.iter().filter(|in_flight| in_flight.inserts.is_empty());
        positions
            .flat_map(|in_flight| &in_flight.positions)
            .map(|position| (position.epoch, position.partition, position.chunk))
            .collect()
    }

    /// Whether there is nothing left to read.
    pub fn has_read_all(&self, log: &Log) -> bool {
        let mut owned = self.owned.iter();
        owned.all(|(partition, owned)| log.read(*partition, owned.fold.next_offset(), 1).is_empty())
    }
}
