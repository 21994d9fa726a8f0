//! A keyed 128-bit fingerprint of a context, so that the cache can recognise it without keeping it.
//!
//! Two SipHash-1-3 under independent random keys, over an encoding in which every value states its type and length.
//! The keys are the process's own, so nobody can construct two contexts with one fingerprint.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde_json::{Map, Value};

/// The keys of fingerprints.
#[derive(Debug, Default)]
pub(super) struct Fingerprints([RandomState; 2]);

impl Fingerprints {
    /// The fingerprint of a context; members in another order are another context.
    pub(super) fn of(&self, context: &Map<String, Value>) -> u128 {
        let halves = self.0.each_ref().map(|keys| {
            let mut hasher = keys.build_hasher();
            feed_members(&mut hasher, context);
            hasher.finish()
        });
        u128::from(halves[0]) << 64 | u128::from(halves[1])
    }
}

fn feed_members(hasher: &mut impl Hasher, members: &Map<String, Value>) {
    hasher.write_usize(members.len());
    for (name, value) in members {
        feed_text(hasher, name);
        feed(hasher, value);
    }
}

fn feed_text(hasher: &mut impl Hasher, text: &str) {
    hasher.write_usize(text.len());
    hasher.write(text.as_bytes());
}

fn feed(hasher: &mut impl Hasher, value: &Value) {
    match value {
        Value::Null => hasher.write_u8(0),
        Value::Bool(truth) => hasher.write_u8(1 + u8::from(*truth)),
        Value::Number(number) => feed_number(hasher, number),
        Value::String(text) => {
            hasher.write_u8(6);
            feed_text(hasher, text);
        }
        Value::Array(items) => {
            hasher.write_u8(7);
            hasher.write_usize(items.len());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Object(members) => {
            hasher.write_u8(8);
            feed_members(hasher, members);
        }
    }
}

fn feed_number(hasher: &mut impl Hasher, number: &serde_json::Number) {
    if let Some(whole) = number.as_u64() {
        hasher.write_u8(3);
        hasher.write_u64(whole);
    } else if let Some(negative) = number.as_i64() {
        hasher.write_u8(4);
        hasher.write_i64(negative);
    } else {
        hasher.write_u8(5);
        hasher.write_u64(number.as_f64().unwrap_or_default().to_bits());
    }
}
