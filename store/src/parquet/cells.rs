//! The cells of one chunk in one table while they are in memory: a table keyed by dimensions and time, merged by the
//! first rule of each column.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Int64Type, UInt32Type, UInt64Type};
use arrow::row::{RowConverter, SortField};
use flagmint_schemas::rollup::{Role, Table};
use flagmint_schemas::sketch::latency::{self, Histogram};
use flagmint_schemas::sketch::unique::{self, Registers};
use indexmap::IndexSet;

use crate::{StoreError, check};

/// Names a chunk of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkId {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    /// First offset.
    pub(super) chunk: u64,
}

/// How rows of one table are taken apart: which columns are its key, its chunk and its values.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) table: Table,
    /// Dimensions and time.
    key: Vec<usize>,
    /// Epoch, partition, first offset.
    chunk: [usize; 3],
    values: Vec<(usize, Role)>,
    converter: RowConverter,
}

impl Layout {
    pub(super) fn new(table: Table) -> Self {
        let columns = table.columns();
        let of = |wanted: fn(Role) -> bool| {
            (0..columns.len()).filter(|at| wanted(columns[*at].role)).collect::<Vec<usize>>()
        };
        let key = of(|role| role.is_key() && role != Role::Chunk);
        let fields = key.iter().map(|at| SortField::new(columns[*at].data_type())).collect();
        Self {
            table,
            chunk: of(|role| role == Role::Chunk).try_into().expect("three columns name the chunk"),
            values: of(|role| !role.is_key()).into_iter().map(|at| (at, columns[at].role)).collect(),
            converter: RowConverter::new(fields).expect("key columns have an order"),
            key,
        }
    }

    /// Refuses rows that are not of the table, or whose sketches cannot be read.
    pub(super) fn check(&self, batch: &RecordBatch) -> Result<(), StoreError> {
        let name = self.table.name();
        check::rows(self.table, batch)?;
        for (at, role) in &self.values {
            let readable = |stored: Option<&[u8]>| match role {
                Role::Histogram => latency::count(stored.unwrap_or_default()).is_ok(),
                Role::Registers => unique::sum(stored.unwrap_or_default()).is_ok(),
                _ => true,
            };
            if batch.column(*at).as_binary_opt::<i32>().is_some_and(|column| !column.iter().all(readable)) {
                return Err(StoreError::Refuse(format!("a sketch in table {name} is damaged")));
            }
        }
        Ok(())
    }

    /// The chunk of each row.
    pub(super) fn chunks(&self, batch: &RecordBatch) -> impl Iterator<Item = ChunkId> {
        let [epoch, partition, chunk] = self.chunk.map(|at| Arc::clone(batch.column(at)));
        (0..batch.num_rows()).map(move |row| ChunkId {
            epoch: epoch.as_primitive::<UInt64Type>().value(row),
            partition: partition.as_primitive::<UInt32Type>().value(row),
            chunk: chunk.as_primitive::<UInt64Type>().value(row),
        })
    }

    /// The keys of all rows, comparable as bytes.
    pub(super) fn keys(&self, batch: &RecordBatch) -> arrow::row::Rows {
        let columns: Vec<ArrayRef> = self.key.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        self.converter.convert_columns(&columns).expect("the rows are of the table")
    }
}

/// The cells of one chunk in one table.
#[derive(Debug)]
pub(super) struct ChunkCells {
    keys: IndexSet<Box<[u8]>>,
    values: Vec<Values>,
    bytes: usize,
    batch: Option<RecordBatch>,
}

impl ChunkCells {
    pub(super) fn new(layout: &Layout) -> Self {
        let schema = layout.table.schema();
        let values = layout.values.iter().map(|(at, _)| Values::new(schema.field(*at).data_type())).collect();
        Self { keys: IndexSet::new(), values, bytes: 0, batch: None }
    }

    /// Memory taken, bytes, roughly.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Merges one row of a batch that was checked.
    pub(super) fn merge(&mut self, layout: &Layout, key: &[u8], batch: &RecordBatch, row: usize) {
        self.batch = None;
        if let Some(at) = self.keys.get_index_of(key) {
            for (values, (column, role)) in self.values.iter_mut().zip(&layout.values) {
                self.bytes += values.merge(*role, at, batch.column(*column), row);
            }
            return;
        }
        self.keys.insert(key.into());
        self.bytes += key.len() + CELL_OVERHEAD;
        for (values, (column, _)) in self.values.iter_mut().zip(&layout.values) {
            self.bytes += values.push(batch.column(*column), row);
        }
    }

    /// All cells as rows of the table.
    pub(super) fn batch(&mut self, layout: &Layout, id: ChunkId) -> RecordBatch {
        if let Some(batch) = &self.batch {
            return batch.clone();
        }
        let parser = layout.converter.parser();
        let keys = layout
            .converter
            .convert_rows(self.keys.iter().map(|key| parser.parse(key)))
            .expect("the keys were made by the same converter");
        let rows = self.keys.len();
        let chunk: [ArrayRef; 3] = [
            Arc::new(UInt64Array::from_value(id.epoch, rows)),
            Arc::new(UInt32Array::from_value(id.partition, rows)),
            Arc::new(UInt64Array::from_value(id.chunk, rows)),
        ];
        let values = self.values.iter().map(Values::to_array);
        let at = layout.key.iter().chain(&layout.chunk).copied().chain(layout.values.iter().map(|(at, _)| *at));
        let mut columns: Vec<(usize, ArrayRef)> = at.zip(keys.into_iter().chain(chunk).chain(values)).collect();
        columns.sort_unstable_by_key(|(at, _)| *at);
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(layout.table.schema(), columns).expect("every column has its type");
        self.batch = Some(batch.clone());
        batch
    }
}

/// What an entry of the index and the copy for readers take beside the key, bytes.
const CELL_OVERHEAD: usize = 200;

/// The values of one column.
#[derive(Debug)]
enum Values {
    Unsigned(Vec<u64>),
    Signed(Vec<i64>),
    Text(Vec<String>),
    Bytes(Vec<Vec<u8>>),
}

impl Values {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::UInt64 => Self::Unsigned(Vec::new()),
            DataType::Int64 => Self::Signed(Vec::new()),
            DataType::Utf8 => Self::Text(Vec::new()),
            DataType::Binary => Self::Bytes(Vec::new()),
            other => unreachable!("no table has values of type {other}"),
        }
    }

    /// Appends; returns the bytes taken.
    fn push(&mut self, array: &ArrayRef, row: usize) -> usize {
        match self {
            Self::Unsigned(values) => values.push(array.as_primitive::<UInt64Type>().value(row)),
            Self::Signed(values) => values.push(array.as_primitive::<Int64Type>().value(row)),
            Self::Text(values) => {
                values.push(array.as_string::<i32>().value(row).to_owned());
                return values.last().map_or(0, String::len) + size_of::<String>();
            }
            Self::Bytes(values) => {
                values.push(array.as_binary::<i32>().value(row).to_vec());
                return values.last().map_or(0, Vec::len) + size_of::<Vec<u8>>();
            }
        }
        size_of::<u64>()
    }

    /// Merges two emissions of one cell; returns the bytes by which it grew.
    fn merge(&mut self, role: Role, at: usize, array: &ArrayRef, row: usize) -> usize {
        match self {
            Self::Unsigned(values) => pick(role, &mut values[at], array.as_primitive::<UInt64Type>().value(row)),
            Self::Signed(values) => pick(role, &mut values[at], array.as_primitive::<Int64Type>().value(row)),
            Self::Text(values) => {
                let new = array.as_string::<i32>().value(row);
                if (role == Role::Min) == (new < values[at].as_str()) {
                    new.clone_into(&mut values[at]);
                }
            }
            Self::Bytes(values) => {
                let before = values[at].len();
                merge_sketch(role, &mut values[at], array.as_binary::<i32>().value(row));
                return values[at].len().saturating_sub(before);
            }
        }
        0
    }

    fn to_array(&self) -> ArrayRef {
        match self {
            Self::Unsigned(values) => Arc::new(UInt64Array::from_iter_values(values.iter().copied())),
            Self::Signed(values) => Arc::new(Int64Array::from_iter_values(values.iter().copied())),
            Self::Text(values) => Arc::new(StringArray::from_iter_values(values)),
            Self::Bytes(values) => Arc::new(BinaryArray::from_iter_values(values)),
        }
    }
}

fn pick<T: Ord + Copy>(role: Role, value: &mut T, new: T) {
    *value = if role == Role::Min { new.min(*value) } else { new.max(*value) };
}

fn merge_sketch(role: Role, value: &mut Vec<u8>, new: &[u8]) {
    const CHECKED: &str = "sketches are checked before they are merged";
    if value == new {
        return;
    }
    *value = if role == Role::Histogram {
        let mut merged = Histogram::decode(value).expect(CHECKED);
        merged.merge_max(&Histogram::decode(new).expect(CHECKED));
        merged.encode()
    } else {
        let mut merged = Registers::decode(value).expect(CHECKED);
        merged.merge_encoded(new).expect(CHECKED);
        merged.encode()
    };
}
