//! The percentage of a gradual rollout: a share of keys that grows by itself.
//!
//! Clients compute it in whole milliseconds with doubles, so both are part of the result.

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::{Map, Value};

use super::values::{is_truthy, number};

const MS_PER_HOUR: f64 = 3_600_000.0;

/// A gradual rollout's schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Schedule {
    /// No interval, increment or target above 0: nobody is in.
    Never,
    /// `start_at` is no time.
    BadStart,
    /// A member that should be a number is not. Known only once the rollout has started.
    Invalid { start_ms: i64 },
    /// No `start_at`: one increment for ever.
    Constant { percentage: f64 },
    /// A further increment with each interval, up to the target.
    Steps { start_ms: i64, interval_hours: f64, increment: f64, target: f64 },
}

/// What a schedule says at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Share {
    /// Percent of keys, possibly 0 or beyond 100.
    Percentage(f64),
    BadStart,
    Invalid,
}

impl Schedule {
    pub(super) fn new(rollout: &Map<String, Value>) -> Self {
        let [interval_hours, increment, target] =
            ["interval_hours", "increment", "target_percentage"].map(|name| number(rollout.get(name)));
        if interval_hours <= 0.0 || increment <= 0.0 || target <= 0.0 {
            return Self::Never;
        }
        let is_numeric = !(interval_hours.is_nan() || increment.is_nan() || target.is_nan());
        let start_at = rollout.get("start_at");
        if !is_truthy(start_at) {
            return match is_numeric {
                true => Self::Constant { percentage: increment.min(target) },
                false => Self::Invalid { start_ms: i64::MIN },
            };
        }
        let Some(start_us) = start_at.and_then(Value::as_str).and_then(timestamp_us) else { return Self::BadStart };
        let start_ms = start_us.div_euclid(1000);
        if !is_numeric {
            return Self::Invalid { start_ms };
        }
        Self::Steps { start_ms, interval_hours, increment, target }
    }

    /// The share at `now_us`, microseconds since the epoch.
    pub(super) fn share(&self, now_us: i64) -> Share {
        let now_ms = now_us.div_euclid(1000);
        match *self {
            Self::Never => Share::Percentage(0.0),
            Self::BadStart => Share::BadStart,
            Self::Invalid { start_ms } | Self::Steps { start_ms, .. } if now_ms < start_ms => Share::Percentage(0.0),
            Self::Invalid { .. } => Share::Invalid,
            Self::Constant { percentage } => Share::Percentage(percentage),
            Self::Steps { start_ms, interval_hours, increment, target } => {
                let elapsed_hours = (now_ms as f64 - start_ms as f64) / MS_PER_HOUR;
                let steps = (elapsed_hours / interval_hours).floor() + 1.0;
                Share::Percentage((steps * increment).min(target))
            }
        }
    }

    /// The share as a percentage; `None` where the schedule is unusable.
    pub(super) fn percentage(&self, now_us: i64) -> Option<f64> {
        match self.share(now_us) {
            Share::Percentage(percentage) => Some(percentage),
            Share::BadStart | Share::Invalid => None,
        }
    }

    /// When the share next changes, microseconds since the epoch; `None` if it never does.
    pub(super) fn next_change_us(&self, now_us: i64) -> Option<i64> {
        let now_ms = now_us.div_euclid(1000);
        match *self {
            Self::Never | Self::BadStart | Self::Constant { .. } => None,
            Self::Invalid { start_ms } => (now_ms < start_ms).then(|| start_ms.saturating_mul(1000)),
            Self::Steps { start_ms, .. } if now_ms < start_ms => Some(start_ms.saturating_mul(1000)),
            Self::Steps { start_ms, interval_hours, .. } => self.next_step_us(now_ms, start_ms, interval_hours),
        }
    }

    /// The step as computed, moved to the first millisecond at which the rounded arithmetic of [`Self::share`] shows it.
    fn next_step_us(&self, now_ms: i64, start_ms: i64, interval_hours: f64) -> Option<i64> {
        let current = self.share(now_ms.saturating_mul(1000));
        let steps = ((now_ms as f64 - start_ms as f64) / MS_PER_HOUR / interval_hours).floor() + 1.0;
        let exact_ms = (start_ms as f64 + steps * interval_hours * MS_PER_HOUR).ceil();
        let first_ms = (exact_ms as i64).saturating_sub(1).max(now_ms.saturating_add(1));
        let shows = |at_ms: &i64| self.share(at_ms.saturating_mul(1000)) != current;
        (first_ms..=first_ms.saturating_add(2)).find(shows).map(|at_ms| at_ms.saturating_mul(1000))
    }
}

/// An ISO-8601 time as microseconds since the epoch: a date, optionally `T` or a space and a time, optionally an offset. Without
/// an offset it is UTC.
#[must_use]
pub fn timestamp_us(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let with_offset = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M:%S%.f%#z"];
    let offset = with_offset.iter().find_map(|format| DateTime::parse_from_str(text, format).ok());
    if let Some(time) = offset {
        return Some(time.timestamp_micros());
    }
    let local = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f"];
    let time = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(local, format).ok());
    let midnight = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    Some(time.or_else(midnight)?.and_utc().timestamp_micros())
}

/// The share of a rollout at a time, for the test vectors; `None` where it is unusable.
#[must_use]
pub fn gradual_percentage(rollout: &Map<String, Value>, now_us: i64) -> Option<f64> {
    Schedule::new(rollout).percentage(now_us)
}
