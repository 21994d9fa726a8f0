//! A made-up log: chunks with random cells, and what an aggregator emits while it folds them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use flagmint_schemas::rollup::{Column, ContextPage, Role, Table};
use flagmint_schemas::sketch::latency::{BUCKETS, Histogram};
use flagmint_schemas::sketch::unique::Registers;

use crate::limits::{DAY_US, HOUR_US};
use crate::{Emission, Position};

/// Where the made-up log starts, microseconds: 2026-01-05, a day's start.
pub(super) const START_US: i64 = 1_767_571_200_000_000;

/// How long it lasts.
pub(super) const DAYS: i64 = 4;

/// A value of any column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// An id.
    Id([u8; 16]),
    /// A code of a vocabulary.
    Code(u8),
    /// A partition.
    U32(u32),
    /// A count, an epoch or an offset.
    U64(u64),
    /// A time, microseconds.
    I64(i64),
    /// A text.
    Text(String),
    /// A sketch in its stored form.
    Bytes(Vec<u8>),
}

/// A row, by column of its table.
pub(super) type Row = Vec<Value>;

/// SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn range(&mut self, range: Range<i64>) -> i64 {
        range.start + self.below((range.end - range.start) as u64) as i64
    }
}

/// One of a few values of a dimension, so that cells share and differ in dimensions.
pub(super) fn dimension(column: &Column, random: &mut Random) -> Value {
    let few = random.below(3) as u8;
    match column.data_type() {
        DataType::FixedSizeBinary(_) => Value::Id(if few == 0 { [0; 16] } else { [few; 16] }),
        DataType::UInt8 => Value::Code(few),
        DataType::Utf8 => Value::Text(["", "Böhm", "web:böHM\u{1F600}"][usize::from(few)].to_owned()),
        other => unreachable!("no dimension is a {other}"),
    }
}

/// The final value of a cell.
fn value(column: &Column, random: &mut Random) -> Value {
    match (column.role, column.data_type()) {
        (Role::Histogram, _) => {
            let mut counts = vec![0; BUCKETS];
            (0..random.below(20)).for_each(|_| counts[random.below(BUCKETS as u64) as usize] += random.below(1000));
            Value::Bytes(Histogram::from_dense(&counts).encode())
        }
        (Role::Registers, _) => {
            let mut registers = Registers::default();
            let many = if random.one_in(10) { 4000 } else { 20 };
            (0..random.below(many)).for_each(|_| {
                registers.insert(random.next());
            });
            Value::Bytes(registers.encode())
        }
        (_, DataType::Int64) => Value::I64(START_US + random.range(0..DAYS * DAY_US)),
        (_, DataType::Utf8) => Value::Text(format!("{:016x}{{\"n\":{}}}", random.below(1 << 40), random.below(9))),
        _ => Value::U64(1 + random.below(1000)),
    }
}

/// What a cell held earlier, `tenths` of the way to its final value.
fn earlier(role: Role, value: &Value, tenths: u64) -> Value {
    let missing = 10 - tenths;
    match (role, value) {
        (Role::Count | Role::Max, Value::U64(value)) => Value::U64(value * tenths / 10),
        (Role::Min, Value::I64(value)) => Value::I64(value + missing as i64 * 1000),
        (Role::Max, Value::I64(value)) => Value::I64(value - missing as i64 * 1000),
        (Role::Max, Value::Text(text)) if missing > 0 => {
            Value::Text(format!("{:016x}{{}}", text.len() as u64 * tenths))
        }
        (Role::Histogram, Value::Bytes(stored)) => {
            let mut counts = vec![0; BUCKETS];
            let histogram = Histogram::decode(stored).expect("made by encode");
            histogram.entries().iter().for_each(|(at, count)| counts[usize::from(*at)] = count * tenths / 10);
            Value::Bytes(Histogram::from_dense(&counts).encode())
        }
        (Role::Registers, Value::Bytes(_)) if missing > 0 => Value::Bytes(Registers::default().encode()),
        _ => value.clone(),
    }
}

/// One chunk and its final cells.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) epoch: u64,
    pub(super) partition: u32,
    pub(super) start: u64,
    cells: Vec<(Table, Row)>,
}

impl Chunk {
    fn random(epoch: u64, partition: u32, start: u64, now_us: i64, random: &mut Random) -> Self {
        let mut cells = Vec::new();
        for table in Table::ALL {
            let mut keys = std::collections::BTreeSet::new();
            for _ in 0..=random.below(12) {
                // Mostly recent, sometimes late.
                let back_us = if random.one_in(4) { random.range(0..DAY_US) } else { random.range(0..HOUR_US) };
                let time_us = (now_us - back_us).max(START_US).div_euclid(table.step_us()) * table.step_us();
                let chunk = [Value::U64(epoch), Value::U32(partition), Value::U64(start)];
                let mut chunk = chunk.into_iter();
                let row = table.columns().iter().map(|column| match column.role {
                    Role::Dimension => dimension(column, random),
                    Role::Time => Value::I64(time_us),
                    Role::Chunk => chunk.next().expect("three columns name the chunk"),
                    _ => value(column, random),
                });
                let row: Row = row.collect();
                let is_key = |at: &usize| table.columns()[*at].role.is_key();
                let key: Row = (0..row.len()).filter(is_key).map(|at| row[at].clone()).collect();
                if keys.insert(key) {
                    cells.push((table, row));
                }
            }
        }
        Self { epoch, partition, start, cells }
    }

    /// The cells as they were `tenths` of the way through the chunk.
    fn cells(&self, tenths: u64) -> Vec<(Table, Row)> {
        let visible = self.cells.len() * tenths as usize / 10;
        let at_the_time = |(table, row): &(Table, Row)| {
            let values = table.columns().iter().zip(row).map(|(column, value)| earlier(column.role, value, tenths));
            (*table, values.collect())
        };
        self.cells[..visible].iter().map(at_the_time).collect()
    }
}

/// An emission in plain values.
#[derive(Clone, Debug)]
pub(super) struct Tick {
    pub(super) cells: Vec<(Table, Row)>,
    pub(super) positions: Vec<Position>,
}

impl Tick {
    pub(super) fn emission(&self) -> Emission {
        let batch = |table: Table| {
            let rows: Vec<&Row> = self.cells.iter().filter(|(of, _)| *of == table).map(|(_, row)| row).collect();
            let (rows, is_empty) = (to_batch(table, &rows), rows.is_empty());
            // Some come in pages, some not.
            let is_paged = table == Table::Contexts && self.cells.len().is_multiple_of(2);
            let batch = if is_paged { ContextPage::closed(&rows).expect("rows of contexts") } else { rows };
            (!is_empty).then_some((table, batch))
        };
        Emission { cells: Table::ALL.into_iter().filter_map(batch).collect(), positions: self.positions.clone() }
    }

    /// The same in two emissions, positions with the second.
    pub(super) fn split(&self, random: &mut Random) -> [Self; 2] {
        let (mut first, mut second) = (vec![], vec![]);
        for cell in &self.cells {
            if random.one_in(2) { first.push(cell.clone()) } else { second.push(cell.clone()) }
        }
        [Self { cells: first, positions: vec![] }, Self { cells: second, positions: self.positions.clone() }]
    }
}

/// All that an aggregator emits for a made-up log, in order.
pub(super) fn ticks(random: &mut Random) -> Vec<Tick> {
    const CHUNKS: u64 = 12;
    const PARTITIONS: u32 = 2;
    let mut ticks = Vec::new();
    let time = |chunk: u64| START_US + (chunk as i64 + 1) * DAYS * DAY_US / CHUNKS as i64;
    for step in 0..CHUNKS {
        let chunks: Vec<Chunk> =
            (0..PARTITIONS).map(|partition| Chunk::random(7, partition, step * 100, time(step), random)).collect();
        for tenths in [3, 7, 10] {
            let mut tick = Tick { cells: vec![], positions: vec![] };
            for chunk in &chunks {
                tick.cells.extend(chunk.cells(tenths));
                tick.positions.push(Position {
                    epoch: chunk.epoch,
                    partition: chunk.partition,
                    chunk: if tenths == 10 { chunk.start + 100 } else { chunk.start },
                    next_offset: chunk.start + tenths * 10,
                    complete_through_us: time(step) - (10 - tenths as i64) * 60_000_000,
                });
            }
            ticks.push(tick);
        }
    }
    ticks
}

fn to_batch(table: Table, rows: &[&Row]) -> RecordBatch {
    macro_rules! column {
        ($array:ident, $variant:ident, $at:expr) => {
            Arc::new($array::from_iter_values(rows.iter().map(|row| match &row[$at] {
                Value::$variant(value) => value.clone(),
                other => unreachable!("{other:?} is of another type"),
            })))
        };
    }
    let ids = |at: usize| {
        let bytes: Vec<u8> = rows
            .iter()
            .flat_map(|row| match row[at] {
                Value::Id(id) => id,
                ref other => unreachable!("{other:?} is of another type"),
            })
            .collect();
        Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
    };
    let columns = table.columns().iter().enumerate().map(|(at, column)| -> ArrayRef {
        match column.data_type() {
            DataType::FixedSizeBinary(_) => ids(at),
            DataType::UInt8 => column!(UInt8Array, Code, at),
            DataType::UInt32 => column!(UInt32Array, U32, at),
            DataType::UInt64 => column!(UInt64Array, U64, at),
            DataType::Int64 => column!(Int64Array, I64, at),
            DataType::Utf8 => column!(StringArray, Text, at),
            _ => column!(BinaryArray, Bytes, at),
        }
    });
    RecordBatch::try_new(table.schema(), columns.collect()).expect("every column has its type")
}

/// The rows of an answer.
pub(super) fn from_batch(batch: &RecordBatch) -> Vec<Row> {
    let value = |array: &ArrayRef, row: usize| match array.data_type() {
        DataType::FixedSizeBinary(_) => {
            Value::Id(array.as_fixed_size_binary().value(row).try_into().expect("ids are 16 bytes"))
        }
        DataType::UInt8 => Value::Code(array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt32 => Value::U32(array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => Value::U64(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Int64 => Value::I64(array.as_primitive::<Int64Type>().value(row)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        other => panic!("no table has a column of type {other}"),
    };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|array| value(array, row)).collect()).collect()
}
