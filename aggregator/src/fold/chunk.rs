//! The open chunk of a partition: its cells with their cumulative values, and the rows to emit.

use flagmint_schemas::rollup::{
    ChunkCell, ContextCell, DecisionCell, LatencyCell, LedgerCell, UniqueCell, UsageCell, counting, measure,
};
use indexmap::IndexSet;

use super::batch::is_evaluation;
use super::cells::{ABSENT, Cells};
use super::emission::Emitted;
use super::hash::Seeded;
use super::histograms::{self, Histograms};
use super::keys::{Client, ContextKey, DecisionKey, Environment, LatencyKey, LedgerKey, UsageKey};
use super::profile::Profile;
use super::time::{day_of, minute_of};
use super::uniques::{self, Changed, Uniques};

/// Decisions alike in one minute.
#[derive(Debug)]
pub(super) struct Decisions {
    pub count: u64,
    /// As in [`DecisionSlots`].
    latency: u32,
    histogram: u32,
    unique: u32,
}

/// Where decisions go that are alike. The cells of `latency` and `uniques` follow from the key of the one in `decisions`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecisionSlots {
    pub decision: u32,
    /// `ABSENT` for reports, which have no latency, and failures.
    pub latency: u32,
    /// Column on the board of the environment's minute; nobody's if there is no latency.
    pub histogram: u32,
    /// Column on the board of the environment's day; nobody's if they do not count in analytics.
    pub unique: u32,
}

/// Latencies of one flag in one minute.
#[derive(Debug)]
pub(super) struct Latency {
    pub count: u64,
    pub latency_us: u64,
    pub evaluation_ns: u64,
    place: histograms::Place,
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
    start_us: i64,
    pub records: u64,
    pub next_offset: u64,
    is_dirty: bool,
    pub environments: IndexSet<Environment, Seeded>,
    pub texts: IndexSet<Box<str>, Seeded>,
    pub clients: IndexSet<Client, Seeded>,
    pub decisions: Cells<DecisionKey, Decisions>,
    pub latency: Cells<LatencyKey, Latency>,
    pub histograms: Histograms,
    pub usage: Cells<UsageKey, Usage>,
    pub uniques: Uniques,
    pub contexts: Cells<ContextKey, Context>,
    ledger: Cells<LedgerKey, Ledger>,
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
            decisions: Cells::new(hashing),
            latency: Cells::new(hashing),
            histograms: Histograms::new(hashing),
            usage: Cells::new(hashing),
            uniques: Uniques::new(hashing),
            contexts: Cells::new(hashing),
            ledger: Cells::new(hashing),
        }
    }

    /// Distinct cells so far.
    pub fn cell_count(&self) -> usize {
        self.decisions.len()
            + self.latency.len()
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
        self.environments.insert_full(environment).0 as u32
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
        let hour_us = super::time::hour_of(append_time_us);
        let slot = self.ledger.slot(LedgerKey { environment, hour_us });
        self.ledger.change(slot)
    }

    /// The cells of decisions with this key.
    pub fn decision_slots(&mut self, key: DecisionKey) -> DecisionSlots {
        if let Some(decision) = self.decisions.find(&key) {
            let &Decisions { latency, histogram, unique, .. } = self.decisions.get(decision).1;
            return DecisionSlots { decision, latency, histogram, unique };
        }
        let (mut latency, mut histogram, mut unique) = (ABSENT, histograms::NOBODY, uniques::NOBODY);
        let DecisionKey { environment, flag, variation, minute_us, counting, .. } = key;
        if key.measure == measure::SERVED && !flag.is_none() {
            latency = self.latency.slot_with(LatencyKey { environment, counting, flag, minute_us }, || {
                let place = self.histograms.add(environment, minute_us);
                Latency { count: 0, latency_us: 0, evaluation_ns: 0, place }
            });
            histogram = self.latency.get(latency).1.place.column;
        }
        if counting == counting::COUNTED && is_evaluation(key.measure) {
            let board = self.uniques.board(environment, day_of(minute_us));
            unique = self.uniques.column(board, flag, variation);
        }
        let decision = self.decisions.slot_with(key, || Decisions { count: 0, latency, histogram, unique });
        DecisionSlots { decision, latency, histogram, unique }
    }

    /// Hands over the cells that changed since the last time; all that remain if the chunk is `complete`.
    pub fn emit(&mut self, complete: bool, out: &mut Emitted) {
        if !(self.is_dirty || complete) {
            return;
        }
        self.is_dirty = false;
        self.emit_counts(out);
        self.emit_uniques(out);
        self.emit_contexts(out);
        self.emit_ledger(out);
        let ChunkId { epoch, partition, chunk } = self.id;
        out.chunks.push(ChunkCell {
            time_us: self.start_us,
            epoch,
            partition,
            chunk,
            records: self.records,
            next_offset: self.next_offset,
            complete: u64::from(complete),
        });
    }

    /// Hands over those of them that are short and asked about by the minute.
    pub fn emit_counts(&mut self, out: &mut Emitted) {
        self.emit_decisions(out);
        self.emit_latency(out);
        self.emit_usage(out);
    }

    fn named(&self, environment: u32) -> Environment {
        self.environments[environment as usize]
    }

    fn text_of(&self, number: u32) -> String {
        self.texts[number as usize].to_string()
    }

    fn emit_decisions(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.decisions.take_dirty();
        out.decisions.reserve(dirty.len());
        for slot in dirty {
            let (key, decisions) = self.decisions.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.decisions.push(DecisionCell {
                organization,
                project,
                environment,
                flag: key.flag,
                variation: key.variation,
                reason: key.reason,
                error_code: key.error_code,
                rule: key.rule,
                source: self.text_of(key.source),
                measure: key.measure,
                counting: key.counting,
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                count: decisions.count,
            });
        }
    }

    fn emit_latency(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.latency.take_dirty();
        let places: Vec<histograms::Place> = dirty.iter().map(|slot| self.latency.get(*slot).1.place).collect();
        out.latency.reserve(dirty.len());
        for (slot, buckets) in dirty.into_iter().zip(self.histograms.encode(&places)) {
            let (key, latency) = self.latency.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.latency.push(LatencyCell {
                organization,
                project,
                environment,
                flag: key.flag,
                counting: key.counting,
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                count: latency.count,
                latency_us: latency.latency_us,
                evaluation_ns: latency.evaluation_ns,
                buckets,
            });
        }
    }

    fn emit_usage(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.usage.take_dirty();
        out.usage.reserve(dirty.len());
        for slot in dirty {
            let (key, usage) = self.usage.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.usage.push(UsageCell {
                organization,
                project,
                environment,
                key: key.key,
                transport: key.transport,
                sdk_name: self.text_of(key.sdk_name),
                sdk_version: self.text_of(key.sdk_version),
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                api_calls: usage.api_calls,
                connections: usage.connections,
                track_events: usage.track_events,
                calls: usage.calls,
                failed_calls: usage.failed_calls,
            });
        }
    }

    fn emit_uniques(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        for Changed { environment, flag, variation, day_us, registers } in self.uniques.take_changed() {
            let Environment { organization, project, environment } = self.named(environment);
            out.uniques.push(UniqueCell {
                organization,
                project,
                environment,
                flag,
                variation,
                time_us: day_us,
                epoch,
                partition,
                chunk,
                registers,
            });
        }
    }

    fn emit_contexts(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let sdks: Vec<String> = self.clients.iter().map(Client::to_json).collect();
        let dirty = self.contexts.take_dirty();
        out.contexts.reserve(dirty.len());
        for slot in dirty {
            let (key, context) = self.contexts.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.contexts.push(ContextCell {
                organization,
                project,
                environment,
                kind: self.text_of(key.kind),
                key: key.key.to_string(),
                source: self.text_of(key.source),
                time_us: key.day_us,
                epoch,
                partition,
                chunk,
                evaluations: context.evaluations,
                first_seen_us: context.first_seen_us,
                last_seen_us: context.last_seen_us,
                profile: context.profile.render(&sdks[context.profile.client() as usize]),
            });
        }
    }

    fn emit_ledger(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.ledger.take_dirty();
        out.ledger.reserve(dirty.len());
        for slot in dirty {
            let (key, ledger) = self.ledger.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.ledger.push(LedgerCell {
                organization,
                project,
                environment,
                time_us: key.hour_us,
                epoch,
                partition,
                chunk,
                records: ledger.records,
                produced: ledger.produced,
                counted: ledger.counted,
                calls: ledger.calls,
                duplicate_records: ledger.duplicate_records,
                duplicate_decisions: ledger.duplicate_decisions,
                parked_records: ledger.parked_records,
                parked_decisions: ledger.parked_decisions,
                gaps: ledger.gaps,
                clamped: ledger.clamped,
                estimated_missing: ledger.estimated_missing,
            });
        }
    }
}
