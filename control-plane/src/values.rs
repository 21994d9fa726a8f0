//! Types of flags and what their values may be.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};
use flagmint_schemas::ids::part_of;
use rand::RngCore;
use serde_json::Value;
use uuid::Uuid;

use crate::limits::MAX_VALUE_BYTES;

/// The type of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagType {
    Boolean,
    String,
    Number,
    Json,
}

impl FlagType {
    /// Reads a type; old clients say `object` for `json`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "boolean" => Some(Self::Boolean),
            "string" => Some(Self::String),
            "number" => Some(Self::Number),
            "json" | "object" => Some(Self::Json),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Number => "number",
            Self::Json => "json",
        }
    }

    /// What is wrong with `value` for a flag of this type.
    pub(crate) fn check(self, value: &Value) -> Result<(), &'static str> {
        let fits = match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Number => value.as_f64().is_some_and(f64::is_finite),
            Self::Json => value.is_object(),
        };
        if !fits {
            return Err(match self {
                Self::Boolean => "must be true or false",
                Self::String => "must be a string",
                Self::Number => "must be a finite number",
                Self::Json => "must be an object",
            });
        }
        if value.to_string().len() > MAX_VALUE_BYTES {
            return Err("must be at most 64 KiB");
        }
        if any(value, &mut |part| part.get("__proto__").is_some()) {
            return Err("must not have a member called __proto__");
        }
        Ok(())
    }
}

/// Whether `test` holds of `value` or anything in it.
fn any(value: &Value, test: &mut impl FnMut(&Value) -> bool) -> bool {
    if test(value) {
        return true;
    }
    match value {
        Value::Array(items) => items.iter().any(|item| any(item, test)),
        Value::Object(members) => members.values().any(|member| any(member, test)),
        _ => false,
    }
}

/// Why PHP clients could not verify a configuration with this value (data plane 7.2).
pub(crate) fn php_warnings(value: &Value) -> Vec<&'static str> {
    let separators = |text: &str| text.contains(['\u{2028}', '\u{2029}']);
    let integer = |name: &str| name.parse::<i64>().is_ok_and(|number| number.to_string() == name);
    let mut warnings = Vec::new();
    let mut warn = |found: bool, text: &'static str| {
        if found {
            warnings.push(text);
        }
    };
    let names = |part: &Value, test: &dyn Fn(&str) -> bool| {
        part.as_object().is_some_and(|members| members.keys().any(|name| test(name)))
    };
    warn(any(value, &mut |part| names(part, &integer)), "a member's name looks like a number");
    warn(
        any(value, &mut |part| part.as_str().is_some_and(separators) || names(part, &separators)),
        "a text has U+2028 or U+2029",
    );
    warn(any(value, &mut |part| part.as_f64().is_some_and(needs_exponent)), "a number needs an exponent");
    warnings
}

/// Whether ECMAScript writes the number with an exponent.
fn needs_exponent(number: f64) -> bool {
    let size = number.abs();
    size >= 1e21 || (size > 0.0 && size < 1e-6)
}

/// A salt nobody has: 16 hex digits.
pub(crate) fn new_salt() -> String {
    format!("{:016x}", rand::rng().next_u64())
}

/// An id for a new part of a flag: a variation, rule or rollout. Those of one process are in the order they were made in.
pub(crate) fn new_part_id(flag: Uuid) -> Uuid {
    static LAST_US: AtomicU64 = AtomicU64::new(0);
    let now_us = u64::try_from(Utc::now().timestamp_micros()).unwrap_or_default();
    let next = |last_us: u64| now_us.max(last_us + 1);
    let last_us = LAST_US.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last_us| Some(next(last_us)));
    part_of(flag, next(last_us.expect("there is always a next")))
}

/// The time as rollouts store it: ISO-8601 in UTC, to the millisecond.
pub(crate) fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// [`time_text`] of this moment.
pub(crate) fn now_text() -> String {
    time_text(Utc::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_must_be_of_the_type() {
        let check = |flag_type: FlagType, value: Value, fits: bool| {
            assert_eq!(flag_type.check(&value).is_ok(), fits, "{flag_type:?} {value}");
        };
        check(FlagType::Boolean, json!(true), true);
        check(FlagType::Boolean, json!("true"), false);
        check(FlagType::String, json!(""), true);
        check(FlagType::String, json!("x".repeat(65 << 10)), false);
        check(FlagType::String, json!(null), false);
        check(FlagType::Number, json!(-1.5e300), true);
        check(FlagType::Number, json!("1"), false);
        check(FlagType::Json, json!({"a": [1, null]}), true);
        check(FlagType::Json, json!([1]), false);
        check(FlagType::Json, json!({"a": [{"__proto__": 1}]}), false);
    }

    #[test]
    fn old_clients_say_object() {
        assert_eq!(FlagType::parse("object").map(FlagType::name), Some("json"));
        assert_eq!(FlagType::parse("Boolean"), None);
    }

    #[test]
    fn what_php_cannot_verify_is_told() {
        let check = |value: Value, warnings: usize| assert_eq!(php_warnings(&value).len(), warnings, "{value}");
        check(json!({"a": 1, "01": "x", "-0": 1}), 0);
        check(json!({"a": [{"12": 1}]}), 1);
        check(json!({"0": 1, "1": 2}), 1);
        check(json!("a\u{2028}b"), 1);
        check(json!({"a\u{2029}": 1}), 1);
        check(json!(1e21), 1);
        check(json!(0.000_000_1), 1);
        check(json!([1e20, 0.000_001, 0]), 0);
        check(json!({"1": "\u{2028}", "x": 1e-7}), 3);
    }

    #[test]
    fn salts_are_sixteen_hex_digits() {
        assert!(new_salt().len() == 16 && u64::from_str_radix(&new_salt(), 16).is_ok());
        assert_eq!(time_text(DateTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
