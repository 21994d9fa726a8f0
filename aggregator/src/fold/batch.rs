//! Folding one batch into the open chunk.
//!
//! A batch repeats few combinations, so cells are looked up once per combination and batch, and a decision then costs three array
//! accesses. Calls with the same source, minute and way of counting form a class; a class has one table from the
//! batch's outcomes to slots of cells and one from its contexts.

use flagmint_schemas::batch::{BatchView, Call, Caller, Outcome};
use flagmint_schemas::decision::{Reason, Trigger};
use flagmint_schemas::ids::{FlagId, RuleId, VariationId};
use flagmint_schemas::rollup::{counting, measure};
use flagmint_schemas::sketch::latency::bucket_of;

use super::cells::ABSENT;
use super::chunk::{Chunk, Context};
use super::hash;
use super::keys::{Client, ContextName, DecisionKey, LatencyKey, UsageKey};
use super::profile::{Profile, Sighting};
use super::sketch::Mark;
use super::time::{day_of, is_believed, minute_of};
use crate::limits::BATCH_CLASSES;

/// What a batch adds to the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Evaluations that the decisions stand for.
    pub counted: u64,
    /// Those of them counted in the minute of their append.
    pub clamped: u64,
}

/// Memory used while folding a batch, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    callers: Vec<Option<CallerSlots>>,
    classes: Vec<Class>,
    /// How many of `classes` are in use.
    used: usize,
    /// The class to be given up next when all are in use.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct CallerSlots {
    usage: u32,
    source: u32,
    client: u32,
    measure: u8,
    is_counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClassKey {
    source: u32,
    measure: u8,
    is_counted: bool,
    minute_us: i64,
}

#[derive(Debug)]
struct Class {
    key: ClassKey,
    outcomes: Vec<OutcomeSlots>,
    contexts: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct OutcomeSlots {
    decision: u32,
    latency: u32,
    /// `ABSENT` if the outcome does not count in analytics.
    unique: u32,
}

const UNKNOWN: OutcomeSlots = OutcomeSlots { decision: ABSENT, latency: ABSENT, unique: ABSENT };

/// Folds all rows of a batch; `environment` is its number in the chunk.
pub(super) fn fold(
    view: &BatchView,
    environment: u32,
    append_time_us: i64,
    chunk: &mut Chunk,
    scratch: &mut Scratch,
) -> Totals {
    scratch.callers.clear();
    scratch.callers.resize(view.callers().len(), None);
    (scratch.used, scratch.next) = (0, 0);
    let mut fold = BatchFold { view, environment, append_time_us, chunk, scratch, totals: Totals::default() };
    fold.calls();
    fold.totals
}

struct BatchFold<'a> {
    view: &'a BatchView,
    environment: u32,
    append_time_us: i64,
    chunk: &'a mut Chunk,
    scratch: &'a mut Scratch,
    totals: Totals,
}

/// The columns of one call that the fold needs.
#[derive(Clone, Copy)]
struct CallRow {
    caller: CallerSlots,
    context: u32,
    /// When it is taken to have happened.
    time_us: i64,
    is_clamped: bool,
    latency_us: u32,
    evaluation_ns: u32,
}

impl BatchFold<'_> {
    fn calls(&mut self) {
        let view = self.view;
        let calls = view.calls();
        let (outcomes, counts) = (view.decisions().outcome(), view.decisions().count());
        let mut start = 0;
        for row in 0..calls.len() {
            let caller = self.caller(calls.caller()[row]);
            let event_time_us = calls.event_time_us()[row];
            let is_clamped = !is_believed(event_time_us, self.append_time_us);
            let call = CallRow {
                caller,
                context: calls.context()[row],
                time_us: if is_clamped { self.append_time_us } else { event_time_us },
                is_clamped,
                latency_us: calls.latency_us()[row],
                evaluation_ns: calls.evaluation_ns()[row],
            };
            let end = start + calls.decisions()[row] as usize;
            self.meter(row, caller.usage);
            let class = self.class(ClassKey {
                source: caller.source,
                measure: caller.measure,
                is_counted: caller.is_counted && calls.counted()[row] == 1,
                minute_us: minute_of(call.time_us),
            });
            self.decisions(class, &call, &outcomes[start..end], &counts[start..end]);
            if start == end && calls.error_code()[row] != 0 {
                self.failure(class, calls.error_code()[row]);
            }
            start = end;
        }
    }

    fn meter(&mut self, row: usize, slot: u32) {
        let calls = self.view.calls();
        let usage = self.chunk.usage.change(slot);
        usage.api_calls += u64::from(calls.api_calls()[row]);
        usage.connections += u64::from(calls.connections()[row]);
        usage.track_events += u64::from(calls.track_events()[row]);
        usage.calls += 1;
        usage.failed_calls += u64::from(calls.error_code()[row] != 0);
    }

    #[inline]
    fn caller(&mut self, row: u32) -> CallerSlots {
        match self.scratch.callers[row as usize] {
            Some(slots) => slots,
            None => self.resolve_caller(row),
        }
    }

    #[cold]
    fn resolve_caller(&mut self, row: u32) -> CallerSlots {
        let caller: &Caller = &self.view.callers()[row as usize];
        let chunk = &mut *self.chunk;
        let key = UsageKey {
            environment: self.environment,
            transport: caller.transport.code(),
            key: caller.key,
            sdk_name: chunk.text(&caller.sdk_name),
            sdk_version: chunk.text(&caller.sdk_version),
            minute_us: minute_of(self.append_time_us),
        };
        let slots = CallerSlots {
            usage: chunk.usage.slot(key),
            source: chunk.text(&caller.source),
            client: chunk.client(Client::of(caller)),
            measure: if caller.trigger == Trigger::Report { measure::REPORTED } else { measure::SERVED },
            is_counted: caller.trigger.is_counted(),
        };
        self.scratch.callers[row as usize] = Some(slots);
        slots
    }

    /// The number of a class, made if new. Calls of one batch come in few classes, mostly one after the other.
    #[inline]
    fn class(&mut self, key: ClassKey) -> usize {
        let scratch = &mut *self.scratch;
        match scratch.classes[..scratch.used].iter().position(|class| class.key == key) {
            Some(found) => found,
            None => self.make_class(key),
        }
    }

    #[cold]
    fn make_class(&mut self, key: ClassKey) -> usize {
        let scratch = &mut *self.scratch;
        let place = if scratch.used < BATCH_CLASSES {
            scratch.used += 1;
            scratch.used - 1
        } else {
            scratch.next = (scratch.next + 1) % BATCH_CLASSES;
            scratch.next
        };
        if place == scratch.classes.len() {
            scratch.classes.push(Class { key, outcomes: Vec::new(), contexts: Vec::new() });
        }
        let class = &mut scratch.classes[place];
        class.key = key;
        class.outcomes.clear();
        class.outcomes.resize(self.view.outcomes().len(), UNKNOWN);
        class.contexts.clear();
        class.contexts.resize(self.view.contexts().len(), ABSENT);
        place
    }

    fn decisions(&mut self, class: usize, call: &CallRow, outcomes: &[u32], counts: &[u32]) {
        let mark = self.context(class, call, counts);
        if outcomes.is_empty() {
            return;
        }
        let is_served = call.caller.measure == measure::SERVED;
        let bucket = bucket_of(u64::from(call.latency_us));
        let rows = outcomes.len() as u64;
        let share_ns = u64::from(call.evaluation_ns) / rows;
        let mut rest_ns = u64::from(call.evaluation_ns) % rows;
        let mut evaluations = 0;
        for (&outcome, &count) in outcomes.iter().zip(counts) {
            let count = u64::from(count);
            evaluations += count;
            let slots = self.outcome(class, outcome);
            *self.chunk.decisions.change(slots.decision) += count;
            if is_served {
                let latency = self.chunk.latency.change(slots.latency);
                latency.count += count;
                latency.latency_us += count * u64::from(call.latency_us);
                latency.evaluation_ns += share_ns + std::mem::take(&mut rest_ns);
                latency.histogram.add(bucket, count);
            }
            if let Some(mark) = mark
                && slots.unique != ABSENT
            {
                self.chunk.raise(slots.unique, mark);
            }
        }
        self.totals.counted += evaluations;
        self.totals.clamped += if call.is_clamped { evaluations } else { 0 };
    }

    /// Takes the call's context in; returns the mark of its user key if it has one.
    fn context(&mut self, class: usize, call: &CallRow, counts: &[u32]) -> Option<Mark> {
        if call.context == Call::NO_CONTEXT {
            return None;
        }
        let (view, row) = (self.view, call.context as usize);
        let contexts = view.contexts();
        let sighting = Sighting {
            seen_us: call.time_us,
            attributes_json: contexts.attributes_json().get(row),
            omitted: contexts.attributes_omitted()[row],
            client: call.caller.client,
        };
        let mut slot = self.scratch.classes[class].contexts[row];
        if slot == ABSENT {
            slot = self.resolve_context(class, row, sighting);
        }
        if slot != UNNAMED {
            let evaluations: u64 = counts.iter().map(|&count| u64::from(count)).sum();
            let context = self.chunk.contexts.change(slot);
            context.evaluations += evaluations;
            context.first_seen_us = context.first_seen_us.min(call.time_us);
            context.last_seen_us = context.last_seen_us.max(call.time_us);
            context.profile.update(sighting, &self.chunk.clients);
        }
        let user_hash = contexts.user_hash()[row];
        (user_hash != 0).then(|| Mark::of(user_hash))
    }

    /// Looks a context up, once per class, and takes it into the environment's distinct contexts.
    fn resolve_context(&mut self, class: usize, row: usize, sighting: Sighting<'_>) -> u32 {
        let contexts = self.view.contexts();
        let (key, user_hash) = (contexts.key().get(row), contexts.user_hash()[row]);
        let distinct = if key.is_empty() { user_hash } else { hash::stable(key) };
        let chunk = &mut *self.chunk;
        if !key.is_empty() || user_hash != 0 {
            let slot = chunk.unique_slot(self.environment, FlagId::NONE, VariationId::NONE, self.append_time_us);
            chunk.raise(slot, Mark::of(distinct));
        }
        let slot = if key.is_empty() {
            UNNAMED
        } else {
            let ClassKey { source, minute_us, .. } = self.scratch.classes[class].key;
            let kind = chunk.text(contexts.kind().get(row));
            let name = ContextName { environment: self.environment, source, kind, day_us: day_of(minute_us), key };
            let new = || Context {
                evaluations: 0,
                first_seen_us: sighting.seen_us,
                last_seen_us: sighting.seen_us,
                profile: Profile::new(sighting),
            };
            chunk.contexts.find(&name).unwrap_or_else(|| chunk.contexts.slot_with(name.to_key(), new))
        };
        self.scratch.classes[class].contexts[row] = slot;
        slot
    }

    #[inline]
    fn outcome(&mut self, class: usize, row: u32) -> OutcomeSlots {
        let slots = self.scratch.classes[class].outcomes[row as usize];
        if slots.decision == ABSENT { self.resolve_outcome(class, row) } else { slots }
    }

    fn resolve_outcome(&mut self, class: usize, row: u32) -> OutcomeSlots {
        let outcome: &Outcome = &self.view.outcomes()[row as usize];
        let key = self.scratch.classes[class].key;
        let counting = match (outcome.analytics_enabled, key.is_counted) {
            (false, _) => counting::HIDDEN,
            (true, false) => counting::UNCOUNTED,
            (true, true) => counting::COUNTED,
        };
        let (environment, minute_us) = (self.environment, key.minute_us);
        let chunk = &mut *self.chunk;
        let decision = chunk.decisions.slot(DecisionKey {
            environment,
            source: key.source,
            flag: outcome.flag,
            variation: outcome.variation,
            rule: outcome.rule,
            minute_us,
            reason: outcome.reason.code(),
            error_code: outcome.error_code.map_or(0, |code| code.code()),
            measure: key.measure,
            counting,
        });
        let latency = if key.measure == measure::SERVED {
            chunk.latency.slot(LatencyKey { environment, counting, flag: outcome.flag, minute_us })
        } else {
            ABSENT
        };
        let unique = if counting == counting::COUNTED {
            chunk.unique_slot(environment, outcome.flag, outcome.variation, minute_us)
        } else {
            ABSENT
        };
        let slots = OutcomeSlots { decision, latency, unique };
        self.scratch.classes[class].outcomes[row as usize] = slots;
        slots
    }

    /// A call that failed before evaluation is one row without a flag: visible, but no decision.
    fn failure(&mut self, class: usize, error_code: u8) {
        let ClassKey { source, measure, minute_us, .. } = self.scratch.classes[class].key;
        let slot = self.chunk.decisions.slot(DecisionKey {
            environment: self.environment,
            source,
            flag: FlagId::NONE,
            variation: VariationId::NONE,
            rule: RuleId::NONE,
            minute_us,
            reason: Reason::Error.code(),
            error_code,
            measure,
            counting: counting::HIDDEN,
        });
        *self.chunk.decisions.change(slot) += 1;
    }
}

/// Stands for a context without a key: it cannot be told from others, so it has no cell of its own.
const UNNAMED: u32 = ABSENT - 1;
