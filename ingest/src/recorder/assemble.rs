//! From buffers to batches: dense dictionaries of what the rows refer to, in batches of bounded size.
//!
//! The rows stay where requests put them: what they refer to is renumbered in place, and a batch is a stretch of a buffer. Copying them
//! together would push as much again out of the caches that requests live on.

use flagmint_schemas::batch::{BatchRows, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome};
use flagmint_schemas::limits::{BATCH_DECISIONS_MAX, PROTOBUF_DECISIONS_BELOW};

use super::contexts::ContextRows;
use super::environment::{Buffer, Row};
use crate::limits::{BATCH_CALLS_MAX, BATCH_TEXT_BYTES};

/// Not in the batch yet.
const ABSENT: u32 = u32::MAX;

/// Memory of batches being built, kept for the next ones.
#[derive(Default)]
pub(super) struct Scratch {
    caller_rows: Vec<u32>,
    outcome_rows: Vec<u32>,
    context_rows: ContextRows,
    callers: Vec<Caller>,
    outcomes: Vec<Outcome>,
    contexts: Vec<ObservedContext>,
    /// Bytes of texts in the dictionary of outcomes.
    text_bytes: usize,
}

impl Scratch {
    fn start(&mut self, callers: usize, outcomes: usize) {
        self.caller_rows.clear();
        self.caller_rows.resize(callers, ABSENT);
        self.outcome_rows.clear();
        self.outcome_rows.resize(outcomes, ABSENT);
        self.context_rows.clear();
        self.callers.clear();
        self.outcomes.clear();
        self.contexts.clear();
        self.text_bytes = 0;
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

/// A stretch of a buffer: the first call and the first decision.
#[derive(Clone, Copy, Default)]
struct Place {
    call: usize,
    decision: usize,
}

impl<'a, E: FnMut(&Assembled<'_>)> Assembler<'a, E> {
    pub(super) fn new(callers: &'a [Caller], outcomes: &'a [Outcome], scratch: &'a mut Scratch, emit: E) -> Self {
        scratch.start(callers.len(), outcomes.len());
        Self { callers, outcomes, emit, scratch, unknown_decisions: 0 }
    }

    /// Makes batches of the rows of a buffer, which it leaves in no state to be used but cleared.
    pub(super) fn add(&mut self, buffer: &mut Buffer) {
        let (mut start, mut end) = (Place::default(), Place::default());
        while end.call < buffer.calls.len() {
            let decisions = buffer.calls[end.call].decisions as usize;
            let next = Place { call: end.call + 1, decision: end.decision + decisions };
            if !self.is_known(buffer, end, next) {
                self.unknown_decisions += decisions as u64;
                self.cut(buffer, start, end);
                start = next;
            } else {
                if next.decision - start.decision > BATCH_DECISIONS_MAX || self.is_full(end.call - start.call) {
                    self.cut(buffer, start, end);
                    start = end;
                }
                self.renumber(buffer, end, next);
            }
            end = next;
        }
        self.cut(buffer, start, end);
    }

    fn is_full(&self, calls: usize) -> bool {
        let Scratch { context_rows, text_bytes, .. } = &*self.scratch;
        calls >= BATCH_CALLS_MAX || context_rows.text_bytes() + text_bytes >= BATCH_TEXT_BYTES
    }

    fn is_known(&self, buffer: &Buffer, at: Place, next: Place) -> bool {
        let outcomes = self.outcomes.len();
        (buffer.calls[at.call].caller as usize) < self.callers.len()
            && buffer.decisions[at.decision..next.decision].iter().all(|row| (row.outcome() as usize) < outcomes)
    }

    /// Puts what a call refers to into the batch's dictionaries, and their rows into the call.
    fn renumber(&mut self, buffer: &mut Buffer, at: Place, next: Place) {
        let Scratch { caller_rows, outcome_rows, context_rows, callers, outcomes, contexts, text_bytes } =
            &mut *self.scratch;
        let call = &mut buffer.calls[at.call];
        call.caller = dense(caller_rows, call.caller, self.callers, callers);
        let context = buffer.contexts[at.call].take();
        call.context = context.map_or(Call::NO_CONTEXT, |context| context_rows.row(contexts, context));
        let outcomes_before = outcomes.len();
        for row in &mut buffer.decisions[at.decision..next.decision] {
            row.set_outcome(dense(outcome_rows, row.outcome(), self.outcomes, outcomes));
        }
        let added = &outcomes[outcomes_before..];
        *text_bytes += added.iter().map(|outcome| outcome.flag_key.len() + outcome.value_json.len()).sum::<usize>();
    }

    /// Hands the batch of this stretch on, if there is any call in it.
    fn cut(&mut self, buffer: &Buffer, start: Place, end: Place) {
        if start.call == end.call {
            return;
        }
        let Scratch { callers, outcomes, contexts, .. } = &*self.scratch;
        let decisions = start.decision..end.decision;
        (self.emit)(&Assembled {
            callers,
            outcomes,
            contexts,
            calls: &buffer.calls[start.call..end.call],
            counts: buffer.counts.get(decisions.clone()).unwrap_or_default(),
            decisions: &buffer.decisions[decisions],
        });
        self.scratch.start(self.callers.len(), self.outcomes.len());
    }

    /// The number of decisions that could not be placed in any batch.
    pub(super) const fn unknown_decisions(&self) -> u64 {
        self.unknown_decisions
    }
}

/// A batch, where its rows are.
pub(super) struct Assembled<'a> {
    callers: &'a [Caller],
    outcomes: &'a [Outcome],
    contexts: &'a [ObservedContext],
    pub(super) calls: &'a [Call],
    pub(super) decisions: &'a [Row],
    /// Empty if each decision stands for one evaluation.
    counts: &'a [u32],
}

impl Assembled<'_> {
    /// The codec that suits a batch of this size.
    pub(super) fn codec(&self) -> Codec {
        let is_small = self.decisions.len().max(self.calls.len()) < PROTOBUF_DECISIONS_BELOW;
        if is_small { Codec::Protobuf } else { Codec::Short }
    }

    /// Appends the payload to `out`.
    pub(super) fn encode_to(&self, codec: Codec, out: &mut Vec<u8>) {
        let of = |row: &Row, count| DecisionRow { outcome: row.outcome(), bucket: row.bucket(), count };
        if self.counts.is_empty() {
            self.rows(self.decisions.iter().map(|row| of(row, 1))).encode_to(codec, out);
        } else {
            self.rows(self.decisions.iter().zip(self.counts).map(|(row, &count)| of(row, count))).encode_to(codec, out);
        }
    }

    fn rows<D>(&self, decisions: D) -> BatchRows<'_, D> {
        let &Self { callers, outcomes, contexts, calls, .. } = self;
        BatchRows { callers, outcomes, contexts, calls, decisions }
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
