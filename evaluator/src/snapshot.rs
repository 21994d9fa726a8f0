//! One environment's configuration, compiled, with all that a reply and a record need of it prepared.

use std::sync::Arc;

use flagmint_ingest::{EnvironmentIdentity, EnvironmentRecorder};
use flagmint_schemas::batch;
use flagmint_schemas::ids::{FlagId, RuleId, VariationId};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use crate::contexts::SeenContexts;
use crate::engine::{CompiledEnvironment, Decision, Outcome};
use crate::http::ofrep;

/// Stored configuration that cannot be read at all. (A single unreadable flag is compiled to serve its fallback.)
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Not JSON.
    #[error("the compiled configuration is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not the compiled form.
    #[error("the compiled configuration has no list `flags`")]
    Shape,
}

/// A compiled environment.
pub struct Snapshot {
    /// Whose it is.
    pub identity: EnvironmentIdentity,
    /// The configuration version.
    pub version: u64,
    /// Counts every change of the row it was loaded from, so that a change that is no publish is noticed too.
    pub revision: i64,
    /// Whether the organization's subscription lets it be evaluated.
    pub subscription_active: bool,
    /// The flags.
    pub compiled: CompiledEnvironment,
    /// Where its decisions go. A benchmark that measures what recording costs may leave it out; a server never does.
    pub recorder: Option<EnvironmentRecorder>,
    /// Contexts read lately.
    pub contexts: SeenContexts,
    /// Which flags have Analytics Tracking on: `{"key":bool,…}`.
    analytics: Arc<str>,
    /// Per outcome: `,"key":value`, ready for a reply.
    members: Box<[Box<str>]>,
    /// What OFREP serves of it.
    pub(crate) ofrep: ofrep::Prepared,
}

/// The compiled form, split into what the engine takes.
pub struct Configuration {
    /// `flags`.
    pub flags: Vec<Value>,
    /// `segments`.
    pub segments: Map<String, Value>,
    /// `metadata`: the scalar metadata of each flag that has some, by flag key. Not among the flags, whose members are fixed by
    /// clients that get the rules.
    pub metadata: Map<String, Value>,
}

impl Configuration {
    /// Reads the compiled form `{"flags":[…],"segments":{…},"metadata"?:{…}}`.
    ///
    /// # Errors
    /// If it is not JSON or has no flags.
    pub fn parse(text: &str) -> Result<Self, SnapshotError> {
        let Value::Object(mut members) = serde_json::from_str(text)? else { return Err(SnapshotError::Shape) };
        let Some(Value::Array(flags)) = members.swap_remove("flags") else { return Err(SnapshotError::Shape) };
        let mut map = |name| match members.swap_remove(name) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        Ok(Self { flags, segments: map("segments"), metadata: map("metadata") })
    }
}

/// Every outcome of a compiled environment as the log names it.
#[must_use]
pub fn recorded_outcomes(compiled: &CompiledEnvironment) -> Arc<[batch::Outcome]> {
    compiled.outcomes().iter().map(|outcome| recorded(compiled, outcome)).collect()
}

fn recorded(compiled: &CompiledEnvironment, outcome: &Outcome) -> batch::Outcome {
    let flag = &compiled.flags()[outcome.flag];
    batch::Outcome {
        flag: FlagId(id(flag.id())),
        flag_key: flag.key().to_owned(),
        variation: VariationId(id(outcome.variation_id.as_deref())),
        reason: outcome.reason,
        error_code: outcome.error_code,
        exit: Some(outcome.exit),
        rule: RuleId(id(outcome.rule_id.as_deref())),
        rollout: id(outcome.rollout_id.as_deref()),
        value_json: outcome.value_json.to_string(),
        analytics_enabled: flag.analytics_enabled(),
    }
}

/// Ids are UUIDs in stored configuration; anything else is recorded as none.
fn id(text: Option<&str>) -> Uuid {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Snapshot {
    /// Prepares replies for a compiled environment.
    #[must_use]
    pub fn new(
        identity: EnvironmentIdentity,
        version: u64,
        revision: i64,
        subscription_active: bool,
        compiled: CompiledEnvironment,
        recorder: Option<EnvironmentRecorder>,
    ) -> Self {
        let member = |outcome: &Outcome| {
            let key = Value::from(compiled.flags()[outcome.flag].key());
            format!(",{key}:{}", outcome.value_json).into_boxed_str()
        };
        let members = compiled.outcomes().iter().map(member).collect();
        let tracked = compiled.flags().iter().map(|flag| (flag.key().to_owned(), flag.analytics_enabled().into()));
        let analytics = Value::Object(tracked.collect()).to_string().into();
        let contexts = SeenContexts::default();
        let ofrep = ofrep::Prepared::new(&compiled, version, &Map::new());
        Self {
            identity,
            version,
            revision,
            subscription_active,
            compiled,
            recorder,
            contexts,
            analytics,
            members,
            ofrep,
        }
    }

    /// The same, for flags with metadata of their own ([`Configuration::metadata`]).
    #[must_use]
    pub fn with_metadata(self, metadata: &Map<String, Value>) -> Self {
        if metadata.is_empty() {
            return self;
        }
        Self { ofrep: ofrep::Prepared::new(&self.compiled, self.version, metadata), ..self }
    }

    /// Which flags have Analytics Tracking on: `{"key":bool,…}`.
    #[must_use]
    pub fn analytics(&self) -> &Arc<str> {
        &self.analytics
    }

    /// Appends the JSON object of all decided flags, in the order decided.
    pub fn write_values(&self, decisions: &[Decision], out: &mut Vec<u8>) {
        let length: usize = decisions.iter().map(|decision| self.member(decision).len()).sum();
        out.reserve(length + 2);
        let start = out.len();
        for decision in decisions {
            out.extend_from_slice(self.member(decision).as_bytes());
        }
        // Each member brings the comma before it; the first one's place is the brace's.
        match out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }

    fn member(&self, decision: &Decision) -> &str {
        &self.members[decision.outcome.0 as usize]
    }
}
