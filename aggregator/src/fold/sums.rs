//! What the decisions of a batch add up to, by class and outcome, on its way into cells.
//!
//! A batch has few outcomes and many decisions, and with thousands of flags cells are in no cache: so a cell is looked up and touched once
//! per batch, and each decision adds to a sum that is in the first cache.

use super::cells::ABSENT;
use super::chunk::DecisionSlots;

/// What the decisions of one class with one outcome add to their cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    /// Evaluations that they stand for.
    pub count: u64,
    /// Sum over them of their calls' latencies.
    pub latency_us: u64,
    pub evaluation_ns: u64,
    /// The column of their histogram, on the board of their class.
    pub histogram: u32,
    /// The column of their distinct users, on the board of their class.
    pub unique: u32,
}

const UNUSED: Sum = Sum { count: 0, latency_us: 0, evaluation_ns: 0, histogram: ABSENT, unique: ABSENT };

/// The cells that a sum goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// Place of the sum.
    place: u32,
    pub slots: DecisionSlots,
    /// What the decisions are.
    pub measure: u8,
    pub reason: u8,
}

/// The sums of a batch.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Outcomes of the batch: class `c` has the sums from `c * outcomes` on.
    outcomes: usize,
    /// Unused ones where there is no target.
    sums: Vec<Sum>,
    targets: Vec<Target>,
}

impl Sums {
    /// Gets ready for a batch with this number of outcomes.
    pub fn start(&mut self, outcomes: usize) {
        self.outcomes = outcomes;
    }

    /// Makes room for a class.
    pub fn add_class(&mut self, class: usize) {
        let end = (class + 1) * self.outcomes;
        if self.sums.len() < end {
            self.sums.resize(end, UNUSED);
        }
    }

    /// The sums of a class, by outcome.
    #[inline]
    pub fn of_class(&mut self, class: usize) -> &mut [Sum] {
        let start = class * self.outcomes;
        &mut self.sums[start..start + self.outcomes]
    }

    /// Takes a sum into use.
    pub fn open(&mut self, class: usize, outcome: u32, slots: DecisionSlots, (measure, reason): (u8, u8)) {
        let place = class * self.outcomes + outcome as usize;
        self.sums[place] = Sum { histogram: slots.histogram, unique: slots.unique, ..UNUSED };
        self.targets.push(Target { place: place as u32, slots, measure, reason });
    }

    /// Takes all sums out, in the order they were opened.
    pub fn drain(&mut self) -> impl Iterator<Item = (Target, Sum)> {
        let sums = &mut self.sums;
        self.targets.drain(..).map(|target| (target, std::mem::replace(&mut sums[target.place as usize], UNUSED)))
    }
}

impl Sum {
    /// Whether it is in use.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.histogram != ABSENT
    }
}
