//! A decoded batch as columns: what the fold reads. The dictionary of callers, which is small and looked at field by
//! field, is rows; the rest are slices of the payload.

use uuid::Uuid;

use super::table::{CallColumns, CallerColumns, ContextColumns, DecisionColumns, OutcomeColumns};
use super::{Attributes, Batch, BatchHeader, Call, Caller, CodecError, DecisionRow, ObservedContext, Outcome};
use crate::decision::{ErrorCode, Exit, Reason, Transport, Trigger};
use crate::ids::{FlagId, KeyId, RuleId, VariationId};

/// A batch whose indexes, codes and counts have all been checked.
#[derive(Clone, Debug)]
pub struct BatchView {
    callers: Vec<Caller>,
    outcomes: OutcomeColumns,
    contexts: ContextColumns,
    calls: CallColumns,
    decisions: DecisionColumns,
}

impl BatchView {
    /// Dictionary: who called and how.
    #[must_use]
    pub fn callers(&self) -> &[Caller] {
        &self.callers
    }

    /// Dictionary: what was decided; every code is known.
    #[must_use]
    pub const fn outcomes(&self) -> &OutcomeColumns {
        &self.outcomes
    }

    /// Dictionary: for which contexts.
    #[must_use]
    pub const fn contexts(&self) -> &ContextColumns {
        &self.contexts
    }

    /// The calls; every `caller` and `context` is in range, `decisions` adds up to the rows of [`Self::decisions`].
    #[must_use]
    pub const fn calls(&self) -> &CallColumns {
        &self.calls
    }

    /// The decisions; every `outcome` is in range, every `bucket` is below 100 or none.
    #[must_use]
    pub const fn decisions(&self) -> &DecisionColumns {
        &self.decisions
    }

    /// Row `row` of [`Self::outcomes`].
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn outcome(&self, row: usize) -> Outcome {
        let columns = &self.outcomes;
        Outcome {
            flag: FlagId(Uuid::from_bytes(columns.flag()[row])),
            flag_key: columns.flag_key().get(row).to_owned(),
            variation: VariationId(Uuid::from_bytes(columns.variation()[row])),
            reason: Reason::from_code(columns.reason()[row]).expect("checked when decoded"),
            error_code: ErrorCode::from_code(columns.error_code()[row]),
            exit: Exit::from_code(columns.exit()[row]),
            rule: RuleId(Uuid::from_bytes(columns.rule()[row])),
            rollout: Uuid::from_bytes(columns.rollout()[row]),
            value_json: columns.value_json().get(row).to_owned(),
            analytics_enabled: columns.analytics_enabled()[row] == 1,
        }
    }

    /// Row `row` of [`Self::contexts`].
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn context(&self, row: usize) -> ObservedContext {
        let columns = &self.contexts;
        ObservedContext {
            kind: columns.kind().get(row).to_owned().into(),
            key: columns.key()[row].clone(),
            user_hash: columns.user_hash()[row],
            attributes: Attributes::told(columns.attributes_json().get(row), columns.attributes_omitted()[row]),
        }
    }

    /// Row `row` of [`Self::calls`].
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn call(&self, row: usize) -> Call {
        let columns = &self.calls;
        Call {
            call_id: u128::from_be_bytes(columns.call_id()[row]),
            event_time_us: columns.event_time_us()[row],
            latency_us: columns.latency_us()[row],
            evaluation_ns: columns.evaluation_ns()[row],
            config_version: columns.config_version()[row],
            caller: columns.caller()[row],
            context: columns.context()[row],
            decisions: columns.decisions()[row],
            api_calls: columns.api_calls()[row],
            connections: columns.connections()[row],
            track_events: columns.track_events()[row],
            error_code: ErrorCode::from_code(columns.error_code()[row]),
            counted: columns.counted()[row] == 1,
        }
    }

    /// The same as rows.
    #[must_use]
    pub fn to_batch(&self) -> Batch {
        let columns = &self.decisions;
        let decisions = columns.outcome().iter().zip(columns.bucket()).zip(columns.count());
        Batch {
            callers: self.callers.clone(),
            outcomes: (0..self.outcomes.len()).map(|row| self.outcome(row)).collect(),
            contexts: (0..self.contexts.len()).map(|row| self.context(row)).collect(),
            calls: (0..self.calls.len()).map(|row| self.call(row)).collect(),
            decisions: decisions.map(|((&outcome, &bucket), &count)| DecisionRow { outcome, bucket, count }).collect(),
        }
    }

    pub(super) fn from_batch(batch: &Batch) -> Self {
        Self {
            callers: batch.callers.clone(),
            outcomes: OutcomeColumns::from_rows(&batch.outcomes),
            contexts: ContextColumns::from_rows(&batch.contexts),
            calls: CallColumns::from_rows(&batch.calls),
            decisions: DecisionColumns::from_rows(&batch.decisions),
        }
    }

    pub(super) fn from_tables(
        callers: &CallerColumns,
        outcomes: OutcomeColumns,
        contexts: ContextColumns,
        calls: CallColumns,
        decisions: DecisionColumns,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            callers: (0..callers.len()).map(|row| caller(callers, row)).collect::<Result<_, _>>()?,
            outcomes,
            contexts,
            calls,
            decisions,
        })
    }

    /// Checks what the types cannot express: every index, code and count.
    pub(super) fn check(&self, header: &BatchHeader) -> Result<(), CodecError> {
        let require = |is_met: bool, rule| if is_met { Ok(()) } else { Err(CodecError::Inconsistent(rule)) };
        let below = |values: &[u32], end: usize| values.iter().fold(true, |all, &value| all & ((value as usize) < end));
        let (outcomes, calls, decisions) = (&self.outcomes, &self.calls, &self.decisions);
        (0..outcomes.len()).try_for_each(|row| check_outcome(outcomes, row))?;
        require(calls.len() == header.calls as usize, "number of calls differs from the header")?;
        require(decisions.len() == header.decisions as usize, "number of decisions differs from the header")?;
        let sum: u64 = calls.decisions().iter().map(|&count| u64::from(count)).sum();
        require(sum == decisions.len() as u64, "decisions of the calls do not add up")?;
        require(below(calls.caller(), self.callers.len()), "caller out of range")?;
        let contexts = self.contexts.len();
        let is_context = |&row: &u32| row == Call::NO_CONTEXT || (row as usize) < contexts;
        require(calls.context().iter().all(is_context), "context out of range")?;
        require(below(decisions.outcome(), self.outcomes.len()), "outcome out of range")?;
        let is_bucket = |bucket: u8| (bucket < 100) | (bucket == DecisionRow::NO_BUCKET);
        require(decisions.bucket().iter().fold(true, |all, &it| all & is_bucket(it)), "bucket out of range")?;
        let is_error = |&code: &u8| code == 0 || ErrorCode::from_code(code).is_some();
        require(calls.error_code().iter().all(is_error), "error code of a call is not known")?;
        require(calls.counted().iter().all(|&flag| flag <= 1), "counted is neither 0 nor 1")
    }
}

/// A code that must be known.
fn known<T>(value: Option<T>) -> Result<T, CodecError> {
    value.ok_or(CodecError::Inconsistent("a code of a dictionary is not known"))
}

/// A code where 0 stands for none.
pub(super) fn optional<T>(code: u8, member: impl FnOnce(u8) -> Option<T>) -> Result<Option<T>, CodecError> {
    if code == 0 { Ok(None) } else { known(member(code)).map(Some) }
}

pub(super) fn caller_codes(transport: u8, trigger: u8) -> Result<(Transport, Trigger), CodecError> {
    Ok((known(Transport::from_code(transport))?, known(Trigger::from_code(trigger))?))
}

pub(super) fn reason(code: u8) -> Result<Reason, CodecError> {
    known(Reason::from_code(code))
}

pub(super) fn truth(flag: u8) -> Result<bool, CodecError> {
    known(match flag {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    })
}

fn check_outcome(columns: &OutcomeColumns, row: usize) -> Result<(), CodecError> {
    reason(columns.reason()[row])?;
    optional(columns.error_code()[row], ErrorCode::from_code)?;
    optional(columns.exit()[row], Exit::from_code)?;
    truth(columns.analytics_enabled()[row]).map(drop)
}

fn caller(columns: &CallerColumns, row: usize) -> Result<Caller, CodecError> {
    let (transport, trigger) = caller_codes(columns.transport()[row], columns.trigger()[row])?;
    Ok(Caller {
        key: KeyId(Uuid::from_bytes(columns.key()[row])),
        transport,
        trigger,
        source: columns.source().get(row).to_owned(),
        sdk_name: columns.sdk_name().get(row).to_owned(),
        sdk_version: columns.sdk_version().get(row).to_owned(),
        platform: columns.platform().get(row).to_owned(),
        wrapper: columns.wrapper().get(row).to_owned(),
    })
}
