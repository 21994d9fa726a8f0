//! What OFREP needs of a configuration, prepared once when it is compiled: the reply of each outcome, and what ETags cover.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::http::HeaderValue;
use flagmint_schemas::decision::{ErrorCode, Reason};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::context::context_of;
use super::error::{KEY_MISSING_DETAILS, OfrepError};
use super::reply::{Failure, Success};
use crate::config_sync::canonical_json;
use crate::contexts::{Seen, SeenContexts};
use crate::engine::{CompiledEnvironment, Decision, Outcome};
use crate::snapshot::Snapshot;

/// One environment's replies under one configuration version.
pub struct Prepared {
    /// Contexts read lately.
    pub contexts: Arc<SeenContexts<OfrepContext>>,
    /// Per outcome.
    replies: Box<[Reply]>,
    /// What follows the items of a reply with all flags.
    tail: Box<str>,
    has_gradual: bool,
    steps: ArcSwapOption<Steps>,
}

struct Reply {
    /// The reply to a request for this flag; `None` if it needs a targeting key.
    one: Option<Bytes>,
    /// The item of a reply with all flags.
    item: Box<str>,
}

/// The steps that gradual rollouts have reached, for as long as they stay there.
struct Steps {
    from_us: i64,
    until_us: i64,
    digest: String,
}

/// An OFREP context, read and mapped.
pub struct OfrepContext {
    /// As the evaluator sees it.
    pub seen: Arc<Seen>,
    covered: ArcSwapOption<Covered>,
}

/// What an ETag of one context covers under one configuration version.
struct Covered {
    version: u64,
    /// Digest of all but the steps of gradual rollouts.
    digest: String,
    /// The ETag if there are none.
    whole: HeaderValue,
}

impl OfrepContext {
    /// Reads a request's body.
    ///
    /// # Errors
    /// If there is no context in it.
    pub fn read(snapshot: &Snapshot, body: &[u8]) -> Result<Self, OfrepError> {
        Ok(Self { seen: Arc::new(Seen::new(snapshot, context_of(body)?)), covered: ArcSwapOption::empty() })
    }

    fn covered(&self, snapshot: &Snapshot) -> Arc<Covered> {
        if let Some(covered) = &*self.covered.load()
            && covered.version == snapshot.version
        {
            return Arc::clone(covered);
        }
        let digest = digest(snapshot, &self.seen);
        let covered = Arc::new(Covered { version: snapshot.version, whole: tag(&digest), digest });
        self.covered.store(Some(Arc::clone(&covered)));
        covered
    }
}

impl Prepared {
    /// The replies of each outcome; `metadata` holds the flags' own, by flag key.
    pub fn new(compiled: &CompiledEnvironment, version: u64, metadata: &Map<String, Value>) -> Self {
        let reply = |outcome: &Outcome| {
            let key = compiled.flags()[outcome.flag].key();
            let own = metadata.get(key).and_then(Value::as_object);
            if outcome.error_code == Some(ErrorCode::TargetingKeyMissing) {
                return Reply { one: None, item: failure(key).into() };
            }
            let one = success(key, outcome, own, Some(version));
            Reply { one: Some(one.into()), item: success(key, outcome, own, None).into() }
        };
        Self {
            contexts: Arc::default(),
            replies: compiled.outcomes().iter().map(reply).collect(),
            tail: format!("],\"metadata\":{{\"configVersion\":{version}}}}}").into(),
            has_gradual: compiled.gradual_percentages(0).next().is_some(),
            steps: ArcSwapOption::empty(),
        }
    }

    /// The reply to a request for one flag; `None` if it has no value because the context has no targeting key.
    pub fn one(&self, decision: &Decision) -> Option<Bytes> {
        self.reply(decision).one.clone()
    }

    /// The reply to a request for all flags.
    pub fn all(&self, decisions: &[Decision]) -> Vec<u8> {
        const HEAD: &[u8] = b"{\"flags\":[";
        let items: usize = decisions.iter().map(|decision| self.reply(decision).item.len() + 1).sum();
        let mut out = Vec::with_capacity(HEAD.len() + items + self.tail.len());
        out.extend_from_slice(HEAD);
        for (position, decision) in decisions.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(self.reply(decision).item.as_bytes());
        }
        out.extend_from_slice(self.tail.as_bytes());
        out
    }

    fn reply(&self, decision: &Decision) -> &Reply {
        &self.replies[decision.outcome.0 as usize]
    }

    /// The ETag of the reply with all flags: of the environment, its configuration version, the step each gradual rollout has
    /// reached, and the context.
    pub fn etag(&self, snapshot: &Snapshot, context: &OfrepContext, now_us: i64) -> HeaderValue {
        let covered = context.covered(snapshot);
        if !self.has_gradual {
            return covered.whole.clone();
        }
        tag(&format!("{}-{}", covered.digest, self.steps(&snapshot.compiled, now_us).digest))
    }

    fn steps(&self, compiled: &CompiledEnvironment, now_us: i64) -> Arc<Steps> {
        if let Some(steps) = &*self.steps.load()
            && (steps.from_us..steps.until_us).contains(&now_us)
        {
            return Arc::clone(steps);
        }
        let mut hash = Sha256::new();
        for percentage in compiled.gradual_percentages(now_us) {
            // NaN is no percentage, so it can stand for none.
            hash.update(percentage.unwrap_or(f64::NAN).to_bits().to_be_bytes());
        }
        let until_us = compiled.next_gradual_step_us(now_us).unwrap_or(i64::MAX);
        let steps = Arc::new(Steps { from_us: now_us, until_us, digest: hex(&hash.finalize()[..8]) });
        self.steps.store(Some(Arc::clone(&steps)));
        steps
    }
}

/// Of all that the reply depends on but time. Begins with the version of the reply's form, to be raised when that changes.
fn digest(snapshot: &Snapshot, seen: &Seen) -> String {
    let mut hash = Sha256::new_with_prefix(b"1");
    hash.update(snapshot.identity.environment.0.as_bytes());
    hash.update(snapshot.version.to_be_bytes());
    hash.update(canonical_json(&Value::Object(seen.context.members().clone())));
    hex(&hash.finalize()[..16])
}

fn tag(text: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{text}\"")).expect("hexadecimal digits and hyphens")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn success(key: &str, outcome: &Outcome, own: Option<&Map<String, Value>>, version: Option<u64>) -> String {
    let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    let own = own.into_iter().flatten().filter(|(_, value)| is_scalar(value));
    let mut metadata: Map<String, Value> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    metadata.insert("flagmintReason".into(), outcome.reason.as_str().into());
    if let Some(code) = outcome.error_code {
        metadata.insert("flagmintErrorCode".into(), code.as_str().into());
    }
    if let Some(version) = version {
        metadata.insert("configVersion".into(), version.into());
    }
    let value = RawValue::from_string(outcome.value_json.to_string()).expect("the engine writes JSON");
    let reason = on_the_wire(outcome.reason).as_str();
    let success = Success { key, value: &value, reason, variant: outcome.variant.as_deref(), metadata };
    serde_json::to_string(&success).expect("texts and scalars")
}

/// The protocol has no word for a default, and a stored fault is served, not failed.
const fn on_the_wire(reason: Reason) -> Reason {
    match reason {
        Reason::Static | Reason::TargetingMatch | Reason::Split | Reason::Disabled => reason,
        Reason::Default | Reason::Error | Reason::Unknown => Reason::Unknown,
    }
}

fn failure(key: &str) -> String {
    let error_code = ErrorCode::TargetingKeyMissing.as_str();
    serde_json::to_string(&Failure { key: Some(key), error_code, error_details: KEY_MISSING_DETAILS }).expect("texts")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Grows by 10 with each hour, from the epoch on, up to 30.
    fn gradual() -> CompiledEnvironment {
        let rollout = json!({ "strategy": "gradual", "increment": 10, "interval_hours": 1, "target_percentage": 30,
            "start_at": "1970-01-01T00:00:00Z", "salt": "s" });
        let flag = json!({ "key": "g", "type": "boolean", "rollouts": { "r": rollout } });
        CompiledEnvironment::compile(&[flag], &Map::new())
    }

    #[test]
    fn steps_are_told_apart_and_kept_until_the_next() {
        const HOUR_US: i64 = 3_600_000_000;
        let compiled = gradual();
        let prepared = Prepared::new(&compiled, 1, &Map::new());
        let at = |us: i64| prepared.steps(&compiled, us).digest.clone();
        let digests: Vec<String> = (0..5).map(|hour| at(hour * HOUR_US)).collect();
        assert!(digests[0] != digests[1] && digests[1] != digests[2], "{digests:?}");
        assert!(digests[2] == digests[3] && digests[3] == digests[4], "the target is reached: {digests:?}");
        assert_eq!(at(HOUR_US - 1000), digests[0]);
        assert_eq!(at(0), digests[0], "a clock set back");
        let kept = prepared.steps(&compiled, 5);
        assert!(Arc::ptr_eq(&kept, &prepared.steps(&compiled, 6)));
        assert!(!Arc::ptr_eq(&kept, &prepared.steps(&compiled, HOUR_US)));
    }

    #[test]
    fn metadata_is_scalar_and_ours_wins() {
        let flag = json!({ "key": "a", "type": "boolean", "default_value": true });
        let compiled = CompiledEnvironment::compile(&[flag], &Map::new());
        let own = json!({ "a": { "team": "web", "n": 1.5, "on": true, "list": [1], "none": null, "deep": {}, "configVersion": 0 } });
        let prepared = Prepared::new(&compiled, 7, own.as_object().unwrap());
        let one: Value = serde_json::from_slice(prepared.replies[0].one.as_ref().unwrap()).unwrap();
        let expected = json!({ "team": "web", "n": 1.5, "on": true, "configVersion": 7, "flagmintReason": "STATIC" });
        assert_eq!(one["metadata"], expected);
    }
}
