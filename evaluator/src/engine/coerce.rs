//! Coercion: every value that leaves the evaluator has its flag's type, and is written as clients would write it.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

use super::values::{NumberText, double, is_truthy, number, text};

/// The type of a flag's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagType {
    /// `boolean`
    Boolean,
    /// `string`
    String,
    /// `number`
    Number,
    /// `json`: an object
    Json,
}

impl FlagType {
    /// The type of that name; `object`, which some old clients say, is `json`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "boolean" => Some(Self::Boolean),
            "string" => Some(Self::String),
            "number" => Some(Self::Number),
            "json" | "object" => Some(Self::Json),
            _ => None,
        }
    }

    /// The name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Number => "number",
            Self::Json => "json",
        }
    }
}

/// A value as served.
#[derive(Debug, Clone, PartialEq)]
pub struct Coerced {
    /// Of the flag's type, its numbers normalised to doubles. An infinite number is `null`.
    pub value: Value,
    /// The stored value was unusable and something else took its place.
    pub replaced: bool,
}

/// Makes a value, which may be absent, one of the flag's type.
#[must_use]
pub fn coerce(value: Option<&Value>, flag_type: FlagType) -> Coerced {
    let kept = |value| Coerced { value, replaced: false };
    match (flag_type, value) {
        (FlagType::Boolean, Some(Value::String(string))) if string == "false" => kept(Value::Bool(false)),
        (FlagType::Boolean, value) => kept(Value::Bool(is_truthy(value))),
        (FlagType::Number, value) => {
            let number = number(value);
            Coerced { value: number_value(if number.is_nan() { 0.0 } else { number }), replaced: number.is_nan() }
        }
        (FlagType::String, None | Some(Value::Null)) => kept(Value::String(String::new())),
        (FlagType::String, value) => kept(Value::String(text(value))),
        (FlagType::Json, Some(object @ Value::Object(_))) => kept(normalised(object)),
        (FlagType::Json, _) => Coerced { value: Value::Object(Map::new()), replaced: true },
    }
}

/// The value with every number as the double that clients see.
pub(super) fn normalised(value: &Value) -> Value {
    match value {
        Value::Number(number) => number_value(double(number)),
        Value::Array(items) => Value::Array(items.iter().map(normalised).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), normalised(value))).collect())
        }
        other => other.clone(),
    }
}

/// Whole numbers as integers, so that 1 and 1.0 are equal as JSON values; `null` for what JSON cannot hold.
fn number_value(number: f64) -> Value {
    /// Up to here doubles and integers correspond one to one.
    const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT_INTEGERS {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// JSON text as `JSON.stringify` writes it: member order kept, numbers in ECMAScript's notation.
#[must_use]
pub fn json_text(value: &Value) -> String {
    let mut out = String::new();
    push_json(&mut out, value);
    out
}

fn push_json(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => out.push_str(NumberText::new(double(number)).as_str()),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                push_separator(out, index);
                push_json(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                push_separator(out, index);
                push_scalar(out, &Value::String(name.clone()));
                out.push(':');
                push_json(out, value);
            }
            out.push('}');
        }
        scalar => push_scalar(out, scalar),
    }
}

fn push_separator(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

fn push_scalar(out: &mut String, value: &Value) {
    write!(out, "{value}").expect("writing to a string does not fail");
}
