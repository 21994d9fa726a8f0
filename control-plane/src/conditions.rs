//! Conditions of segments and targeting rules, as they are written (evaluation.md 5).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::Problems;
use crate::limits::{MAX_CONDITIONS, MAX_NAME_CHARS};

/// Every operator there is; names are case-sensitive.
const OPERATORS: &[&str] = &[
    "exists",
    "not_exists",
    "eq",
    "neq",
    "in",
    "nin",
    "gt",
    "lt",
    "contains",
    "not_contains",
    "startsWith",
    "endsWith",
];

/// One condition. A value that is left out is not the same as `null`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Condition {
    /// `rule`, in a segment alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    attribute: String,
    operator: String,
    #[serde(default, deserialize_with = "crate::request::present", skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// In a targeting rule alone; stored and ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    logical_op: Option<String>,
}

impl Condition {
    /// As a segment stores it.
    pub(crate) fn of_segment(self) -> Self {
        Self { r#type: Some("rule".to_owned()), logical_op: None, ..self }
    }

    /// As a targeting rule stores it.
    pub(crate) fn of_rule(self) -> Self {
        Self { r#type: None, logical_op: Some(self.logical_op.unwrap_or_else(|| "AND".to_owned())), ..self }
    }
}

/// Notes what is wrong with the conditions at `path`.
pub(crate) fn check(problems: &mut Problems, path: &str, conditions: &[Condition]) {
    problems.check(conditions.len() <= MAX_CONDITIONS, path, &format!("must be at most {MAX_CONDITIONS}"));
    for (index, condition) in conditions.iter().enumerate() {
        let at = |member: &str| format!("{path}[{index}].{member}");
        let fits = (1..=MAX_NAME_CHARS).contains(&condition.attribute.chars().count());
        problems.check(fits, &at("attribute"), &format!("must have 1 to {MAX_NAME_CHARS} characters"));
        let known = OPERATORS.contains(&condition.operator.as_str());
        problems.check(known, &at("operator"), &format!("must be one of {}", OPERATORS.join(", ")));
        let rule = condition.r#type.as_deref().is_none_or(|kind| kind == "rule");
        problems.check(rule, &at("type"), "must be rule");
        let known = condition.logical_op.as_deref().is_none_or(|text| logical_op(text).is_some());
        problems.check(known, &at("logical_op"), "must be AND, OR or NOT");
    }
}

/// Notes a problem at `path` unless `operators` are some that there are.
pub(crate) fn check_operators(problems: &mut Problems, path: &str, operators: &[String]) {
    let fit = (1..=OPERATORS.len()).contains(&operators.len())
        && operators.iter().all(|operator| OPERATORS.contains(&operator.as_str()));
    problems.check(fit, path, &format!("must be one or more of {}", OPERATORS.join(", ")));
}

/// A `logical_op` in upper case, as it is stored: the engine is case-sensitive about those of segments.
pub(crate) fn logical_op(text: &str) -> Option<&'static str> {
    ["AND", "OR", "NOT"].into_iter().find(|name| text.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;
    use serde_json::json;

    fn problems(condition: Value) -> Vec<String> {
        let mut problems = Problems::default();
        check(&mut problems, "c", &[serde_json::from_value(condition).unwrap()]);
        match problems.finish() {
            Err(ApiError::Validation(details)) => details.into_iter().map(|detail| detail.path).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn what_the_engine_never_matches_is_refused() {
        for operator in OPERATORS {
            assert!(problems(json!({"attribute": "a", "operator": operator})).is_empty());
        }
        for operator in ["gte", "lte", "regex", "EQ", "startswith", ""] {
            assert_eq!(problems(json!({"attribute": "a", "operator": operator})), ["c[0].operator"]);
        }
        assert_eq!(
            problems(json!({"attribute": "", "operator": "eq", "type": "group", "logical_op": "XOR"})),
            ["c[0].attribute", "c[0].type", "c[0].logical_op"]
        );
    }

    #[test]
    fn a_value_left_out_stays_out_and_null_stays_null() {
        let stored = |text: &str| {
            let condition: Condition = serde_json::from_str(text).unwrap();
            (json!(condition.clone().of_segment()).to_string(), json!(condition.of_rule()).to_string())
        };
        let (segment, rule) = stored(r#"{"attribute":"a","operator":"neq","extra":1}"#);
        assert_eq!(segment, r#"{"type":"rule","attribute":"a","operator":"neq"}"#);
        assert_eq!(rule, r#"{"attribute":"a","operator":"neq","logical_op":"AND"}"#);
        let (segment, rule) = stored(r#"{"attribute":"a","operator":"eq","value":null,"logical_op":"OR"}"#);
        assert_eq!(segment, r#"{"type":"rule","attribute":"a","operator":"eq","value":null}"#);
        assert_eq!(rule, r#"{"attribute":"a","operator":"eq","value":null,"logical_op":"OR"}"#);
    }

    #[test]
    fn logical_ops_are_stored_in_upper_case() {
        assert_eq!(logical_op("or"), Some("OR"));
        assert_eq!(logical_op("xor"), None);
    }
}
