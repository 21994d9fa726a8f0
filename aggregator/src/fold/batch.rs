//! Folding one batch into the open chunk.
//!
//! A batch repeats few combinations, so cells are looked up once per combination and batch. Calls with the same source, minute
//! and way of counting form a class; what the decisions of a class with one outcome add up to ([`super::sums`]) and what a class saw of
//! a context ([`super::sightings`]) goes to its cells at the end.

use flagmint_schemas::batch::{BatchView, Call, Caller};
use flagmint_schemas::context_key::ContextKey as Key;
use flagmint_schemas::decision::{Reason, Trigger};
use flagmint_schemas::ids::{FlagId, RuleId, VariationId};
use flagmint_schemas::rollup::{counting, measure};
use flagmint_schemas::sketch::latency::bucket_of;

use super::chunk::{Chunk, Context, DecisionSlots};
use super::hash;
use super::keys::{ClassKey, Client, ContextKey, DecisionKey, UsageKey};
use super::outcomes::OutcomeKey;
use super::prefetch::prefetch;
use super::profile::{Profile, Sighting};
use super::sightings::{SeenContexts, Sightings};
use super::sums::Sums;
use super::time::{day_of, is_believed, minute_of};
use super::uniques::Mark;
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
    sums: Sums,
    /// By outcome: its key's hash, and its number in the chunk, `ABSENT` if it has none yet.
    outcome_hashes: Vec<u64>,
    outcome_numbers: Vec<u32>,
    /// Columns of histograms whose count has just been carried over; empty between calls.
    carried: Vec<u32>,
    named: Vec<Named>,
}

/// Sightings on their way to the cell of their context.
#[derive(Debug)]
struct Named {
    /// Of the batch's contexts.
    row: usize,
    sightings: Sightings,
    key: ContextKey,
    hash: u64,
}

#[derive(Clone, Copy, Debug)]
struct CallerSlots {
    usage: u32,
    source: u32,
    client: u32,
    measure: u8,
    is_counted: bool,
}

#[derive(Debug)]
struct Class {
    key: ClassKey,
    /// Where its latencies are.
    histograms: u32,
    /// Where its distinct users are.
    uniques: u32,
    contexts: SeenContexts,
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
    scratch.sums.start(view.outcomes().len());
    let known = &chunk.outcomes[environment as usize];
    known.find_all(view.outcomes(), &mut scratch.outcome_hashes, &mut scratch.outcome_numbers);
    known.prefetch_slots(&scratch.outcome_numbers);
    let totals = Totals::default();
    let mut fold =
        BatchFold { view, environment, append_time_us, chunk, scratch, today: None, last_kind: None, totals };
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
    /// Board of the environment's day of append, once looked up.
    today: Option<u32>,
    /// The kind looked up last, which the next context is likely to be of, and its number.
    last_kind: Option<(&'a str, u32)>,
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
            self.prefetch(class, row + 1, &outcomes[end..]);
            self.decisions(class, &call, &outcomes[start..end], &counts[start..end]);
            if start == end && calls.error_code()[row] != 0 {
                self.failure(class, calls.error_code()[row]);
            }
            start = end;
        }
    }

    /// Has that fetched which a call will touch if it is of this class, as most are; its decisions are the first of `outcomes`.
    fn prefetch(&mut self, class: usize, row: usize, outcomes: &[u32]) {
        let calls = self.view.calls();
        let (Some(&decisions), Some(&latency_us)) = (calls.decisions().get(row), calls.latency_us().get(row)) else {
            return;
        };
        let mark = self.mark(calls.context()[row]);
        let &Class { histograms, uniques, .. } = &self.scratch.classes[class];
        let histogram_row = self.chunk.histograms.touched(histograms, bucket_of(latency_us.into()));
        let unique_row = self.chunk.uniques.touched(uniques, mark);
        let sums = self.scratch.sums.of_class(class);
        for &outcome in &outcomes[..decisions as usize] {
            let sum = &sums[outcome as usize];
            prefetch(histogram_row, sum.histogram as usize);
            prefetch(unique_row, sum.unique as usize);
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
            measure: measure_of(caller.trigger),
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
        scratch.sums.add_class(place);
        let histograms = self.chunk.histograms.board(self.environment, key.minute_us);
        let uniques = self.chunk.uniques.board(self.environment, day_of(key.minute_us));
        if place == scratch.classes.len() {
            scratch.classes.push(Class { key, histograms, uniques, contexts: SeenContexts::default() });
        }
        let class = &mut scratch.classes[place];
        (class.key, class.histograms, class.uniques) = (key, histograms, uniques);
        class.contexts.start(self.view.contexts().len());
        place
    }

    fn decisions(&mut self, class: usize, call: &CallRow, outcomes: &[u32], counts: &[u32]) {
        let evaluations = counts.iter().map(|&count| u64::from(count)).sum();
        let made_for_it = if is_evaluation(call.caller.measure) { evaluations } else { 0 };
        let mark = self.context(class, call, made_for_it);
        let Some(&first) = outcomes.first() else { return };
        self.totals.counted += evaluations;
        self.totals.clamped += if call.is_clamped { evaluations } else { 0 };
        self.open_sums(class, outcomes);

        let rows = outcomes.len() as u64;
        let (latency_us, evaluation_ns) = (u64::from(call.latency_us), u64::from(call.evaluation_ns));
        let &Class { histograms, uniques, .. } = &self.scratch.classes[class];
        let sums = self.scratch.sums.of_class(class);
        sums[first as usize].evaluation_ns += evaluation_ns % rows;
        let share_ns = evaluation_ns / rows;
        // What is not asked for goes to nobody's columns, so that there is one loop for all.
        let bucket = bucket_of(latency_us);
        let histogram_row = self.chunk.histograms.row(histograms, bucket);
        let mut unique_row = self.chunk.uniques.row(uniques, mark);
        for (&outcome, &count) in outcomes.iter().zip(counts) {
            let sum = &mut sums[outcome as usize];
            sum.count += u64::from(count);
            sum.latency_us += u64::from(count) * latency_us;
            sum.evaluation_ns += share_ns;
            let in_bucket = &mut histogram_row[sum.histogram as usize];
            let (total, is_carried) = in_bucket.overflowing_add(count);
            *in_bucket = total;
            if is_carried {
                self.scratch.carried.push(sum.histogram);
            }
            unique_row.raise(sum.unique);
        }
        let raised = unique_row.finish();
        self.chunk.uniques.raised(uniques, mark, raised);
        for column in self.scratch.carried.drain(..) {
            self.chunk.histograms.carry(histograms, column, bucket);
        }
    }

    /// Makes sure that there is a sum for each of the outcomes.
    #[inline]
    fn open_sums(&mut self, class: usize, outcomes: &[u32]) {
        for &outcome in outcomes {
            if !self.scratch.sums.of_class(class)[outcome as usize].is_open() {
                self.open_sum(class, outcome);
            }
        }
    }

    fn open_sum(&mut self, class: usize, outcome: u32) {
        let row = outcome as usize;
        let key = self.scratch.classes[class].key;
        let number = self.scratch.outcome_numbers[row];
        let known = self.chunk.outcomes[self.environment as usize].slots(&key, number);
        let slots = known.unwrap_or_else(|| self.look_up(&key, row));
        self.chunk.prefetch(&slots);
        self.scratch.sums.open(class, outcome, slots, (key.measure, self.view.outcomes().reason()[row]));
    }

    /// Where decisions of a class with an outcome go.
    #[cold]
    fn look_up(&mut self, class: &ClassKey, row: usize) -> DecisionSlots {
        let outcome = OutcomeKey::of_rows(self.view.outcomes())(row);
        let counting = match (outcome.analytics_enabled, class.is_counted) {
            (false, _) => counting::HIDDEN,
            (true, false) => counting::UNCOUNTED,
            (true, true) => counting::COUNTED,
        };
        let OutcomeKey { flag, variation, rule, reason, error_code, .. } = outcome;
        let slots = self.chunk.decision_slots(DecisionKey {
            environment: self.environment,
            source: class.source,
            flag,
            variation,
            rule,
            minute_us: class.minute_us,
            reason,
            error_code,
            measure: class.measure,
            counting,
        });
        let outcomes = &mut self.chunk.outcomes[self.environment as usize];
        let number = outcomes.number(self.scratch.outcome_hashes[row], outcome);
        self.scratch.outcome_numbers[row] = number;
        outcomes.remember(class, number, slots);
        slots
    }

    /// Brings what the classes hold into the cells, and empties them.
    fn apply(&mut self) {
        for (target, sum) in self.scratch.sums.drain() {
            self.chunk.add(&target, &sum);
        }
        let mut named = std::mem::take(&mut self.scratch.named);
        for class in 0..self.scratch.used {
            let mut contexts = std::mem::take(&mut self.scratch.classes[class].contexts);
            let key = self.scratch.classes[class].key;
            // First the places of all of them in the index are on their way, then the cells there, then they are needed.
            named.extend(contexts.drain().filter_map(|(row, sightings)| self.named(key, row as usize, sightings)));
            named.iter().for_each(|named| self.chunk.contexts.prefetch_hashed(named.hash));
            named.drain(..).for_each(|named| self.sighted(named));
            self.scratch.classes[class].contexts = contexts;
        }
        self.scratch.named = named;
    }

    /// Notes the call's context; returns the mark of its user key.
    fn context(&mut self, class: usize, call: &CallRow, evaluations: u64) -> Mark {
        if call.context == Call::NO_CONTEXT {
            return Mark::NONE;
        }
        let class = &mut self.scratch.classes[class];
        if let Some(before) = class.contexts.add(call.context, evaluations, call.time_us, call.caller.client) {
            let key = class.key;
            if let Some(named) = self.named(key, call.context as usize, before) {
                self.sighted(named);
            }
        }
        self.mark(call.context)
    }

    /// The mark of a context's user key.
    #[inline]
    fn mark(&self, context: u32) -> Mark {
        match self.view.contexts().user_hash().get(context as usize) {
            None | Some(0) => Mark::NONE,
            Some(user_hash) => Mark::of(*user_hash),
        }
    }

    /// The cell that what a class saw of a context goes to. Without a key it cannot be told from others: it is counted, and has no cell.
    fn named(&mut self, class: ClassKey, row: usize, sightings: Sightings) -> Option<Named> {
        let contexts = self.view.contexts();
        let key = &contexts.key()[row];
        if key.is_none() {
            let user_hash = contexts.user_hash()[row];
            if user_hash != 0 {
                self.distinct(user_hash);
            }
            return None;
        }
        let (environment, kind, key) = (self.environment, self.kind(row), key.clone());
        let key = ContextKey { environment, source: class.source, kind, day_us: day_of(class.minute_us), key };
        let hash = self.chunk.contexts.hash(&key);
        self.chunk.contexts.prefetch_index(hash);
        Some(Named { row, sightings, key, hash })
    }

    /// Brings what a class saw of a context into its cell and into the environment's distinct contexts.
    fn sighted(&mut self, Named { row, sightings, key, hash }: Named) {
        let contexts = self.view.contexts();
        let Sightings { evaluations, first_us, last_us, client } = sightings;
        let sighting = Sighting {
            seen_us: last_us,
            attributes_json: contexts.attributes_json().get(row),
            omitted: contexts.attributes_omitted()[row],
            client,
        };
        let chunk = &mut *self.chunk;
        let new = || Context::new(first_us, last_us, Profile::new(sighting, &mut chunk.attributes));
        let slot = chunk.contexts.slot_hashed(hash, key, new);
        let context = chunk.contexts.change(slot);
        context.evaluations += evaluations;
        context.first_seen_us = context.first_seen_us.min(first_us);
        context.last_seen_us = context.last_seen_us.max(last_us);
        context.profile.update(sighting, &chunk.clients, &mut chunk.attributes);
        let today_us = day_of(self.append_time_us);
        if std::mem::replace(&mut context.distinct_day_us, today_us) != today_us {
            self.distinct(match &contexts.key()[row] {
                Key::Pseudonym(pseudonym) => hash::stable(&pseudonym.spelled()),
                other => hash::stable(other.to_string().as_bytes()),
            });
        }
    }

    /// Counts a context among those of its environment on the day of the append.
    fn distinct(&mut self, hash: u64) {
        let (environment, day_us) = (self.environment, day_of(self.append_time_us));
        let board = *self.today.get_or_insert_with(|| self.chunk.uniques.board(environment, day_us));
        self.chunk.uniques.raise_contexts(board, Mark::of(hash));
    }

    /// The number of a context's kind.
    fn kind(&mut self, row: usize) -> u32 {
        let text = self.view.contexts().kind().get(row);
        match self.last_kind {
            Some((last, number)) if last == text => number,
            _ => {
                let number = self.chunk.text(text);
                self.last_kind = Some((text, number));
                number
            }
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

/// What the decisions of calls with this trigger are.
const fn measure_of(trigger: Trigger) -> u8 {
    match trigger {
        Trigger::Report => measure::REPORTED,
        Trigger::Goal => measure::GOAL,
        Trigger::AppError => measure::APP_ERROR,
        _ => measure::SERVED,
    }
}

/// Whether somebody was given a value, and is a user of the flag then.
pub(super) const fn is_evaluation(measure: u8) -> bool {
    matches!(measure, measure::SERVED | measure::REPORTED)
}
