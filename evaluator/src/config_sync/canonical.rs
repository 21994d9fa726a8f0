//! Canonical JSON: what ECMAScript's `JSON.stringify` gives once the members of every object are sorted (data-plane.md 7.2).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Ordering;

use serde_json::Value;

use crate::engine::json_text;

/// The largest array index of ECMAScript: 2^32 - 2.
const ARRAY_INDEX_MAX: u64 = u32::MAX as u64 - 1;

/// The canonical text of a value: the bytes that are signed.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    push(&mut out, value);
    out
}

fn push(out: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                separate(out, position);
                push(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<(Name<'_>, &Value)> =
                members.iter().map(|(name, value)| (Name::of(name), value)).collect();
            members.sort_by(|(a, _), (b, _)| a.compare(b));
            out.push('{');
            for (position, (name, value)) in members.into_iter().enumerate() {
                separate(out, position);
                out.push_str(&json_text(&Value::from(name.text)));
                out.push(':');
                push(out, value);
            }
            out.push('}');
        }
        scalar => out.push_str(&json_text(scalar)),
    }
}

fn separate(out: &mut String, position: usize) {
    if position > 0 {
        out.push(',');
    }
}

/// A member's name and what decides its place.
struct Name<'a> {
    text: &'a str,
    index: Option<u64>,
}

impl<'a> Name<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, index: array_index(text) }
    }

    /// Array indices first, by number; then by UTF-16 code units, which is not the order of code points.
    fn compare(&self, other: &Self) -> Ordering {
        match (self.index, other.index) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.text.encode_utf16().cmp(other.text.encode_utf16()),
        }
    }
}

/// The number that a name is, if ECMAScript takes it for an array index: `0`, or digits without a leading zero, below 2^32 - 1.
fn array_index(name: &str) -> Option<u64> {
    let is_plain = name == "0" || name.starts_with(|c: char| matches!(c, '1'..='9'));
    let is_index = is_plain && name.len() <= 10 && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_index { name.parse().ok().filter(|index| *index <= ARRAY_INDEX_MAX) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn names_that_are_array_indices_come_first() {
        let indices = [("0", true), ("7", true), ("4294967294", true), ("4294967295", false), ("01", false)];
        let others =
            [("", false), ("-1", false), ("1.0", false), ("+1", false), ("1e3", false), ("99999999999", false)];
        for (name, expected) in indices.into_iter().chain(others) {
            assert_eq!(array_index(name).is_some(), expected, "{name}");
        }
        let value = json!({ "4294967295": 1, "10": 2, "b": 3, "9": 4, "4294967294": 5, "": 6 });
        assert_eq!(canonical_json(&value), r#"{"9":4,"10":2,"4294967294":5,"":6,"4294967295":1,"b":3}"#);
    }

    #[test]
    fn integers_beyond_two_to_the_53_are_rounded_to_doubles() {
        let value: Value = serde_json::from_str("[9007199254740993,-9007199254740993,18446744073709551615]").unwrap();
        assert_eq!(canonical_json(&value), "[9007199254740992,-9007199254740992,18446744073709552000]");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 64, 6, |inner| {
            let name = prop_oneof!["[0-9]{1,11}", ".{0,3}", "[a-c]{1,2}"];
            let members = prop::collection::vec((name, inner.clone()), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::Array),
                members.prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// Every object's members turned round.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(reversed).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect())
            }
            other => other.clone(),
        }
    }

    proptest! {
        /// Order of members does not matter, reading the text and writing it again changes nothing, and nothing is lost: the
        /// text reads as what `JSON.stringify` (here: `json_text`) wrote.
        #[test]
        fn canonical_text_is_one_per_value(value in any_json()) {
            let text = canonical_json(&value);
            prop_assert_eq!(&canonical_json(&reversed(&value)), &text);
            let read: Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(&canonical_json(&read), &text);
            let plain: Value = serde_json::from_str(&json_text(&value)).expect("JSON");
            prop_assert_eq!(read, plain);
        }
    }
}
