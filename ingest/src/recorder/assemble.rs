//! From buffers to batches: dense dictionaries of what the rows refer to, in batches of bounded size.

use flagmint_schemas::batch::{Batch, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome};
use flagmint_schemas::limits::{BATCH_DECISIONS_MAX, PROTOBUF_DECISIONS_BELOW};

use super::contexts::ContextRows;
use super::environment::{Buffer, Row};
use crate::limits::BATCH_TEXT_BYTES;

/// Calls in one batch at most; like decisions, so that calls without decisions do not make a giant.
const CALLS_MAX: usize = BATCH_DECISIONS_MAX;

/// Not in the batch yet.
const ABSENT: u32 = u32::MAX;

/// Memory of batches being built, kept for the next ones.
#[derive(Default)]
pub(super) struct Scratch {
    caller_rows: Vec<u32>,
    outcome_rows: Vec<u32>,
    context_rows: ContextRows,
    batch: Batch,
    /// Bytes of texts in the batch's dictionary of outcomes.
    text_bytes: usize,
}

impl Scratch {
    fn start(&mut self, callers: usize, outcomes: usize) {
        self.caller_rows.clear();
        self.caller_rows.resize(callers, ABSENT);
        self.outcome_rows.clear();
        self.outcome_rows.resize(outcomes, ABSENT);
        self.context_rows.clear();
        self.text_bytes = 0;
        let Batch { callers, outcomes, contexts, calls, decisions } = &mut self.batch;
        callers.clear();
        outcomes.clear();
        contexts.clear();
        calls.clear();
        decisions.clear();
    }
}

/// Builds the batches of one flush of one environment and hands each to `emit`.
pub(super) struct Assembler<'a, E> {
    callers: &'a [Caller],
    outcomes: &'a [Outcome],
    emit: E,
    scratch: &'a mut Scratch,
    /// Decisions of calls that refer to nothing we know.
    unknown_decisions: u64,
}

impl<'a, E: FnMut(&Batch)> Assembler<'a, E> {
    pub(super) fn new(callers: &'a [Caller], outcomes: &'a [Outcome], scratch: &'a mut Scratch, emit: E) -> Self {
        scratch.start(callers.len(), outcomes.len());
        Self { callers, outcomes, emit, scratch, unknown_decisions: 0 }
    }

    /// Takes the rows of a buffer in.
    pub(super) fn add(&mut self, buffer: &mut Buffer) {
        let Buffer { calls, contexts, decisions, counts } = buffer;
        let mut start = 0;
        for (call, context) in calls.iter().zip(contexts.drain(..)) {
            let rows = start..start + call.decisions as usize;
            start = rows.end;
            self.add_call(call, context, &decisions[rows.clone()], counts.get(rows).unwrap_or_default());
        }
    }

    /// `counts` is empty if each decision stands for one evaluation.
    fn add_call(&mut self, call: &Call, context: Option<ObservedContext>, decisions: &[Row], counts: &[u32]) {
        let is_known = |row: &Row| (row.outcome() as usize) < self.outcomes.len();
        if call.caller as usize >= self.callers.len() || !decisions.iter().all(is_known) {
            self.unknown_decisions += decisions.len() as u64;
            return;
        }
        let Scratch { context_rows, batch, text_bytes, .. } = &*self.scratch;
        let is_full = batch.decisions.len() + decisions.len() > BATCH_DECISIONS_MAX
            || batch.calls.len() >= CALLS_MAX
            || context_rows.text_bytes() + text_bytes >= BATCH_TEXT_BYTES;
        if is_full {
            self.cut();
        }
        let Scratch { caller_rows, outcome_rows, context_rows, batch, text_bytes } = &mut *self.scratch;
        let caller = dense(caller_rows, call.caller, self.callers, &mut batch.callers);
        let context = context.map_or(Call::NO_CONTEXT, |context| context_rows.row(&mut batch.contexts, context));
        batch.calls.push(Call { caller, context, ..*call });
        let outcomes_before = batch.outcomes.len();
        let rows = decisions.iter().enumerate().map(|(at, row)| DecisionRow {
            outcome: dense(outcome_rows, row.outcome(), self.outcomes, &mut batch.outcomes),
            bucket: row.bucket(),
            count: counts.get(at).copied().unwrap_or(1),
        });
        batch.decisions.extend(rows);
        let added = &batch.outcomes[outcomes_before..];
        *text_bytes += added.iter().map(|outcome| outcome.flag_key.len() + outcome.value_json.len()).sum::<usize>();
    }

    fn cut(&mut self) {
        if !self.scratch.batch.calls.is_empty() {
            (self.emit)(&self.scratch.batch);
            self.scratch.start(self.callers.len(), self.outcomes.len());
        }
    }

    /// Hands the last batch on; returns the number of decisions that could not be placed in any.
    pub(super) fn finish(mut self) -> u64 {
        self.cut();
        self.unknown_decisions
    }
}

/// The row of entry `index` of `all` in the batch's dictionary, added if it is not there yet.
fn dense<T: Clone>(rows: &mut [u32], index: u32, all: &[T], dictionary: &mut Vec<T>) -> u32 {
    let row = &mut rows[index as usize];
    if *row == ABSENT {
        *row = dictionary.len() as u32;
        dictionary.push(all[index as usize].clone());
    }
    *row
}

/// The codec that suits a batch of this size.
pub(super) fn codec_for(batch: &Batch) -> Codec {
    let is_small = batch.decisions.len().max(batch.calls.len()) < PROTOBUF_DECISIONS_BELOW;
    if is_small { Codec::Protobuf } else { Codec::Short }
}
