//! The time that a question covers: read from its query members, cut into the points of a series.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::Range;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, SecondsFormat, Utc};
use flagmint_store::Period;

use crate::error::Problems;
use crate::limits::{HOURLY_DAYS_MAX, PERIOD_DAYS_DEFAULT, PERIOD_DAYS_MAX, YEARS};
use crate::members::QueryMembers;

/// Microseconds of a minute.
const MINUTE_US: i64 = 60_000_000;
/// Microseconds of an hour.
pub(crate) const HOUR_US: i64 = 60 * MINUTE_US;
/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 24 * HOUR_US;

/// How finely a series is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granularity {
    /// A point per UTC day.
    Day,
    /// A point per hour.
    Hour,
}

impl Granularity {
    /// Its name in queries and replies.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    /// The store's word for it.
    pub(crate) const fn period(self) -> Period {
        match self {
            Self::Day => Period::Day,
            Self::Hour => Period::Hour,
        }
    }

    const fn step_us(self) -> i64 {
        match self {
            Self::Day => DAY_US,
            Self::Hour => HOUR_US,
        }
    }
}

/// The time that a question covers, `from_us` included, `to_us` not, both on a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First microsecond.
    pub(crate) from_us: i64,
    /// The microsecond after the last.
    pub(crate) to_us: i64,
    /// How it is cut.
    pub(crate) granularity: Granularity,
}

impl Span {
    /// Reads `from`, `to` and `granularity`. Dates are whole UTC days, `to` inclusive; times are RFC 3339, rounded outwards to
    /// minutes. Without `to` the span ends with today, without `from` it is `PERIOD_DAYS_DEFAULT` days long.
    pub(crate) fn parse(members: &QueryMembers, now: DateTime<Utc>, problems: &mut Problems) -> Self {
        let words = [("day", Granularity::Day), ("hour", Granularity::Hour)];
        let granularity = members.word("granularity", &words, Granularity::Day, problems);
        let span = Self { granularity, ..Self::bounds(members, now, PERIOD_DAYS_DEFAULT, problems) };
        if granularity == Granularity::Hour && span.to_us - span.from_us > HOURLY_DAYS_MAX * DAY_US {
            problems.add("from", format!("at most {HOURLY_DAYS_MAX} days by hour"));
        }
        span
    }

    /// Reads `from` and `to` alone; without `from`, `default_days` long.
    pub(crate) fn bounds(
        members: &QueryMembers,
        now: DateTime<Utc>,
        default_days: i64,
        problems: &mut Problems,
    ) -> Self {
        let today_end_us = floor(now.timestamp_micros(), DAY_US) + DAY_US;
        let mut bound = |name, date_end_us, round: fn(i64, i64) -> i64| {
            let bound_us = bound_us(members.get(name)?, date_end_us);
            if bound_us.is_none() {
                problems.add(name, "must be a date as 2026-01-31 or a time as 2026-01-31T12:00:00Z");
            }
            Some(bound_us.map(|bound_us| round(bound_us, MINUTE_US)))
        };
        let to = bound("to", DAY_US, ceil);
        let to_us = to.flatten().unwrap_or(today_end_us);
        let from = bound("from", 0, floor);
        let from_us = from.flatten().unwrap_or(to_us - default_days * DAY_US);
        if to != Some(None) && from != Some(None) {
            if from_us >= to_us {
                problems.add("from", "must be before `to`");
            } else if to_us - from_us > PERIOD_DAYS_MAX * DAY_US {
                problems.add("from", format!("at most {PERIOD_DAYS_MAX} days"));
            }
        }
        Self { from_us, to_us, granularity: Granularity::Day }
    }

    /// The calendar month in UTC that `now` is in.
    pub(crate) fn month(now: DateTime<Utc>) -> Self {
        let first = now.date_naive().with_day(1).expect("every month has a first day");
        let next = first.checked_add_months(chrono::Months::new(1)).expect("the clock is within chrono's years");
        Self { from_us: midnight_us(first), to_us: midnight_us(next), granularity: Granularity::Day }
    }

    /// The span of equal length that ends where this one begins.
    pub(crate) const fn previous(self) -> Self {
        Self { from_us: 2 * self.from_us - self.to_us, to_us: self.from_us, ..self }
    }

    /// Its time as the store takes it.
    pub(crate) const fn range_us(self) -> Range<i64> {
        self.from_us..self.to_us
    }

    /// The whole UTC days that it touches: sketches and contexts are kept by day.
    pub(crate) fn days_us(self) -> Range<i64> {
        floor(self.from_us, DAY_US)..ceil(self.to_us, DAY_US)
    }

    /// The whole hours that it touches: the ledger is kept by hour.
    pub(crate) fn hours_us(self) -> Range<i64> {
        floor(self.from_us, HOUR_US)..ceil(self.to_us, HOUR_US)
    }

    /// Start of each point of the series, ascending; the first and last may lie partly outside the span.
    pub(crate) fn points_us(self) -> impl ExactSizeIterator<Item = i64> {
        let step_us = self.granularity.step_us();
        let first = self.from_us.div_euclid(step_us);
        let count = usize::try_from(ceil(self.to_us, step_us) / step_us - first).unwrap_or(0);
        (0..count).map(move |index| (first + index as i64) * step_us)
    }

    /// The point that a time belongs to; `None` outside the series.
    pub(crate) fn point_of(self, time_us: i64) -> Option<usize> {
        let step_us = self.granularity.step_us();
        let index = usize::try_from(time_us.div_euclid(step_us) - self.from_us.div_euclid(step_us)).ok()?;
        (time_us < self.to_us).then_some(index)
    }

    /// A point's `date`: `2026-01-31`, or by hour `2026-01-31T07:00:00.000Z`.
    pub(crate) fn label(self, point_us: i64) -> String {
        match self.granularity {
            Granularity::Day => iso_date(point_us),
            Granularity::Hour => iso(point_us),
        }
    }
}

/// A time as ISO 8601 with milliseconds and `Z`.
pub(crate) fn iso(time_us: i64) -> String {
    let time = DateTime::from_timestamp_micros(time_us).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A UTC day as `2026-01-31`.
pub(crate) fn iso_date(time_us: i64) -> String {
    DateTime::from_timestamp_micros(time_us).unwrap_or_default().date_naive().to_string()
}

fn bound_us(text: &str, date_end_us: i64) -> Option<i64> {
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return (text.len() == 10 && YEARS.contains(&date.year())).then(|| midnight_us(date) + date_end_us);
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    YEARS.contains(&time.to_utc().year()).then(|| time.timestamp_micros())
}

fn midnight_us(date: NaiveDate) -> i64 {
    date.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

const fn floor(time_us: i64, step_us: i64) -> i64 {
    time_us.div_euclid(step_us) * step_us
}

const fn ceil(time_us: i64, step_us: i64) -> i64 {
    floor(time_us + step_us - 1, step_us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn parse(members: &[(&str, &str)], now: &str) -> Result<Span, Vec<String>> {
        let mut problems = Problems::default();
        let span = Span::parse(&QueryMembers::of(members), time(now), &mut problems);
        match problems.finish() {
            Ok(()) => Ok(span),
            Err(crate::error::ApiError::Validation(details)) => Err(details.into_iter().map(|it| it.path).collect()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn periods_as_read() {
        let check = |members: &[(&str, &str)], now: &str, from: &str, to: &str, points: usize| {
            let span = parse(members, now).unwrap();
            assert_eq!(
                (iso(span.from_us), iso(span.to_us), span.points_us().len()),
                (from.into(), to.into(), points),
                "{members:?}"
            );
        };
        let now = "2026-03-15T10:20:30.5Z";
        check(&[], now, "2026-02-14T00:00:00.000Z", "2026-03-16T00:00:00.000Z", 30);
        check(&[("granularity", "hour")], now, "2026-02-14T00:00:00.000Z", "2026-03-16T00:00:00.000Z", 720);
        // Month and leap edges.
        check(&[], "2024-03-01T00:00:00Z", "2024-02-01T00:00:00.000Z", "2024-03-02T00:00:00.000Z", 30);
        check(&[("to", "2024-02-29")], now, "2024-01-31T00:00:00.000Z", "2024-03-01T00:00:00.000Z", 30);
        check(
            &[("from", "2024-02-28"), ("to", "2024-03-01")],
            now,
            "2024-02-28T00:00:00.000Z",
            "2024-03-02T00:00:00.000Z",
            3,
        );
        check(
            &[("from", "2023-02-28"), ("to", "2023-03-01")],
            now,
            "2023-02-28T00:00:00.000Z",
            "2023-03-02T00:00:00.000Z",
            2,
        );
        check(
            &[("from", "2025-12-31"), ("to", "2026-01-01")],
            now,
            "2025-12-31T00:00:00.000Z",
            "2026-01-02T00:00:00.000Z",
            2,
        );
        // The days on which European and American clocks change have 24 hours like all others.
        for day in ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"] {
            assert_eq!(
                parse(&[("from", day), ("to", day), ("granularity", "hour")], now).unwrap().points_us().len(),
                24
            );
        }
        // Times: rounded outwards to minutes, any offset.
        check(
            &[("from", "2026-03-01T23:59:59.999Z"), ("to", "2026-03-02T00:00:00.001Z")],
            now,
            "2026-03-01T23:59:00.000Z",
            "2026-03-02T00:01:00.000Z",
            2,
        );
        check(
            &[("from", "2026-03-01T01:30:00+02:00"), ("to", "2026-03-01T02:00:00+02:00"), ("granularity", "hour")],
            now,
            "2026-02-28T23:30:00.000Z",
            "2026-03-01T00:00:00.000Z",
            1,
        );
        // Exactly the longest.
        check(
            &[("from", "2025-02-09"), ("to", "2026-03-15")],
            now,
            "2025-02-09T00:00:00.000Z",
            "2026-03-16T00:00:00.000Z",
            400,
        );
        check(
            &[("from", "2026-02-13"), ("granularity", "hour")],
            now,
            "2026-02-13T00:00:00.000Z",
            "2026-03-16T00:00:00.000Z",
            744,
        );
    }

    #[test]
    fn malformed_periods_name_the_member() {
        let check = |members: &[(&str, &str)], paths: &[&str]| {
            assert_eq!(
                parse(members, "2026-03-15T10:00:00Z"),
                Err(paths.iter().map(|it| (*it).to_owned()).collect()),
                "{members:?}"
            );
        };
        for bad in [
            "",
            "yesterday",
            "2026-02-29",
            "2026-1-1",
            "2026-01-01T00:00:00",
            "2026-13-01",
            "1",
            "+12026-01-01",
            "1969-12-31",
            "9999-01-01",
            "2026-01-01\0",
        ] {
            check(&[("from", bad)], &["from"]);
            check(&[("to", bad)], &["to"]);
        }
        check(&[("from", "x"), ("to", "y"), ("granularity", "week")], &["granularity", "to", "from"]);
        check(&[("from", "2026-03-02"), ("to", "2026-03-01")], &["from"]);
        check(&[("from", "2026-03-01T00:00:00Z"), ("to", "2026-03-01T00:00:00Z")], &["from"]);
        check(&[("from", "2027-01-01")], &["from"]);
        check(&[("from", "2025-02-08")], &["from"]);
        check(&[("from", "2026-02-12"), ("granularity", "hour")], &["from"]);
        check(&[("granularity", "DAY")], &["granularity"]);
    }

    #[test]
    fn months_are_calendar_months() {
        for (now, from, to) in [
            ("2024-02-29T23:59:59.999Z", "2024-02-01", "2024-03-01"),
            ("2026-12-31T12:00:00Z", "2026-12-01", "2027-01-01"),
            ("2026-01-01T00:00:00Z", "2026-01-01", "2026-02-01"),
        ] {
            let month = Span::month(time(now));
            assert_eq!((iso_date(month.from_us), iso_date(month.to_us)), (from.to_owned(), to.to_owned()), "{now}");
        }
    }

    proptest! {
        #[test]
        fn a_series_covers_every_point_exactly_once(from_min in -1_000_000i64..40_000_000, minutes in 1i64..44_640, hourly: bool, probe in 0.0f64..1.0) {
            let granularity = if hourly { Granularity::Hour } else { Granularity::Day };
            let span = Span { from_us: from_min * MINUTE_US, to_us: (from_min + minutes) * MINUTE_US, granularity };
            let points: Vec<i64> = span.points_us().collect();
            prop_assert!(points.windows(2).all(|pair| pair[1] - pair[0] == granularity.step_us()));
            prop_assert!(points[0] <= span.from_us && span.from_us < points[0] + granularity.step_us());
            let last = points[points.len() - 1];
            prop_assert!(last < span.to_us && span.to_us <= last + granularity.step_us());
            for (index, point) in points.iter().enumerate() {
                prop_assert_eq!(span.point_of(*point), Some(index));
            }
            let time_us = span.from_us + (probe * (span.to_us - span.from_us) as f64) as i64;
            let index = span.point_of(time_us.min(span.to_us - 1)).expect("inside");
            prop_assert!(points[index] <= time_us && (time_us < points[index] + granularity.step_us()));
            prop_assert_eq!(span.point_of(span.to_us), None);
            prop_assert_eq!(span.previous().to_us - span.previous().from_us, span.to_us - span.from_us);
        }
    }
}
