//! Levels of time: how fine the rows of a file are, and which level answers which part of a question.
//!
//! Each file says whether its rows are also in the next coarser level (`rolled`). So at any moment the rows of one
//! level, together with the unrolled files of the finer ones, are everything that is stored, once.

use std::ops::Range;

use flagmint_schemas::rollup::Table;
use serde::{Deserialize, Serialize};

use crate::Period;
use crate::limits::{CONTEXT_RETENTION_US, DAY_RETENTION_US, DAY_US, HOUR_RETENTION_US, HOUR_US, MINUTE_RETENTION_US};

/// How fine the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As emitted: a minute in minutely tables, the table's own step in others.
    Base,
    /// The minutes of an hour made one.
    Hour,
    /// The hours of a day made one.
    Day,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The span of time that a row's start is rounded down to, microseconds; 1 for as it is.
    pub(super) const fn step_us(self) -> i64 {
        match self {
            Self::Base => 1,
            Self::Hour => HOUR_US,
            Self::Day => DAY_US,
        }
    }

    /// The span of time that one file holds rows of, microseconds.
    pub(super) const fn file_span_us(self) -> i64 {
        match self {
            Self::Base | Self::Hour => DAY_US,
            Self::Day => 32 * DAY_US,
        }
    }

    /// How long rows are kept, microseconds.
    pub(super) const fn retention_us(self, table: Table) -> i64 {
        match (self, table) {
            (_, Table::Contexts) => CONTEXT_RETENTION_US,
            (Self::Base, table) if table.is_minutely() => MINUTE_RETENTION_US,
            (Self::Hour, _) => HOUR_RETENTION_US,
            _ => DAY_RETENTION_US,
        }
    }
}

/// The parts of a question's range that each level answers, disjoint and together the whole range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) base: Vec<Range<i64>>,
    pub(super) hour: Vec<Range<i64>>,
    pub(super) day: Vec<Range<i64>>,
}

impl Parts {
    /// Whole days from day rows and whole hours from hour rows, as far as the period allows.
    pub(super) fn new(table: Table, range: &Range<i64>, period: Period) -> Self {
        if !table.is_minutely() {
            return Self { base: non_empty([range.clone()]), hour: vec![], day: vec![] };
        }
        let hours = whole(range, HOUR_US);
        let days = if period == Period::Hour { hours.end..hours.end } else { whole(&hours, DAY_US) };
        Self {
            base: non_empty([range.start..hours.start, hours.end..range.end]),
            hour: non_empty([hours.start..days.start, days.end..hours.end]),
            day: non_empty([days]),
        }
    }

    /// The ranges that a file of this level must give its rows of.
    pub(super) fn wanted(&self, level: Level, rolled: bool) -> Vec<Range<i64>> {
        let mut ranges: Vec<&Vec<Range<i64>>> = match level {
            Level::Base => vec![&self.base],
            Level::Hour => vec![&self.hour],
            Level::Day => vec![&self.day],
        };
        if !rolled {
            match level {
                Level::Base => ranges.extend([&self.hour, &self.day]),
                Level::Hour => ranges.push(&self.day),
                Level::Day => {}
            }
        }
        let mut ranges: Vec<Range<i64>> = ranges.into_iter().flatten().cloned().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, before| {
            let adjacent = before.end == next.start;
            if adjacent {
                before.end = next.end;
            }
            adjacent
        });
        ranges
    }
}

/// The largest range inside `range` with both ends on a step; empty at its end if there is none.
fn whole(range: &Range<i64>, step: i64) -> Range<i64> {
    let up = |us: i64| us.checked_add(step - 1).map_or(i64::MAX, |us| us.div_euclid(step) * step);
    let (start, end) = (up(range.start), range.end.div_euclid(step).saturating_mul(step));
    if start < end { start..end } else { range.end..range.end }
}

fn non_empty<const N: usize>(ranges: [Range<i64>; N]) -> Vec<Range<i64>> {
    ranges.into_iter().filter(|range| range.start < range.end).collect()
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are what is tested")]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_range() {
        let (h, d) = (HOUR_US, DAY_US);
        let check = |range: Range<i64>, period, base: &[Range<i64>], hour: &[Range<i64>], day: &[Range<i64>]| {
            let parts = Parts::new(Table::Decisions, &range, period);
            assert_eq!((&*parts.base, &*parts.hour, &*parts.day), (base, hour, day), "{range:?} {period:?}");
            let length: i64 = parts.wanted(Level::Base, false).iter().map(|range| range.end - range.start).sum();
            assert_eq!(length, (range.end - range.start).max(0), "{range:?} {period:?}");
        };
        check(5..h - 5, Period::Whole, &[5..h - 5], &[], &[]);
        check(h - 5..h + 5, Period::Whole, &[h - 5..h + 5], &[], &[]);
        check(5..2 * h, Period::Whole, &[5..h], &[h..2 * h], &[]);
        check(h..3 * d + 5, Period::Day, &[3 * d..3 * d + 5], &[h..d], &[d..3 * d]);
        check(h..3 * d + 5, Period::Hour, &[3 * d..3 * d + 5], &[h..3 * d], &[]);
        check(-d - 1..d, Period::Whole, &[-d - 1..-d], &[], &[-d..d]);
        check(9..9, Period::Whole, &[], &[], &[]);
    }
}
