//! What a client of config-sync does (data-plane.md 7.6), written anew: its own canonical JSON, its own key agreement, and the
//! state that it ends up with.

use std::collections::BTreeMap;

use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

/// What a payload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    BadSignature,
    /// Expiry renewed.
    Renewed,
    /// The lease is of another version: everything is to be asked for again.
    WantsFull,
    Replaced,
    Applied,
    Stale,
    VersionGap,
}

/// A client between handshake and handshake; its configuration outlives its sessions.
#[derive(Default)]
pub struct SyncClient {
    secret: Option<StaticSecret>,
    mac_key: [u8; 32],
    pub version: Option<u64>,
    pub flags: BTreeMap<String, Value>,
    pub segments: BTreeMap<String, Value>,
    pub expires_at_ms: i64,
    /// The version that the last lease named.
    pub leased_version: u64,
}

impl SyncClient {
    /// The body of a new handshake.
    pub fn ask(&mut self) -> Value {
        let secret = StaticSecret::from(rand::random::<[u8; 32]>());
        let public = hex::encode(PublicKey::from(&secret).as_bytes());
        self.secret = Some(secret);
        json!({ "clientPublicKey": public, "sdkVersion": "2.2.0" })
    }

    /// Agrees on the key with what the handshake's reply has in `data`; the session's id.
    pub fn agree(&mut self, data: &Value) -> String {
        assert_eq!(data["keyAgreement"], "x25519-hkdf-sha256", "{data}");
        let bytes = |name: &str| hex::decode(data[name].as_str().expect("hex")).expect("hex");
        let server: [u8; 32] = bytes("serverPublicKey").try_into().expect("32 bytes");
        let shared = self.secret.take().expect("a handshake under way").diffie_hellman(&PublicKey::from(server));
        let salt = bytes("salt");
        assert_eq!(salt.len(), 16);
        Hkdf::<Sha256>::new(Some(&salt), shared.as_bytes())
            .expand(b"flagmint-asl-config-sync-mac-v1", &mut self.mac_key)
            .expect("32 bytes");
        data["sessionId"].as_str().expect("an id").to_owned()
    }

    /// Takes a payload as it came.
    pub fn receive(&mut self, text: &str) -> Effect {
        let mut payload: Value = serde_json::from_str(text).expect("JSON");
        if !self.verifies(&mut payload) {
            return Effect::BadSignature;
        }
        let number = |name: &str| payload[name].as_u64().unwrap_or_else(|| panic!("{name} in {payload}"));
        let expires_at_ms = payload["expiresAt"].as_i64().expect("a time");
        match payload["type"].as_str().expect("a type") {
            "lease" => {
                self.expires_at_ms = expires_at_ms;
                self.leased_version = number("version");
                if self.version == Some(self.leased_version) { Effect::Renewed } else { Effect::WantsFull }
            }
            "fullConfig" => {
                self.expires_at_ms = expires_at_ms;
                self.version = Some(number("version"));
                self.flags.clear();
                self.segments.clear();
                self.put(&payload["flags"], &payload["segments"]);
                Effect::Replaced
            }
            "delta" => self.apply(&[payload.clone()], expires_at_ms),
            "deltas" => {
                let items = payload["items"].as_array().expect("a list");
                let last = items.last().map(|item| &item["toVersion"]);
                assert_eq!(last, Some(&payload["toVersion"]), "deltas end where they say");
                self.apply(items, expires_at_ms)
            }
            other => panic!("unknown payload {other}"),
        }
    }

    /// All or nothing.
    fn apply(&mut self, items: &[Value], expires_at_ms: i64) -> Effect {
        let mut version = self.version.unwrap_or(0);
        let to = |item: &Value| item["toVersion"].as_u64().expect("a version");
        if items.iter().all(|item| to(item) <= version) {
            return Effect::Stale;
        }
        for item in items {
            if item["fromVersion"].as_u64() != Some(version) {
                return Effect::VersionGap;
            }
            version = to(item);
        }
        for item in items {
            for key in item["deletes"].as_array().expect("a list") {
                self.flags.remove(key.as_str().expect("a key"));
            }
            self.put(&item["upserts"], &item["segments"]);
        }
        self.version = Some(version);
        self.expires_at_ms = expires_at_ms;
        Effect::Applied
    }

    fn put(&mut self, flags: &Value, segments: &Value) {
        for flag in flags.as_array().expect("a list") {
            self.flags.insert(flag["key"].as_str().expect("a key").to_owned(), flag.clone());
        }
        for (id, segment) in segments.as_object().expect("an object") {
            self.segments.insert(id.clone(), segment.clone());
        }
    }

    fn verifies(&self, payload: &mut Value) -> bool {
        let signature = payload.as_object_mut().expect("an object").shift_remove("signature");
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.mac_key).expect("any length");
        mac.update(canonical(payload).as_bytes());
        signature == Some(Value::from(hex::encode(mac.finalize().into_bytes())))
    }
}

/// `JSON.stringify` of sorted members, by the book.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members =
                sorted(members).into_iter().map(|(name, value)| format!("{}:{}", string(name), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Number(number) => number_text(number.as_f64().expect("a double")),
        Value::String(text) => string(text),
        Value::Bool(_) | Value::Null => value.to_string(),
    }
}

fn sorted(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let index = |name: &str| name.parse::<u32>().ok().filter(|index| index.to_string() == name && *index < u32::MAX);
    let (mut indices, mut others): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| index(name).is_some());
    indices.sort_by_key(|(name, _)| index(name));
    others.sort_by_key(|(name, _)| name.encode_utf16().collect::<Vec<u16>>());
    [indices, others].concat()
}

fn number_text(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    if (1e-6..1e21).contains(&number.abs()) {
        return format!("{number}");
    }
    let text = format!("{number:e}");
    if text.contains("e-") { text } else { text.replace('e', "e+") }
}

fn string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' => "\\\"".into(),
            '\\' => "\\\\".into(),
            '\u{8}' => "\\b".into(),
            '\t' => "\\t".into(),
            '\n' => "\\n".into(),
            '\u{c}' => "\\f".into(),
            '\r' => "\\r".into(),
            c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}
