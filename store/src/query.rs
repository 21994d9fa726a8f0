//! The questions a store answers: one small algebra that every backend can run.

use std::ops::Range;

use arrow::array::RecordBatch;
use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::{Column, Table};
use uuid::Uuid;

use crate::limits::{DAY_US, HOUR_US};

/// How time appears in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// One row over the whole range: no time column.
    Whole,
    /// A row per hour: column `time_us` is the hour's start.
    Hour,
    /// A row per UTC day: column `time_us` is the day's start.
    Day,
    /// A row for each of two spans, of which one ends where the other begins: column `time_us` is the span's start, as given here. The range
    /// lies in them.
    Spans([i64; 2]),
}

impl Period {
    /// What the times of rows are in the answer; `None` if it has no times.
    pub(crate) const fn rounding(self) -> Option<Rounding> {
        match self {
            Self::Whole => None,
            Self::Hour => Some(Rounding::Step(HOUR_US)),
            Self::Day => Some(Rounding::Step(DAY_US)),
            Self::Spans(starts) => Some(Rounding::Spans(starts)),
        }
    }
}

/// How times are rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To a multiple of this, microseconds.
    Step(i64),
    /// To one of these.
    Spans([i64; 2]),
}

impl Rounding {
    /// As they are.
    pub(crate) const NONE: Self = Self::Step(1);

    /// A time, rounded down.
    pub(crate) const fn round(self, time_us: i64) -> i64 {
        match self {
            Self::Step(step) => time_us.div_euclid(step) * step,
            Self::Spans([first, second]) => {
                if time_us < second {
                    first
                } else {
                    second
                }
            }
        }
    }
}

/// A condition on cells before they are merged across chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// An id dimension is one of these.
    IdIn(&'static str, Vec<Uuid>),
    /// A `u8` dimension is one of these.
    CodeIn(&'static str, Vec<u8>),
    /// A text dimension equals this.
    TextIs(&'static str, String),
}

/// A condition on merged rows: case-insensitively, at least one of the text columns contains the text, or equals one of
/// the other texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Having {
    /// Text columns of the answer (dimensions grouped by, or `Max` texts).
    pub columns: Vec<&'static str>,
    /// Substring looked for, ignoring case.
    pub contains: String,
    /// Whole values that match as well, such as the pseudonym of a raw key asked for.
    pub or_equals: Vec<String>,
}

/// Which merged rows of all are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Columns of the answer and whether descending, most significant first.
    pub order_by: Vec<(&'static str, bool)>,
    /// Rows to leave out first.
    pub offset: usize,
    /// Rows wanted at most.
    pub limit: usize,
}

/// One question. The answer has the columns of `group_by` in order, then `time_us` unless `period` is `Whole`, then
/// the wanted of the table's non-key columns, merged. No cells, no rows: also without grouping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupQuery {
    /// The table.
    pub table: Table,
    /// The tenant: no row of another is read. `None` only for the audit of the whole installation.
    pub organization: Option<OrganizationId>,
    /// Cells whose time starts in this range, microseconds; both ends on a minute.
    pub time_us: Range<i64>,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Dimensions kept apart; of a table without dimensions ([`Table::Chunks`]), the columns that name the chunk.
    pub group_by: Vec<&'static str>,
    /// How time appears.
    pub period: Period,
    /// Non-key columns wanted, in the table's order: sketches are large. `None` for all.
    pub values: Option<Vec<&'static str>>,
    /// Condition on merged rows.
    pub having: Option<Having>,
    /// Part of the rows; `None` for all, in no particular order.
    pub page: Option<Page>,
}

impl RollupQuery {
    /// The non-key columns wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &'static Column> + Clone {
        wanted(self.table, self.values.as_deref())
    }
}

/// The non-key columns of a table that are among `values`; all for `None`.
pub(crate) fn wanted<'a>(
    table: Table,
    values: Option<&'a [&'static str]>,
) -> impl Iterator<Item = &'static Column> + Clone + use<'a> {
    let is_wanted = move |column: &&Column| values.is_none_or(|values| values.contains(&column.name));
    table.columns().iter().filter(|column| !column.role.is_key()).filter(is_wanted)
}

/// Merged rows.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The rows asked for, in one batch.
    pub batch: RecordBatch,
    /// How many rows there are before paging.
    pub total: u64,
}
