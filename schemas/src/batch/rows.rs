//! A batch whose rows stand in somebody else's memory: what a recorder writes, without copying its rows together first.

use super::packed::{self, Form};
use super::{Batch, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome};

/// The rows of a batch, as in [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct BatchRows<'a, D> {
    /// Dictionary: who called and how.
    pub callers: &'a [Caller],
    /// Dictionary: what was decided.
    pub outcomes: &'a [Outcome],
    /// Dictionary: for which contexts.
    pub contexts: &'a [ObservedContext],
    /// One row per call.
    pub calls: &'a [Call],
    /// One row per decision, grouped by call; gone through more than once.
    pub decisions: D,
}

impl<D: ExactSizeIterator<Item = DecisionRow> + Clone> BatchRows<'_, D> {
    /// Appends the payload to `out`, whose memory may be used again and again.
    ///
    /// # Panics
    /// As [`Batch::encode`].
    pub fn encode_to(&self, codec: Codec, out: &mut Vec<u8>) {
        match codec {
            Codec::Packed => packed::encode(self, Form::Full, out),
            Codec::Short => packed::encode(self, Form::Short, out),
            Codec::Arrow | Codec::Protobuf => self.to_batch().encode_to(codec, out),
        }
    }

    fn to_batch(&self) -> Batch {
        Batch {
            callers: self.callers.to_vec(),
            outcomes: self.outcomes.to_vec(),
            contexts: self.contexts.to_vec(),
            calls: self.calls.to_vec(),
            decisions: self.decisions.clone().collect(),
        }
    }
}

impl Batch {
    /// The rows, where they are.
    pub(super) fn rows(&self) -> BatchRows<'_, impl ExactSizeIterator<Item = DecisionRow> + Clone> {
        let Self { callers, outcomes, contexts, calls, decisions } = self;
        BatchRows { callers, outcomes, contexts, calls, decisions: decisions.iter().copied() }
    }
}
