//! The four kinds of payload (data-plane.md 7.3), each as the text that is sent and the canonical text that is signed.
//!
//! What is the same for all sessions is prepared once: flags and segments are written when a configuration is first asked for.
//! A session adds a few numbers and its signature.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde_json::{Map, Value};

use super::{MacKey, canonical_json};
use crate::engine::json_text;

/// How long what a payload says stays good, in milliseconds from its sending.
pub const LIFETIME_MS: i64 = 86_400_000;

/// A JSON value as it is sent (its own order of members, since that of rollouts carries meaning; numbers as ECMAScript writes
/// them) and as it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    wire: Box<str>,
    canonical: Box<str>,
}

impl Text {
    /// Both texts of a value.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        Self { wire: json_text(value).into(), canonical: canonical_json(value).into() }
    }

    /// As it is sent.
    #[must_use]
    pub fn wire(&self) -> &str {
        &self.wire
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.wire.len() + self.canonical.len()
    }
}

/// Flags as they are sent: in the compiled form without our own id of the flag, which no client knows.
#[must_use]
pub fn flags_text(flags: &[Value]) -> Text {
    let stripped = |flag: &Value| {
        let mut flag = flag.clone();
        if let Some(members) = flag.as_object_mut() {
            members.shift_remove("id");
        }
        flag
    };
    Text::of(&flags.iter().map(stripped).collect())
}

/// A whole configuration.
#[derive(Debug)]
pub struct FullConfig {
    version: u64,
    compiled_at_ms: i64,
    flags: Text,
    segments: Text,
    warnings: Option<Text>,
}

impl FullConfig {
    /// Prepares a configuration; `warnings` are for people and left out if there are none.
    #[must_use]
    pub fn new(
        version: u64,
        compiled_at_ms: i64,
        flags: &[Value],
        segments: &Map<String, Value>,
        warnings: Vec<String>,
    ) -> Self {
        Self {
            version,
            compiled_at_ms,
            flags: flags_text(flags),
            segments: Text::of(&Value::Object(segments.clone())),
            warnings: (!warnings.is_empty()).then(|| Text::of(&Value::from(warnings))),
        }
    }

    /// Its flags as they are sent.
    #[must_use]
    pub fn flags(&self) -> &str {
        self.flags.wire()
    }

    /// Its segments as they are sent.
    #[must_use]
    pub fn segments(&self) -> &str {
        self.segments.wire()
    }

    /// The signed payload of a session.
    #[must_use]
    pub fn signed(&self, now_ms: i64, key: &MacKey) -> String {
        let Self { version, compiled_at_ms, flags, segments, warnings } = self;
        let expires_ms = now_ms + LIFETIME_MS;
        let warned = |text: fn(&Text) -> &str| {
            warnings.as_ref().map_or_else(String::new, |warnings| format!(r#","warnings":{}"#, text(warnings)))
        };
        let body = |flags: &str, segments: &str| format!(r#""flags":{flags},"segments":{segments}"#);
        let wire = format!(
            r#"{{"type":"fullConfig","version":{version},"compiledAt":{compiled_at_ms},"expiresAt":{expires_ms},{}{}"#,
            body(&flags.wire, &segments.wire),
            warned(|text| &text.wire),
        );
        let canonical = format!(
            r#"{{"compiledAt":{compiled_at_ms},"expiresAt":{expires_ms},{},"type":"fullConfig","version":{version}{}}}"#,
            body(&flags.canonical, &segments.canonical),
            warned(|text| &text.canonical),
        );
        finish(wire, &key.sign(&canonical))
    }
}

/// What one publish changed.
#[derive(Clone, Debug)]
pub struct Delta {
    to_version: u64,
    compiled_at_ms: i64,
    upserts: Text,
    deletes: Text,
    segments: Text,
}

impl Delta {
    /// Reads a delta as the control plane stored it: `{"upserts":[…],"deletes":[…],"segments":{…}}`. `None` if it is not one.
    #[must_use]
    pub fn parse(to_version: u64, compiled_at_ms: i64, stored: &str) -> Option<Self> {
        let stored: Value = serde_json::from_str(stored).ok()?;
        let (upserts, deletes) = (stored.get("upserts")?.as_array()?, stored.get("deletes")?);
        let segments = stored.get("segments")?;
        let is_delta = to_version > 1 && deletes.is_array() && segments.is_object();
        is_delta.then(|| Self {
            to_version,
            compiled_at_ms,
            upserts: flags_text(upserts),
            deletes: Text::of(deletes),
            segments: Text::of(segments),
        })
    }

    /// The version it leads to, from the one before.
    #[must_use]
    pub const fn to_version(&self) -> u64 {
        self.to_version
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.upserts.bytes() + self.deletes.bytes() + self.segments.bytes()
    }

    /// The signed payload of a session.
    #[must_use]
    pub fn signed(&self, now_ms: i64, key: &MacKey) -> String {
        let signature = key.sign(&self.canonical(now_ms + LIFETIME_MS, None));
        self.wire(now_ms + LIFETIME_MS, &signature)
    }

    fn wire(&self, expires_ms: i64, signature: &str) -> String {
        let Self { to_version, compiled_at_ms, upserts, deletes, segments } = self;
        let (from_version, upserts, deletes) = (to_version - 1, &upserts.wire, &deletes.wire);
        let head = format!(r#"{{"type":"delta","fromVersion":{from_version},"toVersion":{to_version}"#);
        let times = format!(r#""compiledAt":{compiled_at_ms},"expiresAt":{expires_ms}"#);
        let segments = &segments.wire;
        finish(format!(r#"{head},{times},"upserts":{upserts},"deletes":{deletes},"segments":{segments}"#), signature)
    }

    /// With the signature, as an item of [`deltas`]; without, to be signed.
    fn canonical(&self, expires_ms: i64, signature: Option<&str>) -> String {
        let Self { to_version, compiled_at_ms, upserts, deletes, segments } = self;
        let (from_version, upserts, deletes) = (to_version - 1, &upserts.canonical, &deletes.canonical);
        let segments = &segments.canonical;
        let signature = signature.map_or_else(String::new, |signature| format!(r#","signature":"{signature}""#));
        let head = format!(r#"{{"compiledAt":{compiled_at_ms},"deletes":{deletes},"expiresAt":{expires_ms}"#);
        let middle = format!(r#""fromVersion":{from_version},"segments":{segments}{signature}"#);
        format!(r#"{head},{middle},"toVersion":{to_version},"type":"delta","upserts":{upserts}}}"#)
    }
}

/// The signed payload that brings a client over several publishes. The deltas follow each other.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn deltas<'a>(items: impl IntoIterator<Item = &'a Delta>, now_ms: i64, key: &MacKey) -> String {
    let expires_ms = now_ms + LIFETIME_MS;
    let (mut wire, mut canonical) = (Vec::new(), Vec::new());
    let mut versions = None;
    for delta in items {
        let signature = key.sign(&delta.canonical(expires_ms, None));
        wire.push(delta.wire(expires_ms, &signature));
        canonical.push(delta.canonical(expires_ms, Some(&signature)));
        let (from, _) = versions.unwrap_or((delta.to_version - 1, 0));
        versions = Some((from, delta.to_version));
    }
    let (from, to) = versions.expect("there is at least one delta");
    let canonical = format!(
        r#"{{"expiresAt":{expires_ms},"fromVersion":{from},"items":[{}],"toVersion":{to},"type":"deltas"}}"#,
        canonical.join(",")
    );
    let head = format!(r#"{{"type":"deltas","fromVersion":{from},"toVersion":{to},"expiresAt":{expires_ms}"#);
    finish(format!(r#"{head},"items":[{}]"#, wire.join(",")), &key.sign(&canonical))
}

/// The signed payload that says how long a client may go on with `version`, the one it has been sent.
#[must_use]
pub fn lease(version: u64, now_ms: i64, key: &MacKey) -> String {
    let expires_ms = now_ms + LIFETIME_MS;
    let canonical = format!(r#"{{"expiresAt":{expires_ms},"serverNow":{now_ms},"type":"lease","version":{version}}}"#);
    let times = format!(r#""serverNow":{now_ms},"expiresAt":{expires_ms}"#);
    finish(format!(r#"{{"type":"lease","version":{version},{times}"#), &key.sign(&canonical))
}

/// Adds the signature to an object that is still open.
fn finish(mut open: String, signature: &str) -> String {
    open.push_str(r#","signature":""#);
    open.push_str(signature);
    open.push_str("\"}");
    open
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a client does: takes the signature out, and compares it with its own of the rest.
    fn verified(text: &str, key: &MacKey) -> Value {
        let mut payload: Value = serde_json::from_str(text).expect("JSON");
        let signature = payload.as_object_mut().unwrap().shift_remove("signature").expect("a signature");
        assert_eq!(key.sign(&canonical_json(&payload)), signature.as_str().unwrap(), "{text}");
        payload
    }

    fn key() -> MacKey {
        MacKey::new(zeroize::Zeroizing::new([3; 32]))
    }

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn every_kind_verifies_and_says_what_it_should() {
        let flag =
            json!({"id": "f", "key": "a\u{2028}", "default_value": 1.0, "rollouts": {"b": {"n": 1e21}, "a": {}}});
        let segments = json!({"s": {"id": "s", "rules": []}}).as_object().unwrap().clone();
        let sent = json!({"key": "a\u{2028}", "default_value": 1, "rollouts": {"b": {"n": 1e21}, "a": {}}});
        for warnings in [vec![], vec!["flag \"x\" cannot be read".to_owned()]] {
            let full = FullConfig::new(7, 5, std::slice::from_ref(&flag), &segments, warnings.clone());
            let text = full.signed(NOW, &key());
            assert!(text.contains(r#""rollouts":{"b":{"n":1e+21},"a":{}}"#), "the order of rollouts is kept: {text}");
            let mut expected = json!({"type": "fullConfig", "version": 7, "compiledAt": 5, "expiresAt": NOW + LIFETIME_MS,
                "flags": [sent], "segments": segments});
            if !warnings.is_empty() {
                expected["warnings"] = json!(warnings);
            }
            assert_eq!(verified(&text, &key()), expected);
        }
        let expected = json!({"type": "lease", "version": 7, "serverNow": NOW, "expiresAt": NOW + LIFETIME_MS});
        assert_eq!(verified(&lease(7, NOW, &key()), &key()), expected);
        let stored = json!({"upserts": [flag], "deletes": ["gone"], "segments": segments}).to_string();
        let delta = Delta::parse(8, 6, &stored).expect("a delta");
        let expected = json!({"type": "delta", "fromVersion": 7, "toVersion": 8, "compiledAt": 6,
            "expiresAt": NOW + LIFETIME_MS, "upserts": [sent], "deletes": ["gone"], "segments": segments});
        assert_eq!(verified(&delta.signed(NOW, &key()), &key()), expected);
        let next = Delta::parse(9, 7, r#"{"upserts":[],"deletes":[],"segments":{}}"#).expect("a delta");
        let several = verified(&deltas([&delta, &next], NOW, &key()), &key());
        assert_eq!((&several["fromVersion"], &several["toVersion"]), (&json!(7), &json!(9)));
        let items: Vec<Value> =
            several["items"].as_array().unwrap().iter().map(|item| verified(&item.to_string(), &key())).collect();
        assert_eq!(items[0], expected);
        assert_eq!((items.len(), &items[1]["fromVersion"]), (2, &json!(8)));
    }

    #[test]
    fn what_is_no_delta_is_refused() {
        for stored in ["", "[]", "{}", r#"{"upserts":{},"deletes":[],"segments":{}}"#, r#"{"upserts":[],"deletes":[]}"#]
        {
            assert!(Delta::parse(2, 0, stored).is_none(), "{stored}");
        }
        assert!(Delta::parse(1, 0, r#"{"upserts":[],"deletes":[],"segments":{}}"#).is_none(), "there is no version 0");
    }
}
