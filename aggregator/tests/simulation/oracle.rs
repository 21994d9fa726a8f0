//! What was sent, kept plainly by whoever sent it: the truth that every count is compared with.

use std::collections::BTreeMap;

use flagmint_schemas::limits::{EVENT_TIME_FUTURE_US, EVENT_TIME_PAST_US};

pub const MINUTE_US: i64 = 60_000_000;

/// One call as its evaluator made it.
#[derive(Clone, Debug)]
pub struct SentCall {
    pub event_time_us: i64,
    pub latency_us: u32,
    pub evaluation_ns: u32,
    /// Number of its context.
    pub context: u32,
    pub is_counted: bool,
    /// Outcomes of its decisions.
    pub outcomes: Vec<u32>,
}

/// One batch, from its first call on.
#[derive(Clone, Debug)]
pub struct Sent {
    pub environment: u32,
    pub calls: Vec<SentCall>,
    /// Every watermark stays before its events until it is folded: its evaluator's clock is right, and the log has heard of that evaluator
    /// before the events and ever since.
    pub is_covered: bool,
    /// When the log took it.
    pub append_time_us: Option<i64>,
    /// It was in the memory of an evaluator that is gone, or found no room.
    pub is_lost: bool,
}

impl Sent {
    pub fn decisions(&self) -> u32 {
        self.calls.iter().map(|call| call.outcomes.len() as u32).sum()
    }

    /// Whether a call is counted in the minute of its append.
    pub fn is_clamped(&self, call: &SentCall) -> bool {
        let append_us = self.append_time_us.expect("asked of appended batches");
        !(append_us - EVENT_TIME_PAST_US..=append_us + EVENT_TIME_FUTURE_US).contains(&call.event_time_us)
    }

    /// The time at which a call counts.
    pub fn counts_at_us(&self, call: &SentCall) -> i64 {
        if self.is_clamped(call) { self.append_time_us.expect("asked of appended batches") } else { call.event_time_us }
    }
}

/// Totals of the ledger and of the tables beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records: i128,
    pub produced: i128,
    pub counted: i128,
    pub calls: i128,
    pub duplicate_records: i128,
    pub duplicate_decisions: i128,
    pub parked_records: i128,
    pub parked_decisions: i128,
    pub gaps: i128,
    pub clamped: i128,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub batches: Vec<Sent>,
    /// What the log was given besides the batches: `counted`, `calls` and `clamped` follow from those.
    pub log: Totals,
    /// Offsets of all records, by epoch and partition, of deleted topics too.
    pub offsets: BTreeMap<(u64, u32), Vec<u64>>,
    /// Records that can never be read, as (epoch, partition, offset).
    pub poison: Vec<(u64, u32, u64)>,
}

impl Oracle {
    /// Batches that the log holds or held.
    pub fn appended(&self) -> impl Iterator<Item = &Sent> {
        self.batches.iter().filter(|batch| batch.append_time_us.is_some())
    }

    /// What the ledger must say at the end.
    pub fn totals(&self) -> Totals {
        let mut totals = self.log.clone();
        for batch in self.appended() {
            totals.calls += batch.calls.len() as i128;
            totals.counted += i128::from(batch.decisions());
            let clamped = batch.calls.iter().filter(|call| batch.is_clamped(call));
            totals.clamped += clamped.map(|call| call.outcomes.len() as i128).sum::<i128>();
        }
        totals
    }

    /// Decisions by minute that the log was given.
    pub fn appended_by_minute(&self) -> BTreeMap<i64, i128> {
        let mut minutes = BTreeMap::new();
        for batch in self.appended() {
            for call in &batch.calls {
                let minute = batch.counts_at_us(call).div_euclid(MINUTE_US);
                *minutes.entry(minute).or_default() += call.outcomes.len() as i128;
            }
        }
        minutes
    }

    /// Decisions by minute that a reader must find in minutes that end before the watermark, appended or not.
    pub fn covered_by_minute(&self) -> BTreeMap<i64, i128> {
        let mut minutes = BTreeMap::new();
        for batch in self.batches.iter().filter(|batch| batch.is_covered && !batch.is_lost) {
            for call in &batch.calls {
                *minutes.entry(call.event_time_us.div_euclid(MINUTE_US)).or_default() += call.outcomes.len() as i128;
            }
        }
        minutes
    }
}
