//! Levels of time: how fine the rows of a file are, and which level answers which part of a question.
//!
//! Each file says whether its rows are also in the next coarser level (`rolled`). So at any moment the rows of one
//! level, together with the unrolled files of the finer ones, are everything that is stored, once.

use std::ops::Range;

use flagmint_schemas::rollup::Table;
use serde::{Deserialize, Serialize};

use crate::limits::{CONTEXT_RETENTION_US, DAY_RETENTION_US, DAY_US, HOUR_RETENTION_US, HOUR_US, MINUTE_RETENTION_US};
use crate::parts::Parts;

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
            (Self::Base, table) if table.has_coarse_rows() => MINUTE_RETENTION_US,
            (Self::Hour, _) => HOUR_RETENTION_US,
            _ => DAY_RETENTION_US,
        }
    }

    /// The ranges that a file of this level must give its rows of.
    pub(super) fn wanted(self, parts: &Parts, rolled: bool) -> Vec<Range<i64>> {
        let mut ranges: Vec<&Vec<Range<i64>>> = match self {
            Self::Base => vec![&parts.base],
            Self::Hour => vec![&parts.hour],
            Self::Day => vec![&parts.day],
        };
        if !rolled {
            match self {
                Self::Base => ranges.extend([&parts.hour, &parts.day]),
                Self::Hour => ranges.push(&parts.day),
                Self::Day => {}
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
