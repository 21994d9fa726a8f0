//! Search by key or attribute value: what the store sifts by, and the exact test of what it lets through.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use flagmint_store::Having;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::row::ContextRow;

/// Bytes of the HMAC that a pseudonym shows (data plane, privacy of the log).
const PSEUDONYM_BYTES: usize = 16;

/// A search text.
#[derive(Debug)]
pub(super) struct Search {
    /// As asked for.
    text: String,
    /// In lower case: case does not matter.
    lower: String,
    /// What the text is called in each environment if it is a raw key.
    pseudonyms: Vec<String>,
}

impl Search {
    /// A search for `text` in the environments that have these pseudonym keys.
    pub(super) fn new(text: &str, keys: &[Vec<u8>]) -> Self {
        let of_key = |key: &Vec<u8>| ["user", "organization"].map(|kind| pseudonym(key, kind, text));
        Self { text: text.to_owned(), lower: text.to_lowercase(), pseudonyms: keys.iter().flat_map(of_key).collect() }
    }

    /// What the store can sift by. Profiles are JSON, so a text that JSON escapes cannot be looked for there: then
    /// the store lets all through.
    pub(super) fn having(&self) -> Option<Having> {
        let is_plain = |c: char| !c.is_control() && c != '"' && c != '\\';
        self.text.chars().all(is_plain).then(|| Having {
            columns: vec!["key", "profile"],
            contains: self.text.clone(),
            or_equals: self.pseudonyms.clone(),
        })
    }

    /// Whether the key or an attribute's value contains the text, or the key is its pseudonym.
    pub(super) fn matches(&self, row: &ContextRow) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(&self.lower);
        let value_contains = |value: &Value| match value {
            Value::String(text) => contains(text),
            other => contains(&other.to_string()),
        };
        contains(&row.key) || self.pseudonyms.contains(&row.key) || row.profile.attributes.values().any(value_contains)
    }
}

/// `p1_` and the first 128 bits, in hexadecimal, of HMAC-SHA256(environment key, kind + 0x00 + text).
fn pseudonym(key: &[u8], kind: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(kind.as_bytes());
    mac.update(&[0]);
    mac.update(text.as_bytes());
    format!("p1_{}", hex::encode(&mac.finalize().into_bytes()[..PSEUDONYM_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_are_as_published() {
        // python3: hmac.new(bytes(range(32)), b"user\0alice", "sha256").hexdigest()[:32]
        let key: Vec<u8> = (0..32).collect();
        assert_eq!(pseudonym(&key, "user", "alice"), "p1_34d45cbc91de5ce7295b963a0e35627d");
    }

    #[test]
    fn texts_that_json_escapes_are_not_sifted_by() {
        for (text, is_sifted) in [("alice", true), ("é%_", true), ("a\"b", false), ("a\\b", false), ("a\nb", false)] {
            assert_eq!(Search::new(text, &[]).having().is_some(), is_sifted, "{text:?}");
        }
    }
}
