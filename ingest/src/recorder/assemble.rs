//! From buffers to batches: dense dictionaries of what the rows refer to, in batches of bounded size.

use std::sync::Arc;

use flagmint_schemas::batch::{Batch, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome};
use flagmint_schemas::limits::{BATCH_DECISIONS_MAX, PROTOBUF_DECISIONS_BELOW};

use hashbrown::HashMap;

use super::environment::Buffer;
use crate::limits::BATCH_TEXT_BYTES;

/// Calls in one batch at most; like decisions, so that calls without decisions do not make a giant.
const CALLS_MAX: usize = BATCH_DECISIONS_MAX;

/// Not in the batch yet.
const ABSENT: u32 = u32::MAX;

/// Builds the batches of one flush of one environment.
pub(super) struct Assembler<'a> {
    callers: &'a [Caller],
    outcomes: &'a [Outcome],
    caller_rows: Vec<u32>,
    outcome_rows: Vec<u32>,
    context_rows: HashMap<*const ObservedContext, u32>,
    batch: Batch,
    /// Bytes of texts in the batch's dictionaries.
    text_bytes: usize,
    full: Vec<Batch>,
    /// Decisions of calls that refer to nothing we know.
    unknown_decisions: u64,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(callers: &'a [Caller], outcomes: &'a [Outcome]) -> Self {
        Self {
            callers,
            outcomes,
            caller_rows: vec![ABSENT; callers.len()],
            outcome_rows: vec![ABSENT; outcomes.len()],
            context_rows: HashMap::new(),
            batch: Batch::default(),
            text_bytes: 0,
            full: Vec::new(),
            unknown_decisions: 0,
        }
    }

    /// Takes the rows of a buffer in.
    pub(super) fn add(&mut self, buffer: &Buffer) {
        let mut rest = &buffer.decisions[..];
        for (call, context) in buffer.calls.iter().zip(&buffer.contexts) {
            let (decisions, after) = rest.split_at(call.decisions as usize);
            rest = after;
            self.add_call(call, context.as_ref(), decisions);
        }
    }

    fn add_call(&mut self, call: &Call, context: Option<&Arc<ObservedContext>>, decisions: &[DecisionRow]) {
        let is_known = |row: &DecisionRow| (row.outcome as usize) < self.outcomes.len();
        if call.caller as usize >= self.callers.len() || !decisions.iter().all(is_known) {
            self.unknown_decisions += decisions.len() as u64;
            return;
        }
        let is_full = self.batch.decisions.len() + decisions.len() > BATCH_DECISIONS_MAX
            || self.batch.calls.len() >= CALLS_MAX
            || self.text_bytes >= BATCH_TEXT_BYTES;
        if is_full {
            self.cut();
        }
        let caller = dense(&mut self.caller_rows, call.caller, self.callers, &mut self.batch.callers);
        let context = context.map_or(Call::NO_CONTEXT, |context| self.context(context));
        self.batch.calls.push(Call { caller, context, ..*call });
        for row in decisions {
            let outcomes_before = self.batch.outcomes.len();
            let outcome = dense(&mut self.outcome_rows, row.outcome, self.outcomes, &mut self.batch.outcomes);
            if let Some(added) = self.batch.outcomes.get(outcomes_before) {
                self.text_bytes += added.flag_key.len() + added.value_json.len();
            }
            self.batch.decisions.push(DecisionRow { outcome, ..*row });
        }
    }

    fn context(&mut self, context: &Arc<ObservedContext>) -> u32 {
        let (contexts, text_bytes) = (&mut self.batch.contexts, &mut self.text_bytes);
        *self.context_rows.entry(Arc::as_ptr(context)).or_insert_with(|| {
            *text_bytes += context.key.len() + context.attributes_json.len();
            contexts.push(Arc::clone(context));
            contexts.len() as u32 - 1
        })
    }

    fn cut(&mut self) {
        if self.batch.calls.is_empty() {
            return;
        }
        self.full.push(std::mem::take(&mut self.batch));
        self.caller_rows.fill(ABSENT);
        self.outcome_rows.fill(ABSENT);
        self.context_rows.clear();
        self.text_bytes = 0;
    }

    /// The batches, and the number of decisions that could not be placed in any.
    pub(super) fn finish(mut self) -> (Vec<Batch>, u64) {
        self.cut();
        (self.full, self.unknown_decisions)
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
    if is_small { Codec::Protobuf } else { Codec::Arrow }
}
