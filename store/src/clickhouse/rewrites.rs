//! What has been rewritten: which generations of coarse rows count, and which cells they stand for.
//!
//! Coarse rows stand for exactly the cells before a time, of the chunks before an offset: their time is over and the chunks are
//! final. Both bounds and the generations are one row of the table `rewrites`, so whoever reads by one such row counts
//! each cell once: coarse rows, and of the cells those outside the bounds. Which row that is does not matter. What is emitted
//! again for a chunk inside the bounds changes nothing, and what comes late is outside of them until the next rewriting.

use std::collections::BTreeMap;
use std::ops::Range;

use flagmint_schemas::rollup::Table;
use serde::{Deserialize, Serialize};

use super::client::Client;
use crate::StoreError;
use crate::check::rewritten_keys;
use crate::limits::{CONTEXT_RETENTION_US, DAY_RETENTION_US, DAY_US, HOUR_RETENTION_US, HOUR_US};

/// A coarser form of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Behind the table's name.
    pub(super) suffix: &'static str,
    /// What a row's time is rounded down to, microseconds; 1 for as it is.
    pub(super) step_us: i64,
}

const HOUR: Level = Level { suffix: "_hour", step_us: HOUR_US };
const DAY: Level = Level { suffix: "_day", step_us: DAY_US };
/// Without chunks, but as fine as before.
const SAME: Level = Level { suffix: "_day", step_us: 1 };

impl Level {
    /// The levels of a table, each made from the one before.
    pub(super) const fn of(table: Table) -> &'static [Self] {
        match table {
            Table::Decisions | Table::Latency | Table::Flags | Table::Totals | Table::Usage => &[HOUR, DAY],
            Table::Uniques | Table::Users | Table::Contexts | Table::Ledger => &[SAME],
            Table::Chunks => &[],
        }
    }

    pub(super) fn table(self, table: Table) -> String {
        format!("{}{}", table.name(), self.suffix)
    }

    /// The table of the same rows with all environments of a project added up.
    pub(super) fn projects(self, table: Table) -> String {
        format!("{}_project{}", table.name(), self.suffix)
    }

    /// Days that one generation has rows of: many where a day has few rows, so that a question about months finds them in few places, since each
    /// place costs a part of a millisecond, whatever is there. When one day is rewritten the others are copied.
    pub(super) const fn generation_days(self, table: Table) -> i64 {
        match table {
            Table::Contexts | Table::Chunks => 1,
            _ if self.step_us == HOUR_US => 1,
            Table::Flags | Table::Totals | Table::Usage | Table::Users | Table::Ledger => 32,
            Table::Decisions | Table::Latency | Table::Uniques => 8,
        }
    }

    /// How long its rows are kept, microseconds.
    pub(super) const fn retention_us(self, table: Table) -> i64 {
        match table {
            Table::Contexts => CONTEXT_RETENTION_US,
            _ if self.step_us == HOUR_US => HOUR_RETENTION_US,
            _ => DAY_RETENTION_US,
        }
    }
}

/// The dimensions of a table's rows of whole projects; none if it has no such rows.
pub(super) fn project_keys(table: Table) -> Vec<&'static str> {
    if !matches!(table, Table::Latency | Table::Flags | Table::Totals | Table::Uniques | Table::Users) {
        return Vec::new();
    }
    rewritten_keys(table).into_iter().filter(|name| *name != "environment").collect()
}

/// Of one partition of one epoch the chunks that start before an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Covered {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) chunk: u64,
}

/// Generations by the day of their rows.
pub(super) type Generations = BTreeMap<i64, u64>;

/// One state of the rewritten tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rewrites {
    /// Ascending; 0 before the first.
    #[serde(skip)]
    pub(super) version: u64,
    /// When it was committed, by the server's clock, microseconds.
    #[serde(skip)]
    pub(super) committed_us: i64,
    /// Cells before this are in coarse rows if their chunk is covered; days of daily tables only when they are over.
    pub(super) closed_us: i64,
    /// No cell before this can be outside of the coarse rows: an event this late is counted at the time of its append.
    pub(super) sealed_us: i64,
    pub(super) covered: Vec<Covered>,
    /// By the rewritten table's name.
    spans: BTreeMap<String, Generations>,
    /// Cells of a table before this are gone.
    expired: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct Stored {
    version: u64,
    committed_us: i64,
    body: String,
}

impl Rewrites {
    /// The newest one stored.
    pub(super) async fn load(client: &Client) -> Result<Self, StoreError> {
        let sql = "SELECT `version`, `committed_us`, `body` FROM `rewrites` \
            ORDER BY `version` DESC, `committed_us` DESC LIMIT 1";
        let Some(stored) = client.records::<Stored>(sql).await?.pop() else { return Ok(Self::default()) };
        let read: Self = serde_json::from_str(&stored.body).map_err(|error| {
            StoreError::Fatal(format!("row {} of table rewrites cannot be read: {error}", stored.version))
        })?;
        Ok(Self { version: stored.version, committed_us: stored.committed_us, ..read })
    }

    /// The generations of a rewritten table.
    pub(super) fn generations(&self, table: &str) -> &Generations {
        static NONE: Generations = Generations::new();
        self.spans.get(table).unwrap_or(&NONE)
    }

    /// Whether a generation of a table is in force.
    pub(super) fn has_generation(&self, table: &str, generation: u64) -> bool {
        self.generations(table).values().any(|known| *known == generation)
    }

    /// Puts a generation in the place of another.
    pub(super) fn replace(&mut self, table: &str, day: i64, generation: u64) {
        self.spans.entry(table.to_owned()).or_default().insert(day, generation);
    }

    /// Leaves out what is older than `before_day`.
    pub(super) fn forget(&mut self, table: &str, before_day: i64) {
        if let Some(generations) = self.spans.get_mut(table) {
            generations.retain(|day, _| *day >= before_day);
        }
    }

    /// Cells of a table before this are gone, microseconds.
    pub(super) fn expired_us(&self, table: Table) -> i64 {
        self.expired.get(table.name()).copied().unwrap_or(0)
    }

    pub(super) fn expire(&mut self, table: Table, before_us: i64) {
        let expired = self.expired.entry(table.name().to_owned()).or_default();
        *expired = before_us.max(*expired);
    }

    /// Up to when a table's cells are in its coarse rows.
    pub(super) fn closed_us(&self, table: Table) -> i64 {
        if table.has_coarse_rows() { self.closed_us } else { self.closed_us.div_euclid(DAY_US) * DAY_US }
    }

    /// The condition on cells that coarse rows stand for.
    pub(super) fn inside(&self, table: Table) -> String {
        format!("(`time_us` < {} AND ({}))", self.closed_us(table), of_chunks(&self.covered))
    }

    /// The condition on all other cells. Written without a negation, which the index on these columns would not be used for, and with each
    /// epoch once, since every comparison is planned.
    pub(super) fn outside(&self, table: Table) -> String {
        let mut epochs: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        if let Some(Covered { partition, epoch, chunk }) = self.bound() {
            epochs.entry(epoch).or_default().push(format!("(`partition` > {partition} OR `chunk` >= {chunk})"));
        }
        for Covered { partition, epoch, chunk } in &self.covered {
            epochs.entry(*epoch).or_default().push(format!("(`partition` != {partition} OR `chunk` >= {chunk})"));
        }
        let epoch = |(epoch, chunks): (u64, Vec<String>)| format!("(`epoch` != {epoch} OR ({}))", chunks.join(" AND "));
        let epochs: Vec<String> = epochs.into_iter().map(epoch).collect();
        let outside = if epochs.is_empty() { "1".to_owned() } else { epochs.join(" AND ") };
        format!("(`time_us` >= {} OR ({outside}))", self.closed_us(table))
    }

    /// A partition, an epoch and a chunk that no chunk outside has all three of: a partition up to that one, that epoch, and an earlier offset.
    /// Where rows of several partitions lie side by side, the index finds for each of the exact conditions a partition that may meet it,
    /// and can leave nothing out, but by this it can. `None` if a partition is missing or an epoch has ended.
    fn bound(&self) -> Option<Covered> {
        let epoch = self.covered.first()?.epoch;
        let partition = self.covered.iter().map(|covered| covered.partition).max()?;
        let chunk = self.covered.iter().map(|covered| covered.chunk).min()?;
        let is_whole = self.covered.iter().all(|covered| covered.epoch == epoch)
            && self.covered.len() as u64 == u64::from(partition) + 1;
        is_whole.then_some(Covered { partition, epoch, chunk })
    }
}

/// The condition that a cell is of one of some chunks.
pub(super) fn of_chunks(chunks: &[Covered]) -> String {
    let chunk = |Covered { partition, epoch, chunk }: &Covered| {
        format!("(`partition` = {partition} AND `epoch` = {epoch} AND `chunk` < {chunk})")
    };
    let chunks: Vec<String> = chunks.iter().map(chunk).collect();
    if chunks.is_empty() { "0".to_owned() } else { chunks.join(" OR ") }
}

/// The condition that a row's time is in one of some ranges; `None` if there are none.
pub(super) fn within(ranges: &[Range<i64>]) -> Option<String> {
    // So that both ends are numbers of the column's type, whoever asks about all of time.
    const BOUND: i64 = 1 << 61;
    let one = |range: &Range<i64>| {
        let (start, end) = (range.start.clamp(-BOUND, BOUND), range.end.clamp(-BOUND, BOUND));
        format!("(`time_us` >= {start} AND `time_us` < {end})")
    };
    (!ranges.is_empty()).then(|| format!("({})", ranges.iter().map(one).collect::<Vec<_>>().join(" OR ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrites(covered: &[(u32, u64, u64)]) -> Rewrites {
        let covered = covered.iter().map(|&(partition, epoch, chunk)| Covered { partition, epoch, chunk });
        Rewrites { covered: covered.collect(), ..Rewrites::default() }
    }

    #[test]
    fn no_cell_outside_is_inside_of_the_bound() {
        let check = |covered: &[(u32, u64, u64)], expected: Option<(u32, u64, u64)>| {
            let bound = rewrites(covered).bound();
            assert_eq!(bound.map(|bound| (bound.partition, bound.epoch, bound.chunk)), expected, "{covered:?}");
            let Some(bound) = bound else { return };
            for (partition, epoch, chunk) in
                (0..5).flat_map(|p| (0..9).flat_map(move |e| (0..60).map(move |c| (p, e, c))))
            {
                let is_inside = covered.iter().any(|&(p, e, c)| (p, e) == (partition, epoch) && chunk < c);
                let is_in_bound = partition <= bound.partition && epoch == bound.epoch && chunk < bound.chunk;
                assert!(is_inside || !is_in_bound, "{covered:?} {partition} {epoch} {chunk}");
            }
        };
        check(&[(0, 7, 30)], Some((0, 7, 30)));
        check(&[(2, 7, 50), (0, 7, 30), (1, 7, 40)], Some((2, 7, 30)));
        check(&[(2, 7, 50), (1, 7, 40)], None);
        check(&[(0, 7, u64::MAX), (0, 8, 30)], None);
        check(&[], None);
    }
}
