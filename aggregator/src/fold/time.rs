//! Which minute, hour and day a time belongs to, and which time an event is counted at. All in microseconds, UTC.

use flagmint_schemas::limits::{EVENT_TIME_FUTURE_US, EVENT_TIME_PAST_US};

const MINUTE_US: i64 = 60_000_000;

const fn floor(time_us: i64, unit_us: i64) -> i64 {
    time_us.saturating_sub(time_us.rem_euclid(unit_us))
}

/// Start of the minute.
pub(super) const fn minute_of(time_us: i64) -> i64 {
    floor(time_us, MINUTE_US)
}

/// Start of the hour.
pub(super) const fn hour_of(time_us: i64) -> i64 {
    floor(time_us, 60 * MINUTE_US)
}

/// Start of the day.
pub(super) const fn day_of(time_us: i64) -> i64 {
    floor(time_us, 24 * 60 * MINUTE_US)
}

/// Whether an event's own time is believed: not over a day before nor over five minutes after its append.
pub(super) const fn is_believed(event_time_us: i64, append_time_us: i64) -> bool {
    event_time_us >= append_time_us.saturating_sub(EVENT_TIME_PAST_US)
        && event_time_us <= append_time_us.saturating_add(EVENT_TIME_FUTURE_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_before_the_epoch_too() {
        assert_eq!((minute_of(-1), minute_of(59_999_999), minute_of(60_000_000)), (-MINUTE_US, 0, MINUTE_US));
        assert_eq!((hour_of(-1), day_of(-1)), (-60 * MINUTE_US, -1440 * MINUTE_US));
        assert_eq!(minute_of(i64::MIN), i64::MIN);
    }

    #[test]
    fn believes_within_both_bounds() {
        let append = 10 * EVENT_TIME_PAST_US;
        let cases = [
            (append - EVENT_TIME_PAST_US, true),
            (append - EVENT_TIME_PAST_US - 1, false),
            (append + EVENT_TIME_FUTURE_US, true),
            (append + EVENT_TIME_FUTURE_US + 1, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ];
        for (event, believed) in cases {
            assert_eq!(is_believed(event, append), believed, "{event}");
        }
    }
}
