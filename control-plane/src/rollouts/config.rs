//! The four strategies: which members each has and what they may be (management API 9).

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::Deserialize;
use serde_json::{Number, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, Problems};
use crate::limits::{MAX_SALT_CHARS, MAX_VARIATIONS};
use crate::values::{FlagType, new_salt, time_text};

/// How far the sum of weights may be from 100: what adding a hundred decimal fractions as doubles can cost.
const WEIGHT_TOLERANCE: f64 = 1e-9;

/// A rollout as it is written: one of the strategies, with the members of all.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct NewRollout {
    /// `off`, `percentage`, `variant` or `gradual`.
    strategy: String,
    /// Of `percentage`: 0 to 100.
    #[schema(value_type = Option<f64>)]
    percentage: Option<Number>,
    /// Of all but `off`: 16 random hex digits if left out.
    salt: Option<String>,
    /// Of `variant`: weights that sum to 100.
    variants: Option<Vec<Variant>>,
    /// Of `gradual`: 0 to 100.
    #[schema(value_type = Option<f64>)]
    target_percentage: Option<Number>,
    /// Of `gradual`: percent gained per step, 0 to 100.
    #[schema(value_type = Option<f64>)]
    increment: Option<Number>,
    /// Of `gradual`: hours per step, at least 1.
    #[schema(value_type = Option<f64>)]
    interval_hours: Option<Number>,
    /// Of `gradual`: ISO-8601, UTC if without offset; now if left out.
    start_at: Option<String>,
}

/// A variation's share.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Variant {
    variation_id: Uuid,
    #[schema(value_type = f64)]
    weight: Number,
}

impl NewRollout {
    /// The config to store, with members in the published order, for a flag of `flag_type` with these `variations`.
    ///
    /// # Errors
    /// 400 with everything that is wrong.
    pub(crate) fn config(
        &self,
        flag_type: Option<FlagType>,
        variations: &[Uuid],
        now: DateTime<Utc>,
    ) -> Result<Value, ApiError> {
        let mut problems = Problems::default();
        let salt = self.salt.clone().unwrap_or_else(new_salt);
        let fits = salt.chars().count() <= MAX_SALT_CHARS;
        problems.check(fits, "salt", &format!("must have at most {MAX_SALT_CHARS} characters"));
        if matches!(self.strategy.as_str(), "percentage" | "gradual") {
            let boolean = flag_type == Some(FlagType::Boolean);
            problems.check(boolean, "strategy", "is for boolean flags");
        }
        let config = match self.strategy.as_str() {
            "off" => json!({"strategy": "off"}),
            "percentage" => {
                check_number(&mut problems, "percentage", self.percentage.as_ref(), PERCENT);
                json!({"strategy": "percentage", "percentage": self.percentage, "salt": salt})
            }
            "variant" => {
                let variants = self.variants.as_deref().unwrap_or_default();
                check_variants(&mut problems, variants, variations);
                let variants: Vec<Value> = variants
                    .iter()
                    .map(|variant| json!({"variation_id": variant.variation_id, "weight": variant.weight}))
                    .collect();
                json!({"strategy": "variant", "salt": salt, "variants": variants})
            }
            "gradual" => self.gradual(&mut problems, salt, now),
            _ => {
                problems.add("strategy", "must be off, percentage, variant or gradual");
                Value::Null
            }
        };
        problems.finish()?;
        Ok(config)
    }

    fn gradual(&self, problems: &mut Problems, salt: String, now: DateTime<Utc>) -> Value {
        check_number(problems, "target_percentage", self.target_percentage.as_ref(), PERCENT);
        check_number(problems, "increment", self.increment.as_ref(), PERCENT);
        let hours = (1.0..=f64::MAX, "must be a number of at least 1");
        check_number(problems, "interval_hours", self.interval_hours.as_ref(), hours);
        let start_at = match &self.start_at {
            None => Some(now),
            Some(text) => read_time(text),
        };
        problems.check(start_at.is_some(), "start_at", "must be a time as 2026-01-31T12:00:00Z");
        json!({"strategy": "gradual", "target_percentage": self.target_percentage, "increment": self.increment,
            "interval_hours": self.interval_hours, "salt": salt, "start_at": time_text(start_at.unwrap_or(now))})
    }
}

type Range = (std::ops::RangeInclusive<f64>, &'static str);

const PERCENT: Range = (0.0..=100.0, "must be a number from 0 to 100");

fn check_number(problems: &mut Problems, path: &str, number: Option<&Number>, (range, message): Range) {
    let fits = number.and_then(Number::as_f64).is_some_and(|number| range.contains(&number));
    problems.check(fits, path, message);
}

fn check_variants(problems: &mut Problems, variants: &[Variant], variations: &[Uuid]) {
    problems.check(variants.len() <= MAX_VARIATIONS, "variants", &format!("must be at most {MAX_VARIATIONS}"));
    let mut sum = 0.0;
    for (index, variant) in variants.iter().enumerate() {
        check_number(problems, &format!("variants[{index}].weight"), Some(&variant.weight), PERCENT);
        let known = variations.contains(&variant.variation_id);
        problems.check(known, &format!("variants[{index}].variation_id"), "is no variation of the flag");
        sum += variant.weight.as_f64().unwrap_or_default();
    }
    problems.check((sum - 100.0).abs() < WEIGHT_TOLERANCE, "variants", "the weights must sum to exactly 100");
}

/// Reads ISO-8601: with an offset, without one as UTC, or a date alone as its first moment.
fn read_time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let zoned = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc));
    let bare = || {
        let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
        formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).map(|time| time.and_utc())
    };
    let date = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc());
    zoned().or_else(bare).or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn config(flag_type: FlagType, body: Value) -> Result<Value, Vec<String>> {
        let request: NewRollout = serde_json::from_value(body).unwrap();
        request.config(Some(flag_type), &[A, B], DateTime::UNIX_EPOCH).map_err(|error| match error {
            ApiError::Validation(details) => details.into_iter().map(|detail| detail.path).collect(),
            other => panic!("{other:?}"),
        })
    }

    fn weights(weights: &[f64]) -> Value {
        let variants: Vec<Value> =
            weights.iter().zip([A, B].iter().cycle()).map(|(w, id)| json!({"variation_id": id, "weight": w})).collect();
        json!({"strategy": "variant", "salt": "s", "variants": variants})
    }

    #[test]
    fn what_is_stored() {
        let check = |flag_type, body: Value, stored: &str| {
            assert_eq!(config(flag_type, body).unwrap().to_string(), stored);
        };
        check(FlagType::String, json!({"strategy": "off", "percentage": 7}), r#"{"strategy":"off"}"#);
        check(
            FlagType::Boolean,
            json!({"salt": "s", "percentage": 17.5, "strategy": "percentage"}),
            r#"{"strategy":"percentage","percentage":17.5,"salt":"s"}"#,
        );
        check(
            FlagType::Boolean,
            json!({"strategy": "gradual", "target_percentage": 100, "increment": 10, "interval_hours": 6, "salt": "s",
                "start_at": "2026-03-01T12:00:00+02:00"}),
            r#"{"strategy":"gradual","target_percentage":100,"increment":10,"interval_hours":6,"salt":"s","start_at":"2026-03-01T10:00:00.000Z"}"#,
        );
        let stored = config(FlagType::Json, weights(&[33.3, 33.3, 33.4])).unwrap();
        assert_eq!(stored["variants"][2]["weight"], json!(33.4));
        let stored = config(FlagType::Boolean, json!({"strategy": "percentage", "percentage": 0})).unwrap();
        assert_eq!(stored["salt"].as_str().map(str::len), Some(16));
        let stored = config(
            FlagType::Boolean,
            json!({"strategy": "gradual", "target_percentage": 0, "increment": 0, "interval_hours": 1}),
        );
        assert_eq!(stored.unwrap()["start_at"], json!("1970-01-01T00:00:00.000Z"));
    }

    #[test]
    fn what_is_refused() {
        let check = |flag_type, body: Value, paths: &[&str]| {
            assert_eq!(config(flag_type, body.clone()).unwrap_err(), paths, "{body}");
        };
        check(FlagType::Boolean, json!({"strategy": "half"}), &["strategy"]);
        check(FlagType::String, json!({"strategy": "percentage", "percentage": 5}), &["strategy"]);
        check(FlagType::Boolean, json!({"strategy": "percentage"}), &["percentage"]);
        check(FlagType::Boolean, json!({"strategy": "percentage", "percentage": 100.1}), &["percentage"]);
        check(FlagType::Boolean, json!({"strategy": "percentage", "percentage": -1}), &["percentage"]);
        check(
            FlagType::Number,
            json!({"strategy": "gradual", "target_percentage": 101, "increment": -1, "interval_hours": 0.5,
                "start_at": "soon", "salt": "x".repeat(256)}),
            &["salt", "strategy", "target_percentage", "increment", "interval_hours", "start_at"],
        );
        check(FlagType::String, json!({"strategy": "variant"}), &["variants"]);
        check(FlagType::String, weights(&[50.0, 49.999]), &["variants"]);
        check(FlagType::String, weights(&[150.0, -50.0]), &["variants[0].weight", "variants[1].weight"]);
        let other = json!({"strategy": "variant", "variants": [{"variation_id": Uuid::nil(), "weight": 100}]});
        check(FlagType::String, other, &["variants[0].variation_id"]);
    }

    #[test]
    fn times() {
        let check = |text: &str, read: Option<&str>| {
            assert_eq!(read_time(text).map(time_text).as_deref(), read, "{text}");
        };
        check("2026-01-02T03:04:05.678Z", Some("2026-01-02T03:04:05.678Z"));
        check("2026-01-02T03:04:05-01:00", Some("2026-01-02T04:04:05.000Z"));
        check("2026-01-02T03:04:05", Some("2026-01-02T03:04:05.000Z"));
        check("2026-01-02", Some("2026-01-02T00:00:00.000Z"));
        check("", None);
        check("2026-13-01", None);
        check("12", None);
    }
}
