//! A store as simple as can be: all cells in one map, every question answered by going through all of them. Every backend is compared
//! with it, and simulations use it as their store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow::array::RecordBatch;
use flagmint_schemas::rollup::{Column, ContextPage, Role, Table};
use flagmint_schemas::sketch::latency::Histogram;
use flagmint_schemas::sketch::unique::Registers;

use super::world::{Row, Tick, Value, from_batch};
use crate::limits::{DAY_US, HOUR_US};
use crate::{Filter, Having, Page, Period, RollupQuery};

/// Cells by table and key.
#[derive(Clone, Debug)]
pub struct Model {
    cells: BTreeMap<(Table, Row), Row>,
    within_chunk: fn(Role, &Value, &Value) -> Value,
}

impl Default for Model {
    fn default() -> Self {
        Self { cells: BTreeMap::new(), within_chunk }
    }
}

impl Model {
    /// A store that is wrong: emissions of one cell add up. For tests that must notice that.
    #[must_use]
    pub fn adding_up() -> Self {
        Self { within_chunk: across_chunks, ..Self::default() }
    }

    /// Merges rows of a table, in its schema, or contexts in pages.
    ///
    /// # Panics
    /// If they are neither.
    pub fn insert(&mut self, table: Table, rows: &RecordBatch) {
        let opened = ContextPage::are_in(rows).then(|| ContextPage::opened(rows).expect("pages can be opened"));
        from_batch(opened.as_ref().unwrap_or(rows)).iter().for_each(|row| self.merge(table, row));
    }

    /// The rows that answer a question: the values of its `group_by`, its period, and every column that is no key.
    #[must_use]
    pub fn answer(&self, query: &RollupQuery) -> Vec<Vec<Value>> {
        self.query(query).0
    }

    /// Merges by the first rules.
    pub(super) fn upsert(&mut self, tick: &Tick) {
        tick.cells.iter().for_each(|(table, row)| self.merge(*table, row));
    }

    fn merge(&mut self, table: Table, row: &Row) {
        let of = |keys: bool| {
            let columns = table.columns().iter().zip(row);
            columns.filter(move |(column, _)| column.role.is_key() == keys).map(|(_, value)| value.clone())
        };
        let (key, values): (Row, Row) = (of(true).collect(), of(false).collect());
        match self.cells.entry((table, key)) {
            Entry::Vacant(new) => drop(new.insert(values)),
            Entry::Occupied(mut known) => merge(table, known.get_mut(), &values, self.within_chunk),
        }
    }

    /// The answer's rows, in order if the question has one, and how many there are before paging.
    pub(super) fn query(&self, query: &RollupQuery) -> (Vec<Row>, u64) {
        let keys: Vec<&Column> = query.table.columns().iter().filter(|column| column.role.is_key()).collect();
        let at = |name: &str| keys.iter().position(|column| column.name == name).expect("a key column");
        let mut groups: BTreeMap<Row, Row> = BTreeMap::new();
        for ((table, key), values) in &self.cells {
            if *table != query.table || !is_wanted(query, &keys, key) {
                continue;
            }
            let mut group: Row = query.group_by.iter().map(|name| key[at(name)].clone()).collect();
            let time_us = time_of(&keys, key);
            match query.period {
                Period::Whole => {}
                Period::Hour => group.push(Value::I64(time_us.div_euclid(HOUR_US) * HOUR_US)),
                Period::Day => group.push(Value::I64(time_us.div_euclid(DAY_US) * DAY_US)),
                Period::Spans(starts) => {
                    let start_us = starts.into_iter().filter(|start_us| *start_us <= time_us).max();
                    group.push(Value::I64(start_us.expect("the range lies in the spans")));
                }
            }
            let mut first = false;
            let merged = groups.entry(group).or_insert_with(|| {
                first = true;
                values.clone()
            });
            if !first {
                merge(*table, merged, values, across_chunks);
            }
        }
        let columns = || query.table.columns().iter().filter(|column| !column.role.is_key());
        let rows = groups.into_iter().map(|(mut group, values)| {
            let wanted = columns().zip(values).filter(|(column, _)| is_value_wanted(query, column));
            group.extend(wanted.map(|(_, value)| value));
            group
        });
        finish(rows.collect(), query)
    }
}

fn is_value_wanted(query: &RollupQuery, column: &Column) -> bool {
    query.values.as_ref().is_none_or(|values| values.contains(&column.name))
}

/// The columns of an answer.
pub(super) fn answered(query: &RollupQuery) -> Vec<&'static str> {
    let columns = query.table.columns();
    let time = columns.iter().filter(|column| column.role == Role::Time && query.period != Period::Whole);
    let values = columns.iter().filter(|column| !column.role.is_key() && is_value_wanted(query, column));
    query.group_by.iter().copied().chain(time.chain(values).map(|column| column.name)).collect()
}

fn time_of(keys: &[&Column], key: &Row) -> i64 {
    let time = keys.iter().zip(key).find(|(column, _)| column.role == Role::Time);
    match time {
        Some((_, Value::I64(us))) => *us,
        other => unreachable!("{other:?} is no time"),
    }
}

fn is_wanted(query: &RollupQuery, keys: &[&Column], key: &Row) -> bool {
    let value = |name: &str| keys.iter().position(|column| column.name == name).map(|at| &key[at]);
    let of_tenant = query
        .organization
        .is_none_or(|organization| value("organization") == Some(&Value::Id(organization.0.into_bytes())));
    let passes = |filter: &Filter| match filter {
        Filter::IdIn(name, ids) => ids.iter().any(|id| value(name) == Some(&Value::Id(id.into_bytes()))),
        Filter::CodeIn(name, codes) => codes.iter().any(|code| value(name) == Some(&Value::Code(*code))),
        Filter::TextIs(name, text) => value(name) == Some(&Value::Text(text.clone())),
    };
    query.time_us.contains(&time_of(keys, key)) && of_tenant && query.filters.iter().all(passes)
}

fn finish(mut rows: Vec<Row>, query: &RollupQuery) -> (Vec<Row>, u64) {
    let names = answered(query);
    let at = |name: &str| names.iter().position(|answered| *answered == name).expect("an answered column");
    if let Some(Having { columns, contains, or_equals }) = &query.having {
        let matches = |value: &Value| {
            let Value::Text(text) = value else { unreachable!("{value:?} is no text") };
            text.to_lowercase().contains(&contains.to_lowercase()) || or_equals.contains(text)
        };
        rows.retain(|row| columns.iter().any(|name| matches(&row[at(name)])));
    }
    let total = rows.len() as u64;
    if let Some(Page { order_by, offset, limit }) = &query.page {
        for (name, descending) in order_by.iter().rev() {
            let column = at(name);
            rows.sort_by(|a, b| if *descending { b[column].cmp(&a[column]) } else { a[column].cmp(&b[column]) });
        }
        rows = rows.into_iter().skip(*offset).take(*limit).collect();
    }
    (rows, total)
}

fn merge(table: Table, values: &mut Row, others: &Row, rule: fn(Role, &Value, &Value) -> Value) {
    let roles = table.columns().iter().map(|column| column.role).filter(|role| !role.is_key());
    for ((role, value), other) in roles.zip(values).zip(others) {
        *value = rule(role, value, other);
    }
}

fn within_chunk(role: Role, a: &Value, b: &Value) -> Value {
    match (role, a, b) {
        (Role::Histogram, Value::Bytes(a), Value::Bytes(b)) => histograms(a, b, Histogram::merge_max),
        (Role::Registers, Value::Bytes(a), Value::Bytes(b)) => registers(a, b),
        (Role::Min, a, b) => a.min(b).clone(),
        (_, a, b) => a.max(b).clone(),
    }
}

fn across_chunks(role: Role, a: &Value, b: &Value) -> Value {
    match (role, a, b) {
        (Role::Count, Value::U64(a), Value::U64(b)) => Value::U64(a + b),
        (Role::Histogram, Value::Bytes(a), Value::Bytes(b)) => histograms(a, b, Histogram::merge_sum),
        _ => within_chunk(role, a, b),
    }
}

fn histograms(a: &[u8], b: &[u8], rule: fn(&mut Histogram, &Histogram)) -> Value {
    let mut merged = Histogram::decode(a).expect("made by encode");
    rule(&mut merged, &Histogram::decode(b).expect("made by encode"));
    Value::Bytes(merged.encode())
}

fn registers(a: &[u8], b: &[u8]) -> Value {
    let mut merged = Registers::decode(a).expect("made by encode");
    merged.merge_encoded(b).expect("made by encode");
    Value::Bytes(merged.encode())
}
