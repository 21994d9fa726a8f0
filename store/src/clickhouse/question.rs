//! From a question to its SQL statements, and from their rows to the answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use flagmint_schemas::rollup::{Column, Role, Table};
use uuid::Uuid;

use super::contexts;
use super::join::{grouped, is_joinable};
use super::rewrites::{Level, Rewrites, project_keys, within};
use super::sketches;
use crate::limits::{DAY_US, QUERY_MEMORY_BYTES_MAX};
use crate::parts::{Parts, join};
use crate::query::{Rounding, wanted};
use crate::{Filter, RollupQuery, StoreError};

/// Rows of one table, merged: what they are grouped by, and how time appears.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    pub(super) table: Table,
    pub(super) group_by: &'a [&'static str],
    /// Times are rounded down and kept apart; `None` for one row over the whole range.
    pub(super) times: Option<Rounding>,
    /// As in [`RollupQuery`].
    pub(super) values: Option<&'a [&'static str]>,
}

impl Merge<'_> {
    pub(super) fn of(query: &RollupQuery) -> Merge<'_> {
        let times = query.period.rounding();
        Merge { table: query.table, group_by: &query.group_by, times, values: query.values.as_deref() }
    }

    fn values(&self) -> impl Iterator<Item = &'static Column> {
        wanted(self.table, self.values)
    }

    /// The columns that rows of the answer are told apart by, of a table that has their times in `time_us`.
    fn keys(&self) -> String {
        let names = self.group_by.iter().map(|name| format!("`{name}`, "));
        let mut keys: String = names.collect();
        match self.times {
            Some(Rounding::NONE) => keys.push_str("`time_us` AS `t`, "),
            Some(Rounding::Step(step)) => {
                write!(keys, "intDiv(`time_us`, {step}) * {step} AS `t`, ").expect("a text takes all");
            }
            Some(Rounding::Spans([first, second])) => {
                let time = format!("if(`time_us` < {second}, toInt64({first}), toInt64({second})) AS `t`, ");
                keys.push_str(&time);
            }
            None => {}
        }
        keys
    }

    /// Rows of a rewritten table that meet a condition: every key occurs once. What is behind `SELECT`, as of all sources.
    ///
    /// `PREWHERE`, as in `cells`: the server would find out that it is the best there is, which takes it as long as reading a few rows.
    pub(super) fn coarse(&self, table: &str, condition: &str) -> String {
        let values: Vec<String> = self.values().map(|value| format!("`{}`", value.name)).collect();
        format!("{}{} FROM `{table}` PREWHERE {condition}", self.keys(), values.join(", "))
    }

    /// Cells that meet a condition, each with its latest values. The condition is on keys alone, so whatever it leaves out it
    /// leaves out of all parts.
    ///
    /// `FINAL` merges by the tables' own rules, and only where sorted parts overlap: 15 times faster than grouping by all keys.
    pub(super) fn cells(&self, condition: &str) -> String {
        let values: Vec<&Column> = self.values().collect();
        let names: Vec<String> = values.iter().map(|value| format!("`{}`", value.name)).collect();
        let (keys, names) = (self.keys(), names.join(", "));
        if self.table == Table::Contexts {
            return format!("{keys}{names} FROM ({})", contexts::cells(&values, condition));
        }
        format!("{keys}{names} FROM `{}` FINAL PREWHERE {condition}", self.table.name())
    }

    /// Whether every row is fetched, since its sketch is merged here anyway: grouping them costs the server more than their numbers do.
    fn is_fetched_by_row(&self) -> bool {
        is_joinable(self.table) && self.values().any(|value| matches!(value.role, Role::Histogram | Role::Registers))
    }

    /// All rows of some sources, merged across chunks; sketches as lists.
    pub(super) fn sql(&self, sources: &[String]) -> String {
        let selects: Vec<String> = sources.iter().map(|source| format!("SELECT {source}")).collect();
        self.merged(&selects.join(" UNION ALL "), None)
    }

    /// A question about some sources, for [`Merge::read_all`]; or, where rows are to have the number of their source as [`SOURCE`], for
    /// [`Merge::read_apart`].
    pub(super) fn asked(&self, sources: &[String], is_apart: bool, is_short: bool) -> String {
        let select = |(number, source): (usize, &String)| {
            let number = if is_apart { format!("toUInt32({number}) AS `{SOURCE}`, ") } else { String::new() };
            format!("SELECT {number}{source}")
        };
        let selects = sources.iter().enumerate().map(select).collect::<Vec<_>>().join(" UNION ALL ");
        let mut settings = Vec::new();
        if is_short {
            settings.push("max_threads = 1, enable_multiple_prewhere_read_steps = 0".to_owned());
        }
        let sql = if self.is_fetched_by_row() {
            // As many as take the memory that the server has for grouping them.
            settings.push(format!("max_result_rows = 0, max_result_bytes = {QUERY_MEMORY_BYTES_MAX}"));
            selects
        } else {
            self.merged(&selects, is_apart.then_some(SOURCE))
        };
        if settings.is_empty() { sql } else { format!("{sql} SETTINGS {}", settings.join(", ")) }
    }

    /// Rows merged by the server: across chunks, and across sources unless there is a column that tells them apart.
    fn merged(&self, selects: &str, apart_by: Option<&str>) -> String {
        let merged = |value: &Column| {
            let function = match value.role {
                Role::Count => "sum",
                Role::Min => "min",
                Role::Histogram | Role::Registers => "groupArray",
                _ => "max",
            };
            format!("{function}(`{0}`) AS `{0}`", value.name)
        };
        let values: Vec<String> = self.values().map(merged).collect();
        let names = || apart_by.into_iter().chain(self.group_by.iter().copied());
        let mut keys: String = names().map(|name| format!("`{name}`, ")).collect();
        if self.times.is_some() {
            keys.push_str("`t` AS `time_us`, ");
        }
        let grouped: Vec<String> = names().chain(self.times.map(|_| "t")).map(|name| format!("`{name}`")).collect();
        // Without grouping, an aggregation over no rows still gives one.
        let last = if grouped.is_empty() {
            "HAVING count() > 0".to_owned()
        } else {
            format!("GROUP BY {}", grouped.join(", "))
        };
        format!("SELECT {keys}{} FROM ({selects}) {last}", values.join(", "))
    }

    /// The schema of the answer.
    pub(super) fn schema(&self) -> SchemaRef {
        let table = self.table.schema();
        let time = self.table.columns().iter().find(|column| column.role == Role::Time).map(|column| column.name);
        let keys = self.group_by.iter().copied().chain(self.times.and(time));
        let field = |name| table.field_with_name(name).expect("names were checked").clone();
        Arc::new(Schema::new(keys.chain(self.values().map(|value| value.name)).map(field).collect::<Vec<Field>>()))
    }

    /// The names of the answer's columns, as a list for a statement.
    pub(super) fn columns(&self) -> String {
        let schema = self.schema();
        schema.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ")
    }

    /// Rows as ClickHouse gives them, in the types of the answer.
    pub(super) fn read(&self, rows: &RecordBatch) -> Result<RecordBatch, StoreError> {
        let schema = self.schema();
        let wrong = |name: &str| StoreError::Fatal(format!("column {name} of ClickHouse's answer cannot be read"));
        let column = |field: &Arc<Field>| -> Result<ArrayRef, StoreError> {
            let name = field.name().as_str();
            let role = self.table.column(name).map(|column| column.role);
            let named = if role == Some(Role::Time) { rows.column_by_name("t") } else { None };
            let array = named.or_else(|| rows.column_by_name(name)).ok_or_else(|| wrong(name))?;
            let read = match (role, field.data_type(), array.data_type()) {
                (Some(Role::Histogram | Role::Registers), _, DataType::Binary) => sketches::unweighted(array),
                (Some(role @ (Role::Histogram | Role::Registers)), ..) => sketches::merged(role, array),
                (_, DataType::Utf8, DataType::Binary) => text(array),
                (_, wanted, found) if wanted == found => Some(Arc::clone(array)),
                _ => None,
            };
            read.ok_or_else(|| wrong(name))
        };
        let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(schema, columns)
            .map_err(|error| StoreError::Fatal(format!("ClickHouse's answer: {error}")))
    }

    /// Rows of a question about so many sources apart, as an answer from each.
    pub(super) fn read_apart(&self, batches: &[RecordBatch], sources: usize) -> Result<Vec<RecordBatch>, StoreError> {
        let of = |source: usize| {
            let own = |batch: &RecordBatch| {
                let numbers = batch.column_by_name(SOURCE)?.as_primitive_opt::<UInt32Type>()?;
                let is_own = BooleanArray::from_unary(numbers, |number| number as usize == source);
                filter_record_batch(batch, &is_own).ok()
            };
            let own = batches.iter().map(own).collect::<Option<Vec<_>>>();
            self.read_all(&own.ok_or_else(|| StoreError::Fatal(format!("ClickHouse's answer lacks {SOURCE}")))?)
        };
        (0..sources).map(of).collect()
    }

    /// All batches of an answer as one.
    pub(super) fn read_all(&self, batches: &[RecordBatch]) -> Result<RecordBatch, StoreError> {
        let batches = batches.iter().map(|batch| self.read(batch)).collect::<Result<Vec<_>, _>>()?;
        let too_large = |error| StoreError::Refuse(format!("the answer is too large: {error}"));
        let rows = concat_batches(&self.schema(), &batches).map_err(too_large)?;
        if !self.is_fetched_by_row() {
            return Ok(rows);
        }
        grouped(self.table, self.keys_len(), rows)
            .map_err(|error| StoreError::Fatal(format!("ClickHouse's answer: {error}")))
    }

    /// How many columns tell one row of the answer from another; they are the first.
    pub(super) fn keys_len(&self) -> usize {
        self.group_by.len() + usize::from(self.times.is_some())
    }
}

fn text(array: &ArrayRef) -> Option<ArrayRef> {
    let bytes = array.as_binary::<i32>();
    Some(Arc::new(StringArray::try_from_binary(bytes.clone()).ok()?))
}

/// The column that tells by which source rows are, in an answer that keeps sources apart.
const SOURCE: &str = "source_number";

/// What answers a question, each a part of it; nothing if no row can meet its filters. The server plans one statement beside the other.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// Sources of coarse rows alone: their answers do not change. Days apart from hours, which are made anew each hour.
    pub(super) settled: Vec<String>,
    /// Of cells, and of coarse rows too where answers cannot be joined.
    pub(super) current: Option<String>,
    /// Whether so little is read that a second thread costs more than it saves.
    pub(super) is_short: bool,
}

/// The statements for a question that was checked.
pub(super) fn statements(query: &RollupQuery, rewrites: &Rewrites) -> Statements {
    let Some(rows) = conditions(query) else { return Statements::default() };
    let merge = Merge::of(query);
    let (mut coarse, cells) = sources(query, &merge, &rows, rewrites);
    let mut current: Vec<String> = cells.into_iter().collect();
    if !is_joinable(query.table) {
        current.append(&mut coarse);
    }
    let is_short = is_short(query);
    let current = (!current.is_empty()).then(|| merge.asked(&current, false, is_short));
    Statements { settled: coarse, current, is_short }
}

/// Whether a question reads so little that a second thread costs more than it saves: sums and sketches of one project.
fn is_short(query: &RollupQuery) -> bool {
    let is_one = |filter: &Filter| matches!(filter, Filter::IdIn("project", ids) if ids.len() == 1);
    is_joinable(query.table) && query.table != Table::Decisions && query.filters.iter().any(is_one)
}

/// What selects a question's coarse rows, and its cells.
fn sources(query: &RollupQuery, merge: &Merge<'_>, rows: &str, rewrites: &Rewrites) -> (Vec<String>, Option<String>) {
    let table = query.table;
    let parts = Parts::new(table, &query.time_us, query.period);
    // What coarse rows answer, with the cells that they do not stand for; and what cells alone do.
    let (coarse, base) = if table.has_coarse_rows() {
        (parts.hour.iter().chain(&parts.day).cloned().collect(), parts.base.clone())
    } else if Level::of(table).is_empty() {
        (Vec::new(), parts.base.clone())
    } else {
        (parts.base.clone(), Vec::new())
    };
    let sources = coarse_sources(merge, (rows, is_about_projects(query)), &parts, rewrites);
    let kept_us = rewrites.expired_us(table);
    let outside = |ranges: String| format!("({ranges} AND {})", rewrites.outside(table));
    let coarse = within(&from(kept_us.max(rewrites.sealed_us), coarse)).map(outside);
    let cells: Vec<String> = coarse.into_iter().chain(within(&from(kept_us, base))).collect();
    (sources, (!cells.is_empty()).then(|| merge.cells(&format!("{rows}({})", cells.join(" OR ")))))
}

/// What of some ranges is not before a time. Bounds are joined here, since each comparison is planned, and made for each row.
fn from(start_us: i64, ranges: Vec<Range<i64>>) -> Vec<Range<i64>> {
    let cut = |range: Range<i64>| range.start.max(start_us)..range.end;
    ranges.into_iter().map(cut).filter(|range| range.start < range.end).collect()
}

/// Whether a question neither tells environments apart nor asks about some.
fn is_about_projects(query: &RollupQuery) -> bool {
    let keys = project_keys(query.table);
    let filtered = query.filters.iter().map(|filter| match filter {
        Filter::IdIn(name, _) | Filter::CodeIn(name, _) | Filter::TextIs(name, _) => *name,
    });
    !keys.is_empty() && query.group_by.iter().copied().chain(filtered).all(|name| keys.contains(&name))
}

fn coarse_sources(
    merge: &Merge<'_>,
    (rows, projects): (&str, bool),
    parts: &Parts,
    rewrites: &Rewrites,
) -> Vec<String> {
    let table = merge.table;
    let mut sources = Vec::new();
    let named = |level: &Level| if projects { level.projects(table) } else { level.table(table) };
    let mut add = |level: &Level, ranges: &[Range<i64>]| {
        let name = named(level);
        let mut generations = BTreeSet::new();
        for range in ranges {
            let days = range.start.div_euclid(DAY_US)..=(range.end - 1).div_euclid(DAY_US);
            generations.extend(rewrites.generations(&name).range(days).map(|(_, generation)| *generation));
        }
        if let Some(times) = within(ranges).filter(|_| !generations.is_empty()) {
            let generations: Vec<String> = generations.iter().map(u64::to_string).collect();
            sources.push(merge.coarse(&name, &format!("{rows}{times} AND {}", one_of("generation", &generations))));
        }
    };
    match Level::of(table) {
        [hour, day] => {
            let known = rewrites.generations(&named(day));
            let mut by_hour = parts.hour.clone();
            let mut by_day = Vec::new();
            for range in &parts.day {
                for start in (range.start.max(0)..range.end.min(rewrites.closed_us)).step_by(DAY_US as usize) {
                    let list = if known.contains_key(&start.div_euclid(DAY_US)) { &mut by_day } else { &mut by_hour };
                    join(list, start..start + DAY_US);
                }
            }
            add(day, &by_day);
            add(hour, &by_hour);
        }
        [same] => {
            // A generation of several days may still have rows of days that are past their retention.
            let first_us =
                rewrites.generations(&named(same)).first_key_value().map_or(i64::MAX, |(day, _)| day * DAY_US);
            let kept = parts.base.iter().map(|range| range.start.max(first_us)..range.end);
            add(same, &kept.filter(|range| range.start < range.end).collect::<Vec<_>>());
        }
        _ => {}
    }
    sources
}

/// The tenant and all filters, with a conjunction behind each; `None` if no row can meet them.
fn conditions(query: &RollupQuery) -> Option<String> {
    let mut sql = String::new();
    if let Some(organization) = query.organization {
        write!(sql, "`organization` = {} AND ", id(&organization.0)).expect("a text takes all");
    }
    for filter in &query.filters {
        let (name, values) = match filter {
            Filter::IdIn(name, ids) => (name, ids.iter().map(id).collect::<Vec<_>>()),
            Filter::CodeIn(name, codes) => (name, codes.iter().map(u8::to_string).collect()),
            Filter::TextIs(name, text) => (name, vec![literal(text.as_bytes())]),
        };
        if values.is_empty() {
            return None;
        }
        write!(sql, "{} AND ", one_of(name, &values)).expect("a text takes all");
    }
    Some(sql)
}

/// The condition that a column has one of some values. A list is a set to be built, even if there is one entry.
fn one_of(name: &str, values: &[String]) -> String {
    match values {
        [value] => format!("`{name}` = {value}"),
        _ => format!("`{name}` IN ({})", values.join(", ")),
    }
}

/// An id's bytes as a text, written so that nothing needs to be computed before it can be compared.
fn id(id: &Uuid) -> String {
    let bytes: String = id.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("'{bytes}'")
}

/// Bytes as hexadecimal digits: there is nothing in them that a statement could mistake for itself.
pub(super) fn literal(bytes: &[u8]) -> String {
    let mut sql = String::with_capacity(2 * bytes.len() + 9);
    sql.push_str("unhex('");
    bytes.iter().for_each(|byte| write!(sql, "{byte:02x}").expect("a text takes all"));
    sql.push_str("')");
    sql
}
