//! Codec 2: protobuf rows, for batches so small that the fixed part of Arrow messages would outweigh them.
//!
//! `schemas/proto/batch.proto` describes the same messages for readers in other languages; a test keeps them equal.
//! Ids are two fixed64 (high and low half), codes and indexes are plain numbers, fields at their default are left out.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use uuid::Uuid;

use super::view::{caller_codes, optional, reason};
use super::{Attributes, Batch, Call, Caller, CodecError, DecisionRow, ObservedContext, Outcome};
use crate::context_key::ContextKey;
use crate::decision::{ErrorCode, Exit};
use crate::ids::{FlagId, KeyId, RuleId, VariationId};
use crate::limits;

/// Fields of [`BatchMessage`].
const TABLES: usize = 5;

#[derive(Clone, PartialEq, Message)]
struct BatchMessage {
    #[prost(message, repeated, tag = "1")]
    callers: Vec<CallerMessage>,
    #[prost(message, repeated, tag = "2")]
    outcomes: Vec<OutcomeMessage>,
    #[prost(message, repeated, tag = "3")]
    contexts: Vec<ContextMessage>,
    #[prost(message, repeated, tag = "4")]
    calls: Vec<CallMessage>,
    #[prost(message, repeated, tag = "5")]
    decisions: Vec<DecisionMessage>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct IdMessage {
    #[prost(fixed64, tag = "1")]
    high: u64,
    #[prost(fixed64, tag = "2")]
    low: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CallerMessage {
    #[prost(message, optional, tag = "1")]
    key: Option<IdMessage>,
    #[prost(uint32, tag = "2")]
    transport: u32,
    #[prost(uint32, tag = "3")]
    trigger: u32,
    #[prost(string, tag = "4")]
    source: String,
    #[prost(string, tag = "5")]
    sdk_name: String,
    #[prost(string, tag = "6")]
    sdk_version: String,
    #[prost(string, tag = "7")]
    platform: String,
    #[prost(string, tag = "8")]
    wrapper: String,
}

#[derive(Clone, PartialEq, Message)]
struct OutcomeMessage {
    #[prost(message, optional, tag = "1")]
    flag: Option<IdMessage>,
    #[prost(string, tag = "2")]
    flag_key: String,
    #[prost(message, optional, tag = "3")]
    variation: Option<IdMessage>,
    #[prost(uint32, tag = "4")]
    reason: u32,
    #[prost(uint32, tag = "5")]
    error_code: u32,
    #[prost(uint32, tag = "6")]
    exit: u32,
    #[prost(message, optional, tag = "7")]
    rule: Option<IdMessage>,
    #[prost(message, optional, tag = "8")]
    rollout: Option<IdMessage>,
    #[prost(string, tag = "9")]
    value_json: String,
    #[prost(bool, tag = "10")]
    analytics_enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ContextMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(fixed64, tag = "3")]
    user_hash: u64,
    #[prost(string, tag = "4")]
    attributes_json: String,
    #[prost(uint32, tag = "5")]
    attributes_omitted: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct CallMessage {
    #[prost(message, optional, tag = "1")]
    call_id: Option<IdMessage>,
    #[prost(sint64, tag = "2")]
    event_time_us: i64,
    #[prost(uint32, tag = "3")]
    latency_us: u32,
    #[prost(uint32, tag = "4")]
    evaluation_ns: u32,
    #[prost(uint64, tag = "5")]
    config_version: u64,
    #[prost(uint32, tag = "6")]
    caller: u32,
    #[prost(uint32, optional, tag = "7")]
    context: Option<u32>,
    #[prost(uint32, tag = "8")]
    decisions: u32,
    #[prost(uint32, tag = "9")]
    api_calls: u32,
    #[prost(uint32, tag = "10")]
    connections: u32,
    #[prost(uint32, tag = "11")]
    track_events: u32,
    #[prost(uint32, tag = "12")]
    error_code: u32,
    #[prost(bool, tag = "13")]
    counted: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct DecisionMessage {
    #[prost(uint32, tag = "1")]
    outcome: u32,
    #[prost(uint32, optional, tag = "2")]
    bucket: Option<u32>,
    #[prost(uint32, tag = "3")]
    count: u32,
}

pub(super) fn encode(batch: &Batch, out: &mut Vec<u8>) {
    let message = BatchMessage {
        callers: batch.callers.iter().map(CallerMessage::from).collect(),
        outcomes: batch.outcomes.iter().map(OutcomeMessage::from).collect(),
        contexts: batch.contexts.iter().map(ContextMessage::from).collect(),
        calls: batch.calls.iter().map(CallMessage::from).collect(),
        decisions: batch.decisions.iter().map(DecisionMessage::from).collect(),
    };
    message.encode(out).expect("a vector grows");
}

pub(super) fn decode(payload: &[u8]) -> Result<Batch, CodecError> {
    check_rows(payload)?;
    let message = BatchMessage::decode(payload).map_err(|error| CodecError::malformed("a row", error.to_string()))?;
    Ok(Batch {
        callers: message.callers.into_iter().map(Caller::try_from).collect::<Result<_, _>>()?,
        outcomes: message.outcomes.into_iter().map(Outcome::try_from).collect::<Result<_, _>>()?,
        contexts: message.contexts.into_iter().map(ObservedContext::from).collect(),
        calls: message.calls.into_iter().map(Call::try_from).collect::<Result<_, _>>()?,
        decisions: message.decisions.into_iter().map(DecisionRow::try_from).collect::<Result<_, _>>()?,
    })
}

/// Refuses payloads that would take far more memory than they have bytes.
fn check_rows(mut payload: &[u8]) -> Result<(), CodecError> {
    let mut rows = [0_usize; TABLES + 1];
    let malformed = |error: prost::DecodeError| CodecError::malformed("the list of rows", error.to_string());
    while payload.has_remaining() {
        let (tag, wire_type) = decode_key(&mut payload).map_err(malformed)?;
        skip_field(wire_type, tag, &mut payload, DecodeContext::default()).map_err(malformed)?;
        let table = &mut rows[usize::try_from(tag).map_or(0, |tag| if tag <= TABLES { tag } else { 0 })];
        *table += 1;
        if *table > limits::PROTOBUF_ROWS_MAX {
            return Err(CodecError::Inconsistent("more rows than a protobuf batch may have"));
        }
    }
    Ok(())
}

impl IdMessage {
    /// Absent for the nil id.
    fn of(id: Uuid) -> Option<Self> {
        let (high, low) = id.as_u64_pair();
        (!id.is_nil()).then_some(Self { high, low })
    }

    fn id(this: Option<Self>) -> Uuid {
        this.map_or_else(Uuid::nil, |id| Uuid::from_u64_pair(id.high, id.low))
    }
}

/// A number that the schema keeps in one byte.
fn byte(number: u32) -> Result<u8, CodecError> {
    u8::try_from(number).map_err(|_| CodecError::Inconsistent("a code does not fit a byte"))
}

impl From<&Caller> for CallerMessage {
    fn from(row: &Caller) -> Self {
        Self {
            key: IdMessage::of(row.key.0),
            transport: row.transport.code().into(),
            trigger: row.trigger.code().into(),
            source: row.source.clone(),
            sdk_name: row.sdk_name.clone(),
            sdk_version: row.sdk_version.clone(),
            platform: row.platform.clone(),
            wrapper: row.wrapper.clone(),
        }
    }
}

impl TryFrom<CallerMessage> for Caller {
    type Error = CodecError;

    fn try_from(row: CallerMessage) -> Result<Self, CodecError> {
        let (transport, trigger) = caller_codes(byte(row.transport)?, byte(row.trigger)?)?;
        Ok(Self {
            key: KeyId(IdMessage::id(row.key)),
            transport,
            trigger,
            source: row.source,
            sdk_name: row.sdk_name,
            sdk_version: row.sdk_version,
            platform: row.platform,
            wrapper: row.wrapper,
        })
    }
}

impl From<&Outcome> for OutcomeMessage {
    fn from(row: &Outcome) -> Self {
        Self {
            flag: IdMessage::of(row.flag.0),
            flag_key: row.flag_key.clone(),
            variation: IdMessage::of(row.variation.0),
            reason: row.reason.code().into(),
            error_code: row.error_code.map_or(0, |code| code.code().into()),
            exit: row.exit.map_or(0, |exit| exit.code().into()),
            rule: IdMessage::of(row.rule.0),
            rollout: IdMessage::of(row.rollout),
            value_json: row.value_json.clone(),
            analytics_enabled: row.analytics_enabled,
        }
    }
}

impl TryFrom<OutcomeMessage> for Outcome {
    type Error = CodecError;

    fn try_from(row: OutcomeMessage) -> Result<Self, CodecError> {
        Ok(Self {
            flag: FlagId(IdMessage::id(row.flag)),
            flag_key: row.flag_key,
            variation: VariationId(IdMessage::id(row.variation)),
            reason: reason(byte(row.reason)?)?,
            error_code: optional(byte(row.error_code)?, ErrorCode::from_code)?,
            exit: optional(byte(row.exit)?, Exit::from_code)?,
            rule: RuleId(IdMessage::id(row.rule)),
            rollout: IdMessage::id(row.rollout),
            value_json: row.value_json,
            analytics_enabled: row.analytics_enabled,
        })
    }
}

impl From<&ObservedContext> for ContextMessage {
    fn from(row: &ObservedContext) -> Self {
        Self {
            kind: row.kind.to_string(),
            key: row.key.to_string(),
            user_hash: row.user_hash,
            attributes_json: row.attributes_json().to_owned(),
            attributes_omitted: row.attributes_omitted(),
        }
    }
}

impl From<ContextMessage> for ObservedContext {
    fn from(row: ContextMessage) -> Self {
        Self {
            kind: row.kind.into(),
            key: ContextKey::of(&row.key),
            user_hash: row.user_hash,
            attributes: Attributes::told(row.attributes_json, row.attributes_omitted),
        }
    }
}

impl From<&Call> for CallMessage {
    fn from(row: &Call) -> Self {
        Self {
            call_id: IdMessage::of(Uuid::from_u128(row.call_id)),
            event_time_us: row.event_time_us,
            latency_us: row.latency_us,
            evaluation_ns: row.evaluation_ns,
            config_version: row.config_version,
            caller: row.caller,
            context: (row.context != Call::NO_CONTEXT).then_some(row.context),
            decisions: row.decisions,
            api_calls: row.api_calls,
            connections: row.connections,
            track_events: row.track_events,
            error_code: row.error_code.map_or(0, |code| code.code().into()),
            counted: row.counted,
        }
    }
}

impl TryFrom<CallMessage> for Call {
    type Error = CodecError;

    fn try_from(row: CallMessage) -> Result<Self, CodecError> {
        Ok(Self {
            call_id: IdMessage::id(row.call_id).as_u128(),
            event_time_us: row.event_time_us,
            latency_us: row.latency_us,
            evaluation_ns: row.evaluation_ns,
            config_version: row.config_version,
            caller: row.caller,
            context: row.context.unwrap_or(Self::NO_CONTEXT),
            decisions: row.decisions,
            api_calls: row.api_calls,
            connections: row.connections,
            track_events: row.track_events,
            error_code: optional(byte(row.error_code)?, ErrorCode::from_code)?,
            counted: row.counted,
        })
    }
}

impl From<&DecisionRow> for DecisionMessage {
    fn from(row: &DecisionRow) -> Self {
        let bucket = (row.bucket != DecisionRow::NO_BUCKET).then_some(row.bucket.into());
        Self { outcome: row.outcome, bucket, count: row.count }
    }
}

impl TryFrom<DecisionMessage> for DecisionRow {
    type Error = CodecError;

    fn try_from(row: DecisionMessage) -> Result<Self, CodecError> {
        let bucket = row.bucket.map_or(Ok(Self::NO_BUCKET), byte)?;
        Ok(Self { outcome: row.outcome, bucket, count: row.count })
    }
}
