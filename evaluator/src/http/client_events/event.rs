//! One event of a batch, read and judged.

use flagmint_schemas::decision::Trigger;
use serde_json::Value;

use crate::engine::timestamp_us;
use crate::limits::{EVENT_AGE_MAX_US, EVENT_AHEAD_MAX_US, EVENT_COUNT_MAX, EVENT_TEXT_CHARS_MAX};

/// An event that can be recorded.
#[derive(Debug, PartialEq)]
pub struct Event<'a> {
    pub flag_key: &'a str,
    /// What it is about: an evaluation, a goal or an application error.
    pub trigger: Trigger,
    /// The value that the client served.
    pub variation_value: Option<&'a Value>,
    pub user_key: Option<&'a str>,
    /// Evaluations that it stands for.
    pub count: u32,
    /// When it happened, microseconds.
    pub time_us: i64,
}

/// Why an event is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Not of the shape that events have.
    Malformed,
    /// None of the three kinds.
    UnknownKind,
    /// The environment has no such flag.
    UnknownFlag,
    /// The flag has no Analytics Tracking.
    NoAnalytics,
    /// Beyond the number that one body may have.
    Excess,
    /// In a batch that came before.
    Repeated,
    /// A goal or application error of an organization that has reached its plan's limit of them.
    OverLimit,
    /// The recorder has no room; it counts that, too.
    Refused,
}

impl Dropped {
    /// The cause, as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKind => "unknown_kind",
            Self::UnknownFlag => "unknown_flag",
            Self::NoAnalytics => "no_analytics",
            Self::Excess => "excess",
            Self::Repeated => "repeated",
            Self::OverLimit => "over_limit",
            Self::Refused => "refused",
        }
    }
}

impl<'a> Event<'a> {
    /// Reads an event received at `received_us`.
    pub fn read(event: &'a Value, received_us: i64) -> Result<Self, Dropped> {
        let members = event.as_object().ok_or(Dropped::Malformed)?;
        // A member that is `null` is taken for one that is left out: some serialisers write all members.
        let member = |name| members.get(name).filter(|value| !value.is_null());
        let text =
            |name| member(name).map(|value| value.as_str().filter(|text| is_short(text)).ok_or(Dropped::Malformed));
        let required = |name| text(name).unwrap_or(Err(Dropped::Malformed));
        let flag_key = required("flagKey")?;
        let trigger = match required("kind")? {
            "evaluation" => Trigger::Report,
            "custom" => Trigger::Goal,
            "error" => Trigger::AppError,
            _ => return Err(Dropped::UnknownKind),
        };
        if trigger == Trigger::Goal {
            required("eventName")?;
        }
        if member("extra").is_some_and(|extra| !extra.is_object()) {
            return Err(Dropped::Malformed);
        }
        let count = match member("count") {
            Some(count) if trigger == Trigger::Report => whole(count).ok_or(Dropped::Malformed)?,
            _ => 1,
        };
        Ok(Self {
            flag_key,
            trigger,
            variation_value: members.get("variationValue"),
            user_key: text("userKey").transpose()?.filter(|key| !key.is_empty()),
            count,
            time_us: believed(required("timestamp")?, received_us)?,
        })
    }
}

fn is_short(text: &str) -> bool {
    text.len() <= EVENT_TEXT_CHARS_MAX || text.chars().nth(EVENT_TEXT_CHARS_MAX).is_none()
}

/// A count: 1 to the most that is allowed, written as `2` or `2.0`.
fn whole(count: &Value) -> Option<u32> {
    let count = count.as_f64().filter(|count| count.fract() == 0.0 && *count >= 1.0)?;
    (count <= EVENT_COUNT_MAX as f64).then_some(count as u32)
}

/// The time stated, or that of the receipt if it cannot be right.
fn believed(timestamp: &str, received_us: i64) -> Result<i64, Dropped> {
    let time_us = timestamp_us(timestamp).ok_or(Dropped::Malformed)?;
    let is_believed = (received_us - EVENT_AGE_MAX_US..=received_us + EVENT_AHEAD_MAX_US).contains(&time_us);
    Ok(if is_believed { time_us } else { received_us })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2026-11-25T12:00:00Z.
    const NOW: i64 = 1_795_608_000_000_000;

    fn event(change: &Value) -> Value {
        let mut event = json!({"flagKey": "a", "kind": "evaluation", "timestamp": "2026-11-25T12:00:00.000Z"});
        for (name, value) in change.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    }

    fn check<T: PartialEq + std::fmt::Debug>(
        change: Value,
        of: impl Fn(&Event<'_>) -> T,
        expected: Result<T, Dropped>,
    ) {
        let event = event(&change);
        assert_eq!(Event::read(&event, NOW).map(|event| of(&event)), expected, "{change}");
    }

    #[test]
    fn counts_are_whole_and_bounded() {
        let count = |event: &Event<'_>| event.count;
        check(json!({}), count, Ok(1));
        check(json!({"count": null}), count, Ok(1));
        check(json!({"count": 10_000}), count, Ok(10_000));
        check(json!({"count": 2.0}), count, Ok(2));
        for bad in
            [json!(0), json!(-1), json!(1.5), json!(10_001), json!("3"), json!(9_007_199_254_740_993_u64), json!([])]
        {
            check(json!({"count": bad}), count, Err(Dropped::Malformed));
        }
        check(json!({"count": 7, "kind": "error"}), count, Ok(1));
    }

    #[test]
    fn times_that_cannot_be_right_are_those_of_the_receipt() {
        let time = |event: &Event<'_>| event.time_us;
        let day = 86_400_000_000;
        check(json!({"timestamp": "2026-11-24T12:00:00.5Z"}), time, Ok(NOW - day + 500_000));
        check(json!({"timestamp": "2026-11-18T12:00:00.000Z"}), time, Ok(NOW - 7 * day));
        check(json!({"timestamp": "2026-11-18T11:59:59.999Z"}), time, Ok(NOW));
        check(json!({"timestamp": "2026-11-25T12:05:00.000Z"}), time, Ok(NOW + 300_000_000));
        check(json!({"timestamp": "2026-11-25T12:05:00.001Z"}), time, Ok(NOW));
        check(json!({"timestamp": "+262142-01-01T00:00:00Z"}), time, Ok(NOW));
        for bad in [json!("yesterday"), json!(5), json!(null), json!("")] {
            check(json!({"timestamp": bad}), time, Err(Dropped::Malformed));
        }
    }

    #[test]
    fn kinds_and_what_they_need() {
        let trigger = |event: &Event<'_>| event.trigger;
        check(json!({}), trigger, Ok(Trigger::Report));
        check(json!({"kind": "custom", "eventName": "bought"}), trigger, Ok(Trigger::Goal));
        check(json!({"kind": "error", "extra": {"message": "x"}}), trigger, Ok(Trigger::AppError));
        check(json!({"kind": "custom"}), trigger, Err(Dropped::Malformed));
        check(json!({"kind": "goal"}), trigger, Err(Dropped::UnknownKind));
        check(json!({"kind": "__proto__"}), trigger, Err(Dropped::UnknownKind));
        check(json!({"extra": []}), trigger, Err(Dropped::Malformed));
        check(json!({"flagKey": 7}), trigger, Err(Dropped::Malformed));
        check(json!({"flagKey": "é".repeat(1025)}), trigger, Err(Dropped::Malformed));
        for event in [json!(null), json!([]), json!("x"), json!({})] {
            assert_eq!(Event::read(&event, NOW), Err(Dropped::Malformed));
        }
    }

    #[test]
    fn user_keys_are_texts() {
        let user = |event: &Event<'_>| event.user_key.map(str::to_owned);
        check(json!({"userKey": "u1"}), user, Ok(Some("u1".into())));
        check(json!({"userKey": ""}), user, Ok(None));
        check(json!({"userKey": null}), user, Ok(None));
        check(json!({"userKey": 7}), user, Err(Dropped::Malformed));
        check(json!({"userKey": "x".repeat(1025)}), user, Err(Dropped::Malformed));
    }
}
