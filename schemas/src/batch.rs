//! One log record: a batch of decisions of one environment.
//!
//! A batch is normalised: what repeats (who called, what was decided, for which context) stands once in a dictionary
//! of the batch, and the rows refer to it by index. The calls are in order of recording, and the decisions of call
//! `i` are the `calls[i].decisions` rows that follow those of call `i - 1`.

mod arrow_ipc;
mod codec;
mod column;
pub mod header;
mod keys;
mod packed;
mod protobuf;
mod rows;
mod table;
mod texts;
mod view;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use uuid::Uuid;

use crate::context_key::ContextKey;
use crate::decision::{ErrorCode, Exit, Reason, Transport, Trigger};
use crate::ids::{FlagId, KeyId, RuleId, VariationId};

pub use codec::CodecError;
pub use column::Texts;
pub use header::{BatchHeader, Codec, HeaderError};
pub use rows::BatchRows;
pub use table::{CallColumns, CallerColumns, ContextColumns, DecisionColumns, OutcomeColumns};
pub use texts::is_same;
pub use view::BatchView;

/// The rows of a batch. Equality is by content; codecs round-trip it exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Dictionary: who called and how.
    pub callers: Vec<Caller>,
    /// Dictionary: what was decided.
    pub outcomes: Vec<Outcome>,
    /// Dictionary: for which contexts, pseudonymised.
    pub contexts: Vec<ObservedContext>,
    /// One row per API call, connection push or client report.
    pub calls: Vec<Call>,
    /// One row per decision, grouped by call.
    pub decisions: Vec<DecisionRow>,
}

/// Who called and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The SDK key used, `NONE` for management writes.
    pub key: KeyId,
    /// The route the call took.
    pub transport: Transport,
    /// What caused the evaluation.
    pub trigger: Trigger,
    /// `custom.source` of the context as sent (`SDK`, `API`, …), empty if none.
    pub source: String,
    /// Name of the client library, empty if unknown.
    pub sdk_name: String,
    /// Version of the client library, empty if unknown.
    pub sdk_version: String,
    /// `browser`, `nodejs`, `php`, …; empty if unknown.
    pub platform: String,
    /// Wrapper around the client library, empty if unknown.
    pub wrapper: String,
}

/// What was decided: one of the finitely many results of a flag under one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The flag.
    pub flag: FlagId,
    /// The flag's key.
    pub flag_key: String,
    /// The variation recorded, or `NONE`.
    pub variation: VariationId,
    /// Why.
    pub reason: Reason,
    /// What went wrong, only with `Reason::Error`.
    pub error_code: Option<ErrorCode>,
    /// The branch that decided; absent for client reports.
    pub exit: Option<Exit>,
    /// The rule that matched, or `NONE`.
    pub rule: RuleId,
    /// The rollout applied, nil if none.
    pub rollout: Uuid,
    /// The value served, as JSON text.
    pub value_json: String,
    /// Whether the flag had Analytics Tracking on when it was decided.
    pub analytics_enabled: bool,
}

/// A context as it may be logged: keys and private values are pseudonyms already.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObservedContext {
    /// `user`, `organization`, `multi`, or empty.
    pub kind: Cow<'static, str>,
    /// The pseudonymised (or, by opt-in, raw) key.
    pub key: ContextKey,
    /// 64-bit hash of the user key for unique users (keyed, so not reversible); 0 means no user key.
    pub user_hash: u64,
    /// `None` if this batch says nothing of them: a client's report knows a key alone, and a recorder tells them once in
    /// [`ATTRIBUTES_INTERVAL_US`](crate::limits::ATTRIBUTES_INTERVAL_US). Shared, as recorders keep them.
    pub attributes: Option<Arc<Attributes>>,
}

/// Attributes of a context that may be logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// A JSON object.
    pub json: String,
    /// How many attributes were left out beyond the cap.
    pub omitted: u32,
}

impl Attributes {
    /// As columns have them: an empty text with nothing omitted says nothing.
    #[must_use]
    pub fn told(json: impl Into<String>, omitted: u32) -> Option<Arc<Self>> {
        let json = json.into();
        (!json.is_empty() || omitted > 0).then(|| Arc::new(Self { json, omitted }))
    }
}

impl ObservedContext {
    /// The attributes as a JSON object; empty if they are not told.
    #[must_use]
    pub fn attributes_json(&self) -> &str {
        self.attributes.as_ref().map_or("", |attributes| &attributes.json)
    }

    /// How many attributes were left out beyond the cap.
    #[must_use]
    pub fn attributes_omitted(&self) -> u32 {
        self.attributes.as_ref().map_or(0, |attributes| attributes.omitted)
    }
}

/// One API call, connection push or client report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The same for all decisions of one call.
    pub call_id: u128,
    /// When the request was received, microseconds since the Unix epoch.
    pub event_time_us: i64,
    /// From request received to reply handed to the network, microseconds.
    pub latency_us: u32,
    /// Time spent in the evaluator for the whole call, nanoseconds.
    pub evaluation_ns: u32,
    /// The environment's configuration version used.
    pub config_version: u64,
    /// Index into `Batch::callers`.
    pub caller: u32,
    /// Index into `Batch::contexts`, or [`Call::NO_CONTEXT`].
    pub context: u32,
    /// How many rows of `Batch::decisions` belong to this call; may be 0.
    pub decisions: u32,
    /// API calls to bill: 1 or 0 (data-plane.md 10.1).
    pub api_calls: u32,
    /// Connections opened.
    pub connections: u32,
    /// Custom and error events accepted.
    pub track_events: u32,
    /// Why the call got no decision, if it failed before evaluation.
    pub error_code: Option<ErrorCode>,
    /// False if the client reports its evaluations itself: its served decisions are then not counted in analytics.
    pub counted: bool,
}

impl Call {
    /// Stands in `context` for a call without a context.
    pub const NO_CONTEXT: u32 = u32::MAX;
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// Index into `Batch::outcomes`.
    pub outcome: u32,
    /// The bucket computed, 0 to 99, or [`DecisionRow::NO_BUCKET`].
    pub bucket: u8,
    /// How many evaluations this row stands for: 1 when served, maybe more in a client's report.
    pub count: u32,
}

impl DecisionRow {
    /// Stands in `bucket` for "none computed".
    pub const NO_BUCKET: u8 = u8::MAX;
}
