//! One environment's configuration, compiled, with all that a reply and a record need of it prepared.

use std::sync::{Arc, OnceLock};

use flagmint_ingest::{EnvironmentIdentity, EnvironmentRecorder};
use flagmint_schemas::batch;
use flagmint_schemas::decision::{Exit, Reason};
use flagmint_schemas::ids::{FlagId, RuleId, VariationId};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use crate::config_sync::payload::FullConfig;
use crate::contexts::SeenContexts;
use crate::engine::{CompiledEnvironment, CompiledFlag, Decision, Outcome, json_text};
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
    pub contexts: Arc<SeenContexts>,
    /// Which flags have Analytics Tracking on: `{"key":bool,…}`.
    analytics: Arc<str>,
    /// The compiled form as stored, for clients that evaluate by themselves.
    stored: Box<str>,
    full_config: OnceLock<Option<FullConfig>>,
    /// Per flag: where its reported outcomes begin among the recorded ones.
    reports: Box<[u32]>,
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

/// Every outcome of a compiled environment as the log names it, then those that clients report: per flag one for each variation
/// that can be told by its value, and one for any other value.
#[must_use]
pub fn recorded_outcomes(compiled: &CompiledEnvironment) -> Arc<[batch::Outcome]> {
    let decided = compiled.outcomes().iter().map(|outcome| recorded(compiled, outcome));
    decided.chain(compiled.flags().iter().flat_map(reported)).collect()
}

fn reported(flag: &CompiledFlag) -> impl Iterator<Item = batch::Outcome> {
    let outcome = |variation: Option<&str>, value_json: String| batch::Outcome {
        flag: FlagId(id(flag.id())),
        flag_key: flag.key().to_owned(),
        variation: VariationId(id(variation)),
        reason: Reason::Unknown,
        error_code: None,
        exit: None,
        rule: RuleId::NONE,
        rollout: Uuid::nil(),
        value_json,
        analytics_enabled: flag.analytics_enabled(),
    };
    let known = flag.variations_by_value().iter().map(move |(id, value)| outcome(Some(id), json_text(value)));
    known.chain(std::iter::once_with(move || outcome(None, "null".to_owned())))
}

/// Per flag: where its reported outcomes begin in [`recorded_outcomes`].
fn first_reports(compiled: &CompiledEnvironment) -> Box<[u32]> {
    let mut next = compiled.outcomes().len();
    let first = |flag: &CompiledFlag| {
        let first = u32::try_from(next).expect("a configuration has far fewer than 2^32 variations");
        next += flag.variations_by_value().len() + 1;
        first
    };
    compiled.flags().iter().map(first).collect()
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
        let ofrep = ofrep::Prepared::new(&compiled, version, &Map::new());
        Self {
            identity,
            version,
            revision,
            subscription_active,
            reports: first_reports(&compiled),
            compiled,
            recorder,
            contexts: Arc::default(),
            analytics,
            stored: Box::default(),
            full_config: OnceLock::new(),
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

    /// Goes on with the contexts that were read under the one before, unless something else may be logged of them now. Reading thousands again, and
    /// forgetting them, would stand in front of requests with each publish.
    #[must_use]
    pub fn with_contexts_of(mut self, before: &Self) -> Self {
        let is_alike = match (&self.recorder, &before.recorder) {
            (Some(own), Some(before)) => own.observes_like(before),
            (own, before) => own.is_none() && before.is_none(),
        };
        if is_alike {
            self.contexts = Arc::clone(&before.contexts);
            self.ofrep.contexts = Arc::clone(&before.ofrep.contexts);
        }
        self
    }

    /// Which flags have Analytics Tracking on: `{"key":bool,…}`.
    #[must_use]
    pub fn analytics(&self) -> &Arc<str> {
        &self.analytics
    }

    /// Keeps the compiled form as it is stored, from which [`Self::full_config`] is made.
    #[must_use]
    pub fn with_stored(mut self, compiled: String) -> Self {
        self.stored = compiled.into();
        self
    }

    /// The whole configuration for clients that evaluate by themselves, prepared when first asked for; `None` if what is stored
    /// cannot be read.
    pub fn full_config(&self) -> Option<&FullConfig> {
        let prepare = || {
            let Configuration { flags, segments, .. } = Configuration::parse(&self.stored).ok()?;
            Some(FullConfig::new(self.version, self.revision / 1000, &flags, &segments, self.warnings()))
        };
        self.full_config.get_or_init(prepare).as_ref()
    }

    /// The recorded outcome of a client's report about a flag, given by its position, that gave it this value.
    #[must_use]
    pub fn reported_outcome(&self, flag: usize, value: Option<&Value>) -> u32 {
        let flags = self.compiled.flags();
        let known = value.and_then(|value| flags[flag].variation_of(value));
        let place = known.unwrap_or(flags[flag].variations_by_value().len());
        self.reports[flag] + place as u32
    }

    /// What people should know of the configuration: flags that cannot be read.
    fn warnings(&self) -> Vec<String> {
        let unreadable = self.compiled.outcomes().iter().filter(|outcome| outcome.exit == Exit::Exception);
        let key = |outcome: &Outcome| self.compiled.flags()[outcome.flag].key();
        unreadable.map(|outcome| format!("flag {:?} cannot be read and serves its fallback", key(outcome))).collect()
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
