//! The open chunk of a partition: its cells with their cumulative values.

use flagmint_schemas::rollup::{Tallies, counting, measure};
use indexmap::IndexSet;

use super::batch::is_evaluation;
use super::cells::{ABSENT, Cells};
use super::hash::Seeded;
use super::histograms::{self, Histograms};
use super::keys::{Client, ContextKey, DecisionKey, Environment, FlagKey, LatencyKey, LedgerKey, TotalKey, UsageKey};
use super::outcomes::Outcomes;
use super::profile::Profile;
use super::shared_texts::SharedTexts;
use super::sums::{Sum, Target};
use super::time::{day_of, hour_of, minute_of};
use super::uniques::{self, Uniques};

/// Decisions alike in one minute.
#[derive(Debug)]
pub(super) struct Decisions {
    pub count: u64,
    slots: DecisionSlots,
}

/// Where decisions go that are alike. The cells of the other tables follow from the key of the one in `decisions`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecisionSlots {
    pub decision: u32,
    /// `ABSENT` for reports, which have no latency, and failures.
    pub latency: u32,
    /// Their flag's hour and all flags' minute; `ABSENT` for failures.
    pub flag: u32,
    pub total: u32,
    /// Column on the board of the environment's minute; nobody's if there is no latency.
    pub histogram: u32,
    /// Column on the board of the environment's day; nobody's if they do not count in analytics.
    pub unique: u32,
}

impl DecisionSlots {
    /// Not looked up yet.
    pub const UNKNOWN: Self = Self {
        decision: ABSENT,
        latency: ABSENT,
        flag: ABSENT,
        total: ABSENT,
        histogram: histograms::NOBODY,
        unique: uniques::NOBODY,
    };
}

/// Latencies of one flag in one minute.
#[derive(Debug)]
pub(super) struct Latency {
    pub count: u64,
    pub latency_us: u64,
    pub evaluation_ns: u64,
    pub place: histograms::Place,
}

/// What all flags of an environment add up to in one minute, which follows from the cells of `decisions` and `latency` and spares questions about
/// many flags the reading of those. The histogram is the sum of a board's, made when it is emitted.
#[derive(Debug)]
pub(super) struct Total {
    pub tallies: Tallies,
    pub latency_us: u64,
    pub evaluation_ns: u64,
    /// Where the histograms are.
    pub board: u32,
}

/// Meters of one key in one minute.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub api_calls: u64,
    pub connections: u64,
    pub track_events: u64,
    pub calls: u64,
    pub failed_calls: u64,
}

/// One context on one day.
#[derive(Debug)]
pub(super) struct Context {
    pub evaluations: u64,
    pub first_seen_us: i64,
    pub last_seen_us: i64,
    pub profile: Profile,
    /// The day of append on which it is among the distinct contexts of its environment.
    pub distinct_day_us: i64,
}

impl Context {
    /// A context of which nothing is counted yet.
    pub const fn new(first_seen_us: i64, last_seen_us: i64, profile: Profile) -> Self {
        Self { evaluations: 0, first_seen_us, last_seen_us, profile, distinct_day_us: i64::MIN }
    }
}

/// What became of records and decisions.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub records: u64,
    pub produced: u64,
    pub counted: u64,
    pub calls: u64,
    pub duplicate_records: u64,
    pub duplicate_decisions: u64,
    pub parked_records: u64,
    pub parked_decisions: u64,
    pub gaps: u64,
    pub clamped: u64,
    pub estimated_missing: u64,
}

/// Names a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkId {
    pub epoch: u64,
    pub partition: u32,
    /// Offset of its first record.
    pub chunk: u64,
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub id: ChunkId,
    pub start_us: i64,
    pub records: u64,
    pub next_offset: u64,
    pub is_dirty: bool,
    pub environments: IndexSet<Environment, Seeded>,
    pub texts: IndexSet<Box<str>, Seeded>,
    pub clients: IndexSet<Client, Seeded>,
    /// By environment.
    pub outcomes: Vec<Outcomes>,
    pub decisions: Cells<DecisionKey, Decisions>,
    pub latency: Cells<LatencyKey, Latency>,
    pub histograms: Histograms,
    pub flags: Cells<FlagKey, Tallies>,
    pub totals: Cells<TotalKey, Total>,
    pub usage: Cells<UsageKey, Usage>,
    pub uniques: Uniques,
    pub contexts: Cells<ContextKey, Context>,
    /// Attributes of contexts.
    pub attributes: SharedTexts,
    pub ledger: Cells<LedgerKey, Ledger>,
}

impl Chunk {
    /// A chunk whose first record was appended at `append_time_us`.
    pub fn new(id: ChunkId, append_time_us: i64) -> Self {
        let hashing = Seeded(id.epoch);
        Self {
            id,
            start_us: minute_of(append_time_us),
            records: 0,
            next_offset: id.chunk,
            is_dirty: false,
            environments: IndexSet::with_hasher(hashing),
            texts: IndexSet::with_hasher(hashing),
            clients: IndexSet::with_hasher(hashing),
            outcomes: Vec::new(),
            decisions: Cells::new(hashing),
            latency: Cells::new(hashing),
            histograms: Histograms::new(hashing),
            flags: Cells::new(hashing),
            totals: Cells::new(hashing),
            usage: Cells::new(hashing),
            uniques: Uniques::new(hashing),
            contexts: Cells::new(hashing),
            attributes: SharedTexts::new(hashing),
            ledger: Cells::new(hashing),
        }
    }

    /// Distinct cells so far.
    pub fn cell_count(&self) -> usize {
        self.decisions.len()
            + self.latency.len()
            + self.flags.len()
            + self.totals.len()
            + self.usage.len()
            + self.uniques.len()
            + self.contexts.len()
            + self.ledger.len()
    }

    /// Takes note that a record was folded.
    pub fn advance(&mut self, next_offset: u64) {
        self.records += 1;
        self.next_offset = next_offset;
        self.is_dirty = true;
    }

    /// The number of an environment.
    pub fn environment(&mut self, environment: Environment) -> u32 {
        let (number, is_new) = self.environments.insert_full(environment);
        if is_new {
            self.outcomes.push(Outcomes::new(Seeded(self.id.epoch)));
        }
        number as u32
    }

    /// The number of a text.
    pub fn text(&mut self, text: &str) -> u32 {
        let found = self.texts.get_index_of(text);
        found.unwrap_or_else(|| self.texts.insert_full(text.into()).0) as u32
    }

    /// The number of a client library.
    pub fn client(&mut self, client: Client) -> u32 {
        self.clients.insert_full(client).0 as u32
    }

    /// The ledger of an environment in the hour of `append_time_us`.
    pub fn ledger(&mut self, environment: u32, append_time_us: i64) -> &mut Ledger {
        let hour_us = hour_of(append_time_us);
        let slot = self.ledger.slot(LedgerKey { environment, hour_us });
        self.ledger.change(slot)
    }

    /// The cells of decisions with this key.
    pub fn decision_slots(&mut self, key: DecisionKey) -> DecisionSlots {
        if let Some(decision) = self.decisions.find(&key) {
            return self.decisions.get(decision).1.slots;
        }
        let DecisionKey { environment, flag, variation, minute_us, counting, .. } = key;
        let mut slots = DecisionSlots { decision: self.decisions.len() as u32, ..DecisionSlots::UNKNOWN };
        if !flag.is_none() {
            let hour_us = hour_of(minute_us);
            slots.flag = self.flags.slot(FlagKey { environment, counting, flag, hour_us });
            slots.total = self.totals.slot_with(TotalKey { environment, counting, minute_us }, || {
                let board = self.histograms.board(environment, minute_us);
                Total { tallies: Tallies::default(), latency_us: 0, evaluation_ns: 0, board }
            });
        }
        if key.measure == measure::SERVED && !flag.is_none() {
            slots.latency = self.latency.slot_with(LatencyKey { environment, counting, flag, minute_us }, || {
                let place = self.histograms.add(environment, minute_us, counting);
                Latency { count: 0, latency_us: 0, evaluation_ns: 0, place }
            });
            slots.histogram = self.latency.get(slots.latency).1.place.column;
        }
        if counting == counting::COUNTED && is_evaluation(key.measure) {
            let board = self.uniques.board(environment, day_of(minute_us));
            slots.unique = self.uniques.column(board, flag, variation);
        }
        self.decisions.slot_with(key, || Decisions { count: 0, slots });
        slots
    }

    /// Has the cells fetched that decisions will be added to.
    #[inline]
    pub fn prefetch(&self, slots: &DecisionSlots) {
        self.decisions.prefetch(slots.decision);
        self.latency.prefetch(slots.latency);
        self.flags.prefetch(slots.flag);
    }

    /// Adds what decisions of a batch add up to.
    pub fn add(&mut self, target: &Target, sum: &Sum) {
        let Target { slots, measure, reason, .. } = *target;
        self.decisions.change(slots.decision).count += sum.count;
        if slots.flag != ABSENT {
            self.flags.change(slots.flag).add(measure, reason, sum.count);
            let total = self.totals.change(slots.total);
            total.tallies.add(measure, reason, sum.count);
            if slots.latency != ABSENT {
                total.latency_us += sum.latency_us;
                total.evaluation_ns += sum.evaluation_ns;
            }
        }
        if slots.latency != ABSENT {
            let latency = self.latency.change(slots.latency);
            latency.count += sum.count;
            latency.latency_us += sum.latency_us;
            latency.evaluation_ns += sum.evaluation_ns;
        }
    }
}
