//! Folding one batch into the open chunk.
//!
//! A batch repeats few combinations, so cells are looked up once per combination and batch. Calls with the same source, minute
//! and way of counting form a class; the decisions of a class with one outcome form a group, which is applied to its
//! cells in one go ([`super::groups`]).

use flagmint_schemas::batch::{BatchView, Call, Caller};
use flagmint_schemas::decision::{Reason, Trigger};
use flagmint_schemas::ids::{FlagId, RuleId, VariationId};
use flagmint_schemas::rollup::{counting, measure};
use flagmint_schemas::sketch::latency::bucket_of;
use uuid::Uuid;

use super::cells::ABSENT;
use super::chunk::{Chunk, Context, DecisionSlots};
use super::groups::{CallShare, Group, Groups};
use super::hash;
use super::keys::{Client, ContextKey, ContextText, DecisionKey, UsageKey};
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
    groups: Groups,
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
    contexts: Vec<u32>,
}

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
    scratch.used = 0;
    scratch.groups.start(view.outcomes().len());
    let totals = Totals::default();
    let mut fold = BatchFold { view, environment, append_time_us, chunk, scratch, distinct: None, totals };
    fold.calls();
    fold.apply();
    fold.totals
}

struct BatchFold<'a> {
    view: &'a BatchView,
    environment: u32,
    append_time_us: i64,
    chunk: &'a mut Chunk,
    scratch: &'a mut Scratch,
    /// Slot of the environment's distinct contexts, once looked up.
    distinct: Option<u32>,
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
        if self.scratch.used == BATCH_CLASSES {
            self.apply();
            self.scratch.used = 0;
        }
        let scratch = &mut *self.scratch;
        let place = scratch.used;
        scratch.used += 1;
        if place == scratch.classes.len() {
            scratch.classes.push(Class { key, contexts: Vec::new() });
        }
        let class = &mut scratch.classes[place];
        class.key = key;
        class.contexts.clear();
        class.contexts.resize(self.view.contexts().len(), ABSENT);
        place
    }

    fn decisions(&mut self, class: usize, call: &CallRow, outcomes: &[u32], counts: &[u32]) {
        let evaluations = counts.iter().map(|&count| u64::from(count)).sum();
        let mark = self.context(class, call, evaluations);
        if outcomes.is_empty() {
            return;
        }
        let rows = outcomes.len() as u64;
        let share = CallShare {
            latency_us: call.latency_us,
            bucket: bucket_of(u64::from(call.latency_us)),
            evaluation_ns: u64::from(call.evaluation_ns) / rows,
            mark,
        };
        self.scratch.groups.push(class, share, u64::from(call.evaluation_ns) % rows, outcomes, counts);
        self.totals.counted += evaluations;
        self.totals.clamped += if call.is_clamped { evaluations } else { 0 };
    }

    /// Brings what the groups hold into the cells, and empties them.
    fn apply(&mut self) {
        let mut groups = std::mem::take(&mut self.scratch.groups);
        groups.sort();
        for group in groups.iter() {
            let key = self.scratch.classes[group.class].key;
            self.group(key, group.outcome, &group);
        }
        groups.clear();
        self.scratch.groups = groups;
    }

    /// Takes the call's context in; returns the mark of its user key if it has one.
    fn context(&mut self, class: usize, call: &CallRow, evaluations: u64) -> Option<Mark> {
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
            let slot = *self.distinct.get_or_insert_with(|| {
                chunk.unique_slot(self.environment, FlagId::NONE, VariationId::NONE, self.append_time_us)
            });
            chunk.raise_all(slot, std::iter::once(Mark::of(distinct)));
        }
        let slot = if key.is_empty() {
            UNNAMED
        } else {
            let ClassKey { source, minute_us, .. } = self.scratch.classes[class].key;
            let kind = chunk.text(contexts.kind().get(row));
            let environment = self.environment;
            let name = ContextKey { environment, source, kind, day_us: day_of(minute_us), key: ContextText::of(key) };
            let new = || Context {
                evaluations: 0,
                first_seen_us: sighting.seen_us,
                last_seen_us: sighting.seen_us,
                profile: Profile::new(sighting),
            };
            chunk.contexts.slot_with(name, new)
        };
        self.scratch.classes[class].contexts[row] = slot;
        slot
    }

    /// Adds the decisions of one class with one outcome to their cells.
    fn group(&mut self, key: ClassKey, outcome: usize, group: &Group<'_>) {
        let outcomes = self.view.outcomes();
        let flag = FlagId(Uuid::from_bytes(outcomes.flag()[outcome]));
        let variation = VariationId(Uuid::from_bytes(outcomes.variation()[outcome]));
        let counting = match (outcomes.analytics_enabled()[outcome] == 1, key.is_counted) {
            (false, _) => counting::HIDDEN,
            (true, false) => counting::UNCOUNTED,
            (true, true) => counting::COUNTED,
        };
        let DecisionSlots { decision, latency, unique } = self.chunk.decision_slots(DecisionKey {
            environment: self.environment,
            source: key.source,
            flag,
            variation,
            rule: RuleId(Uuid::from_bytes(outcomes.rule()[outcome])),
            minute_us: key.minute_us,
            reason: outcomes.reason()[outcome],
            error_code: outcomes.error_code()[outcome],
            measure: key.measure,
            counting,
        });
        self.chunk.decisions.change(decision).count += group.count();
        if latency != ABSENT {
            group.add_latency(self.chunk.latency.change(latency));
        }
        if unique != ABSENT {
            self.chunk.raise_all(unique, group.marks());
        }
    }

    /// A call that failed before evaluation is one row without a flag: visible, but no decision.
    fn failure(&mut self, class: usize, error_code: u8) {
        let ClassKey { source, measure, minute_us, .. } = self.scratch.classes[class].key;
        let slots = self.chunk.decision_slots(DecisionKey {
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
        self.chunk.decisions.change(slots.decision).count += 1;
    }
}

/// Stands for a context without a key: it cannot be told from others, so it has no cell of its own.
const UNNAMED: u32 = ABSENT - 1;
