//! The simulated store: the model of the conformance suite, with the positions of the fold and the watermark that readers see.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use flagmint_schemas::rollup::Table;
use flagmint_store::conformance::{Model, Value};
use flagmint_store::{Period, Position, RollupQuery};

/// How emissions of one cell merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// By the rules.
    Maximum,
    /// Wrongly, to show that it is noticed.
    Sum,
}

pub struct Store {
    model: Model,
    positions: BTreeMap<(u64, u32), Position>,
    /// Chunk starts as committed to the log's consumer group: whatever came last, which need not be the latest.
    pub commits: BTreeMap<(u64, u32), u64>,
    told_us: Option<i64>,
}

impl Store {
    pub fn new(merge: Merge) -> Self {
        let model = match merge {
            Merge::Maximum => Model::default(),
            Merge::Sum => Model::adding_up(),
        };
        Self { model, positions: BTreeMap::new(), commits: BTreeMap::new(), told_us: None }
    }

    /// Inserts rows of one table.
    pub fn insert(&mut self, table: Table, rows: &RecordBatch) {
        self.model.insert(table, rows);
    }

    /// Moves positions, once all cells of their emission are in.
    pub fn advance(&mut self, positions: &[Position]) {
        for position in positions {
            let known = self.positions.entry((position.epoch, position.partition)).or_insert(*position);
            known.chunk = known.chunk.max(position.chunk);
            known.next_offset = known.next_offset.max(position.next_offset);
            known.complete_through_us = known.complete_through_us.max(position.complete_through_us);
        }
    }

    pub fn position(&self, epoch: u64, partition: u32) -> Option<&Position> {
        self.positions.get(&(epoch, partition))
    }

    /// The watermark that a reader is told: never before what one was told earlier.
    pub fn complete_through_us(&mut self, epoch: u64, partitions: u32) -> Option<i64> {
        let of = |partition| self.position(epoch, partition).map(|position| position.complete_through_us);
        let lowest = (0..partitions).map(of).min().flatten().filter(|us| *us != i64::MIN);
        self.told_us = self.told_us.max(lowest);
        self.told_us
    }

    /// Merged rows over all time: the values of `group_by`, then those of every column that is no key.
    pub fn ask(&self, table: Table, group_by: &[&'static str]) -> Vec<Vec<Value>> {
        self.model.answer(&RollupQuery {
            table,
            organization: None,
            time_us: i64::MIN..i64::MAX,
            filters: vec![],
            group_by: group_by.to_vec(),
            period: Period::Whole,
            values: None,
            having: None,
            page: None,
        })
    }
}

/// A whole number.
pub fn number(value: &Value) -> i128 {
    match value {
        Value::Code(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        other => panic!("{other:?} is no number"),
    }
}

/// The value of a column in an answer of [`Store::ask`].
pub fn column<'a>(table: Table, group_by: &[&'static str], row: &'a [Value], name: &str) -> &'a Value {
    let values = table.columns().iter().filter(|column| !column.role.is_key()).map(|column| column.name);
    let at = group_by.iter().copied().chain(values).position(|it| it == name);
    &row[at.unwrap_or_else(|| panic!("{name} is not in the answer"))]
}
