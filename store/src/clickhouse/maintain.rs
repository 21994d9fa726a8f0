//! What happens to rows over time: cells of closed hours and days become coarse rows, and what is old goes.
//!
//! Each rewriting makes new generations beside the old ones, a pure function of the cells stored and of the bounds, and then
//! puts them in force with one row (`rewrites.rs`). So it can fail anywhere and be repeated, by any instance. Generations
//! that are not in force are dropped only when nobody can still be reading them or about to put them in force.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use flagmint_schemas::rollup::{Role, Table};
use serde::Deserialize;

use super::Shared;
use super::client::Kind;
use super::insert;
use super::question::{Merge, literal};
use super::rewrites::{Covered, Level, Rewrites, of_chunks, project_keys};
use crate::StoreError;
use crate::check::rewritten_keys;
use crate::limits::{
    CLOSE_MARGIN_US, DAY_RETENTION_US, DAY_US, HOUR_US, LATE_EVENTS_US, MINUTE_RETENTION_US, REWRITE_INSERT_BYTES,
};
use crate::query::Rounding;

#[derive(Deserialize)]
struct Moment {
    us: i64,
}

#[derive(Deserialize)]
struct Day {
    day: i64,
}

#[derive(Deserialize)]
struct Part {
    table: String,
    partition: String,
}

impl Shared {
    /// Rewrites closed hours and days, once per hour; whether there was something to do.
    pub(super) async fn roll(&self, now_us: i64) -> Result<bool, StoreError> {
        let state = self.reload().await?;
        let Some(complete_us) = state.positions.complete_through_us() else { return Ok(false) };
        let before = state.rewrites;
        let closed_us = (complete_us - CLOSE_MARGIN_US).div_euclid(HOUR_US) * HOUR_US;
        if closed_us <= before.closed_us {
            return Ok(false);
        }
        let started_us = self.server_us().await?;
        let mut next = before.clone();
        next.version += 1;
        next.closed_us = closed_us;
        next.covered = state.positions.covered();
        let mut generation = Generation { next: started_us as u64 * 1000 };
        for table in rewritten_tables() {
            for day in self.days_outside(table, &before, next.closed_us(table)).await? {
                self.rewrite(table, day, &mut next, &mut generation).await?;
            }
        }
        next.sealed_us = self.seal(&next).await?;
        // A clock that jumps ahead must not delete anything.
        expire(&mut next, now_us.min(complete_us));
        self.commit(&next, started_us).await?;
        self.delete_told_again(&state.positions.told()).await?;
        Ok(true)
    }

    /// Up to when coarse rows stand for all cells there will be: an event this late would have been counted at the time of its append. Cells of a
    /// chunk that is still open are older only if nothing was appended for long, as while all evaluators were off.
    async fn seal(&self, next: &Rewrites) -> Result<i64, StoreError> {
        let mut sealed_us = (next.closed_us - LATE_EVENTS_US).div_euclid(DAY_US) * DAY_US;
        if sealed_us > next.sealed_us {
            for table in rewritten_tables() {
                let days = self.days_outside(table, next, sealed_us).await?;
                sealed_us = days.first().map_or(sealed_us, |day| day * DAY_US);
            }
        }
        Ok(sealed_us.max(next.sealed_us))
    }

    /// The time by the server's clock, microseconds.
    async fn server_us(&self) -> Result<i64, StoreError> {
        let rows: Vec<Moment> = self.client.records("SELECT toUnixTimestamp64Micro(now64(6)) AS `us`").await?;
        rows.first().map(|row| row.us).ok_or_else(|| StoreError::Retry("ClickHouse did not tell the time".to_owned()))
    }

    /// The days up to a time of which there are cells that coarse rows do not stand for, in order.
    async fn days_outside(&self, table: Table, before: &Rewrites, until_us: i64) -> Result<Vec<i64>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT intDiv(`time_us`, {DAY_US}) AS `day` FROM `{}` \
             WHERE `time_us` >= {} AND `time_us` < {until_us} AND {} ORDER BY `day`",
            table.name(),
            before.expired_us(table),
            before.outside(table),
        );
        let days: Vec<Day> = self.client.records(&sql).await?;
        Ok(days.into_iter().map(|row| row.day).collect())
    }

    /// Makes the coarse rows of a day anew, from all its cells inside the new bounds.
    async fn rewrite(
        &self,
        table: Table,
        day: i64,
        next: &mut Rewrites,
        generation: &mut Generation,
    ) -> Result<(), StoreError> {
        let (start_us, end_us) = (day * DAY_US, (day + 1) * DAY_US);
        let keys = rewritten_keys(table);
        let mut of_finer: Option<(String, u64)> = None;
        for level in Level::of(table) {
            if level.step_us == DAY_US && end_us > next.closed_us {
                break;
            }
            let merge = Merge { table, group_by: &keys, times: Some(Rounding::Step(level.step_us)), values: None };
            let source = match &of_finer {
                None => {
                    merge.cells(&format!("`time_us` >= {start_us} AND `time_us` < {end_us} AND {}", next.inside(table)))
                }
                Some((finer, generation)) => merge.coarse(finer, &format!("`generation` = {generation}")),
            };
            let name = level.table(table);
            let number = generation.take();
            self.fill(&merge, &name, number, &source).await?;
            self.take_along(&merge, *level, &name, (day, number), next).await?;
            self.add_up(table, *level, (day, number), next, generation).await?;
            of_finer = Some((name, number));
        }
        Ok(())
    }

    /// Makes the rows of whole projects from a day's coarse rows, if the table has such rows.
    async fn add_up(
        &self,
        table: Table,
        level: Level,
        (day, of): (i64, u64),
        next: &mut Rewrites,
        generation: &mut Generation,
    ) -> Result<(), StoreError> {
        let keys = project_keys(table);
        if keys.is_empty() {
            return Ok(());
        }
        let merge = Merge { table, group_by: &keys, times: Some(Rounding::Step(level.step_us)), values: None };
        let of_day = format!("`generation` = {of} AND intDiv(`time_us`, {DAY_US}) = {day}");
        let source = merge.coarse(&level.table(table), &of_day);
        let (name, number) = (level.projects(table), generation.take());
        self.fill(&merge, &name, number, &source).await?;
        self.take_along(&merge, level, &name, (day, number), next).await
    }

    /// Puts a day's new generation in the place of the one before, with the other days that it has rows of.
    async fn take_along(
        &self,
        merge: &Merge<'_>,
        level: Level,
        name: &str,
        (day, number): (i64, u64),
        next: &mut Rewrites,
    ) -> Result<(), StoreError> {
        let days = level.generation_days(merge.table);
        let first = day.div_euclid(days) * days;
        let mut others: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for (other, of) in next.generations(name).range(first..first + days).filter(|(other, _)| **other != day) {
            others.entry(*of).or_default().push(*other);
        }
        let columns = merge.columns();
        for (of, days) in others {
            let list = days.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            let select = format!(
                "SELECT {columns}, {number} FROM `{name}` WHERE `generation` = {of} AND intDiv(`time_us`, {DAY_US}) IN ({list})"
            );
            self.client.execute(&format!("INSERT INTO `{name}` ({columns}, `generation`) {select}")).await?;
            days.iter().for_each(|other| next.replace(name, *other, number));
        }
        next.replace(name, day, number);
        Ok(())
    }

    /// Writes one generation of a rewritten table.
    async fn fill(&self, merge: &Merge<'_>, name: &str, generation: u64, source: &str) -> Result<(), StoreError> {
        let sql = merge.sql(&[source.to_owned()]);
        let columns = merge.columns();
        let has_sketches =
            merge.table.columns().iter().any(|column| matches!(column.role, Role::Histogram | Role::Registers));
        if !has_sketches {
            let select = format!("SELECT {columns}, {generation} FROM ({sql})");
            return self.client.execute(&format!("INSERT INTO `{name}` ({columns}, `generation`) {select}")).await;
        }
        // Sketches are merged here, by the functions that the fold uses.
        let into = format!("INSERT INTO `{name}` ({columns}, `generation`) FORMAT ArrowStream");
        let sql = format!("SELECT *, toUInt64({generation}) AS `generation` FROM ({sql})");
        let mut answer = self.client.answer(Kind::Work, &sql)?;
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        // Answers come in hundreds of small batches; an insert costs milliseconds whatever is in it.
        while let Some(rows) = answer.next().await? {
            let merged = merge.read(&rows)?;
            let weighted = insert::weighted(merge.table, &merged);
            let weighted = weighted.ok_or_else(|| StoreError::Fatal(format!("a sketch of {name} is damaged")))?;
            let numbers = rows.column_by_name("generation").cloned();
            let numbers = numbers.ok_or_else(|| StoreError::Fatal("a column is missing".to_owned()))?;
            let rows = with_column(&weighted, "generation", numbers)?;
            bytes += rows.get_array_memory_size();
            waiting.push(rows);
            if bytes >= REWRITE_INSERT_BYTES {
                self.client.insert(&into, insert::body(&joined(&std::mem::take(&mut waiting))?)?).await?;
                bytes = 0;
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        self.client.insert(&into, insert::body(&joined(&waiting)?)?).await
    }

    /// Puts new generations in force, unless somebody else did or it took so long that they may be gone.
    async fn commit(&self, next: &Rewrites, started_us: i64) -> Result<(), StoreError> {
        let body = serde_json::to_string(next).map_err(|error| StoreError::Fatal(error.to_string()))?;
        // Generations that are not in force are kept for twice as long.
        let deadline_us = started_us + self.grace.as_micros() as i64 / 2;
        let now = "toUnixTimestamp64Micro(now64(6))";
        let sql = format!(
            "INSERT INTO `rewrites` (`version`, `committed_us`, `body`) SELECT {}, {now}, {} \
             WHERE {now} < {deadline_us} AND (SELECT max(`version`) FROM `rewrites`) = {}",
            next.version,
            literal(body.as_bytes()),
            next.version - 1,
        );
        self.client.execute(&sql).await?;
        let state = self.reload().await?;
        if state.rewrites.covered != next.covered || state.rewrites.version != next.version {
            tracing::debug!(version = next.version, "another instance rewrote the same hours");
        }
        Ok(())
    }

    /// Deletes pages of contexts as they were before their chunk was complete: with its last values a chunk tells all its contexts once more.
    async fn delete_told_again(&self, told: &[Covered]) -> Result<(), StoreError> {
        let name = Table::Contexts.name();
        let (local, on_cluster) = (self.layout.local(name), self.layout.on_cluster());
        for (_, partition) in self.partitions().await?.into_iter().filter(|(table, _)| table == name) {
            if numbers(&partition)[..].ends_with(&[0]) {
                let delete = format!("DELETE IN PARTITION {partition} WHERE `complete` = 0 AND ({})", of_chunks(told));
                self.client.execute(&format!("ALTER TABLE `{local}` {on_cluster} {delete}")).await?;
            }
        }
        Ok(())
    }

    /// Drops what is not in force any more and of no use to anybody.
    pub(super) async fn sweep(&self) -> Result<(), StoreError> {
        let state = self.reload().await?;
        let rewrites = state.rewrites;
        let grace_us = self.grace.as_micros() as i64;
        let now_us = self.server_us().await?;
        if rewrites.version == 0 || now_us - rewrites.committed_us < grace_us || !self.is_unswept(rewrites.version) {
            return Ok(());
        }
        for (table, partition) in self.partitions().await? {
            if self.is_unused(&rewrites, &table, &partition, now_us) {
                tracing::debug!(table, partition, "dropping a partition");
                let (local, on_cluster) = (self.layout.local(&table), self.layout.on_cluster());
                self.client.execute(&format!("ALTER TABLE `{local}` {on_cluster} DROP PARTITION {partition}")).await?;
            }
        }
        self.swept(rewrites.version);
        Ok(())
    }

    /// All partitions of all tables.
    async fn partitions(&self) -> Result<Vec<(String, String)>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT table, partition FROM system.parts WHERE active AND database = {}",
            literal(self.layout.database().as_bytes())
        );
        let parts: Vec<Part> = self.client.records(&sql).await?;
        let names: BTreeMap<String, String> =
            all_tables().into_iter().map(|name| (self.layout.local(&name), name)).collect();
        let named = |part: Part| Some((names.get(&part.table)?.clone(), part.partition));
        Ok(parts.into_iter().filter_map(named).collect())
    }

    fn is_unused(&self, rewrites: &Rewrites, table: &str, partition: &str, now_us: i64) -> bool {
        let cells = Table::ALL.into_iter().find(|known| known.name() == table);
        match (cells, &numbers(partition)[..]) {
            (Some(table), [span, ..]) => {
                let length_us = if table == Table::Chunks { 32 * DAY_US } else { DAY_US };
                (*span as i64 + 1) * length_us <= rewrites.expired_us(table)
            }
            (None, [_, generation]) => {
                // Somebody may still be making it.
                let is_old = generation / 1000 + (self.grace.as_micros() as u64) < now_us as u64;
                is_old && !rewrites.has_generation(table, *generation)
            }
            _ => false,
        }
    }
}

/// The numbers that name a partition.
fn numbers(partition: &str) -> Vec<u64> {
    partition.trim_matches(['(', ')']).split(',').flat_map(str::parse).collect()
}

/// Names of generations, never used twice: the server's time, with room for those of one rewriting.
struct Generation {
    next: u64,
}

impl Generation {
    fn take(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The tables that have coarse rows of hours or days.
fn rewritten_tables() -> impl Iterator<Item = Table> {
    Table::ALL.into_iter().filter(|table| !Level::of(*table).is_empty())
}

fn all_tables() -> Vec<String> {
    let of = |table: Table| {
        let coarse = Level::of(table).iter().flat_map(move |level| [level.table(table), level.projects(table)]);
        std::iter::once(table.name().to_owned()).chain(coarse)
    };
    Table::ALL.into_iter().flat_map(of).collect()
}

/// Leaves out what is past its retention.
fn expire(next: &mut Rewrites, now_us: i64) {
    for table in Table::ALL {
        let levels = Level::of(table);
        for level in levels {
            let before_day = (now_us - level.retention_us(table)).div_euclid(DAY_US);
            next.forget(&level.table(table), before_day);
            next.forget(&level.projects(table), before_day);
        }
        // Cells that coarse rows stand for are of use only to questions about minutes.
        let kept_us = if levels.is_empty() { DAY_RETENTION_US } else { MINUTE_RETENTION_US };
        let mut before_us = (now_us - kept_us).div_euclid(DAY_US) * DAY_US;
        if !levels.is_empty() {
            before_us = before_us.min(next.sealed_us);
        }
        next.expire(table, before_us.max(0));
    }
}

fn with_column(rows: &RecordBatch, name: &str, column: arrow::array::ArrayRef) -> Result<RecordBatch, StoreError> {
    let mut columns: Vec<(String, arrow::array::ArrayRef)> =
        rows.schema().fields().iter().map(|field| field.name().clone()).zip(rows.columns().iter().cloned()).collect();
    columns.push((name.to_owned(), column));
    RecordBatch::try_from_iter(columns).map_err(|error| StoreError::Fatal(error.to_string()))
}

/// Batches of one schema, of which there is at least one, as one.
fn joined(batches: &[RecordBatch]) -> Result<RecordBatch, StoreError> {
    concat_batches(&batches[0].schema(), batches).map_err(|error| StoreError::Fatal(error.to_string()))
}
