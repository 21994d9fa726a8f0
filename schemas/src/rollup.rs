//! The rollup tables: what the fold writes and every store keeps.
//!
//! A cell is a row. Its key is all its dimensions, its time, and the chunk of the log that it was folded from (log
//! epoch, partition, first offset of the chunk). Inside a chunk values are cumulative, so emissions of the same key
//! merge by [`Role`]'s first rule (maximum), whatever their order or repetition; across chunks readers apply its second
//! rule (sum, or maximum for sketches). Nothing else is ever done to these rows.

mod cells;
mod column;
mod pages;
mod tallies;

pub use cells::{
    ChunkCell, ContextCell, DecisionCell, FlagCell, LatencyCell, LedgerCell, TotalCell, UniqueCell, UsageCell,
    UserCell, counting, measure, table_columns,
};
pub use column::{Cell, CellError, CellValue, Column, Role};
pub use pages::ContextPage;
pub use tallies::Tallies;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema, SchemaRef};

/// A rollup table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Decisions by flag, variation, reason, rule, source per minute.
    Decisions,
    /// Latency histograms by flag per minute.
    Latency,
    /// Decisions by flag per hour: the same as in `Decisions`, in few rows, for questions about all flags.
    Flags,
    /// Decisions and latency histograms of all flags together per minute: the same as in `Decisions` and `Latency`.
    Totals,
    /// API calls and the other meters by key, transport, SDK per minute of append.
    Usage,
    /// Distinct user keys by flag and variation per day.
    Uniques,
    /// Distinct user keys of all flags together per day: the union of those in `Uniques`.
    Users,
    /// Contexts observed per day. They travel in pages ([`ContextPage`]).
    Contexts,
    /// What became of each record and decision, by environment and hour of append.
    Ledger,
    /// The chunks of the log that were folded.
    Chunks,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 10] = [
        Self::Decisions,
        Self::Latency,
        Self::Flags,
        Self::Totals,
        Self::Usage,
        Self::Uniques,
        Self::Users,
        Self::Contexts,
        Self::Ledger,
        Self::Chunks,
    ];

    /// The table's name in every store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decisions => "decisions",
            Self::Latency => "latency",
            Self::Flags => "flags",
            Self::Totals => "totals",
            Self::Usage => "usage",
            Self::Uniques => "uniques",
            Self::Users => "users",
            Self::Contexts => "contexts",
            Self::Ledger => "ledger",
            Self::Chunks => "chunks",
        }
    }

    /// Its columns, in order.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        table_columns(self)
    }

    /// The column called `name`.
    #[must_use]
    pub fn column(self, name: &str) -> Option<&'static Column> {
        self.columns().iter().find(|column| column.name == name)
    }

    /// Its Arrow schema; no column is nullable.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
            Table::ALL
                .iter()
                .map(|table| {
                    let field = |column: &Column| Field::new(column.name, column.data_type(), false);
                    Arc::new(Schema::new(table.columns().iter().map(field).collect::<Vec<_>>()))
                })
                .collect()
        });
        Arc::clone(&SCHEMAS[self as usize])
    }

    /// What the times of its cells are multiples of, microseconds.
    #[must_use]
    pub const fn step_us(self) -> i64 {
        const MINUTE_US: i64 = 60_000_000;
        match self {
            Self::Decisions | Self::Latency | Self::Totals | Self::Usage | Self::Chunks => MINUTE_US,
            Self::Flags | Self::Ledger => 60 * MINUTE_US,
            Self::Uniques | Self::Users | Self::Contexts => 24 * 60 * MINUTE_US,
        }
    }

    /// Whether closed hours and days are rewritten into coarser rows: the tables whose time is a minute or an hour and that
    /// questions over long periods are asked of.
    #[must_use]
    pub const fn has_coarse_rows(self) -> bool {
        matches!(self, Self::Decisions | Self::Latency | Self::Flags | Self::Totals | Self::Usage)
    }
}
