//! `flagmint evaluate`: one JSON object a line in, one decision a line out.

use serde_json::{Map, Value, json};

use super::context::Context;
use super::environment::CompiledEnvironment;
use super::gradual::timestamp_us;
use super::outcome::Decision;

/// Decides `{"flag": {…}, "segments"?: {…}, "context"?: {…}, "now"?: "…"}`, flag and segments in compiled form. `now_us`, in
/// microseconds since the epoch, stands in for a `now` that is not given. Returns the decision as one line of JSON.
///
/// # Errors
/// What is wrong with the line, for a person.
pub fn evaluate_line(line: &str, now_us: i64) -> Result<String, String> {
    let mut line = Line::parse(line)?;
    let flag = line.members.swap_remove("flag").ok_or("\"flag\" is missing")?;
    let segments = match line.members.swap_remove("segments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(segments)) => segments,
        Some(_) => return Err("\"segments\" is not an object".to_owned()),
    };
    let environment = CompiledEnvironment::compile(&[flag], &segments);
    line.decide(&environment, 0, now_us)
}

/// Decides `{"key": "…", "context"?: {…}, "now"?: "…"}` in an environment already compiled; otherwise as [`evaluate_line`].
///
/// # Errors
/// What is wrong with the line, for a person; a key without a flag among it.
pub fn evaluate_flag_line(environment: &CompiledEnvironment, line: &str, now_us: i64) -> Result<String, String> {
    let line = Line::parse(line)?;
    let key = line.members.get("key").and_then(Value::as_str).ok_or("\"key\" is missing or no string")?;
    let flag = environment.flag_index(key).ok_or_else(|| format!("no flag has the key {key:?}"))?;
    line.decide(environment, flag, now_us)
}

struct Line {
    members: Map<String, Value>,
}

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        match serde_json::from_str(line) {
            Ok(Value::Object(members)) => Ok(Self { members }),
            Ok(_) => Err("the line is not an object".to_owned()),
            Err(error) => Err(format!("the line is not readable JSON: {error}")),
        }
    }

    fn decide(mut self, environment: &CompiledEnvironment, flag: usize, now_us: i64) -> Result<String, String> {
        let now_us = match self.members.get("now") {
            None | Some(Value::Null) => now_us,
            Some(now) => now.as_str().and_then(timestamp_us).ok_or("\"now\" is not an ISO-8601 time")?,
        };
        let context = self.members.swap_remove("context").unwrap_or_default();
        let context = Context::from_value(context).map_err(|error| error.to_string())?;
        Ok(report(environment, environment.decide(flag, &context, now_us)))
    }
}

fn report(environment: &CompiledEnvironment, decision: Decision) -> String {
    let outcome = environment.outcome(decision.outcome);
    let rest = json!({
        "reason": outcome.reason.as_str(),
        "error_code": outcome.error_code.map(|code| code.as_str()),
        "exit": outcome.exit.as_str(),
        "variation_id": outcome.variation_id.as_deref(),
        "rule_id": outcome.rule_id.as_deref(),
        "rollout_id": outcome.rollout_id.as_deref(),
        "bucket": decision.bucket,
    });
    // The value's own text, since its numbers are written in ECMAScript's notation.
    let rest = rest.to_string();
    format!("{{\"value\":{},{}", outcome.value_json, &rest[1..])
}
