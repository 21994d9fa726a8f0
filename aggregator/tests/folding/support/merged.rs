//! The rules of merging, said once more and plainly: cells in a sorted map.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use flagmint_schemas::rollup::{ContextPage, Role, Table};
use flagmint_schemas::sketch::latency::Histogram;
use flagmint_schemas::sketch::unique::Registers;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Number(i128),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    pub fn number(&self) -> i128 {
        match self {
            Self::Number(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }
}

type Key = (Table, Vec<Value>);

/// Cells by key; `PartialEq` is equality of everything that a store could ever answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged(pub BTreeMap<Key, Vec<Value>>);

fn value(array: &dyn Array, row: usize) -> Value {
    match array.data_type() {
        DataType::UInt8 => Value::Number(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt32 => Value::Number(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Value::Number(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Int64 => Value::Number(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => Value::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        other => panic!("no table has {other}"),
    }
}

fn join(role: Role, a: &Value, b: &Value, across_chunks: bool) -> Value {
    match (role, a, b) {
        (Role::Count, Value::Number(a), Value::Number(b)) if across_chunks => Value::Number(a + b),
        (Role::Count | Role::Max, a, b) => a.max(b).clone(),
        (Role::Min, a, b) => a.min(b).clone(),
        (Role::Histogram, Value::Bytes(a), Value::Bytes(b)) => {
            let (mut a, b) = (Histogram::decode(a).unwrap(), Histogram::decode(b).unwrap());
            if across_chunks {
                a.merge_sum(&b)
            } else {
                a.merge_max(&b)
            }
            Value::Bytes(a.encode())
        }
        (Role::Registers, Value::Bytes(a), Value::Bytes(b)) => {
            let mut merged = Registers::decode(a).unwrap();
            merged.merge_encoded(b).unwrap();
            Value::Bytes(merged.encode())
        }
        other => panic!("{other:?} does not merge"),
    }
}

impl Merged {
    pub fn upsert(&mut self, cells: &[(Table, RecordBatch)]) {
        for (table, batch) in cells {
            let opened = ContextPage::are_in(batch).then(|| ContextPage::opened(batch).unwrap());
            let batch = opened.as_ref().unwrap_or(batch);
            for row in 0..batch.num_rows() {
                let (mut key, mut values) = (Vec::new(), Vec::new());
                for (column, array) in table.columns().iter().zip(batch.columns()) {
                    if column.role.is_key() { &mut key } else { &mut values }.push(value(array, row));
                }
                self.add((*table, key), values, false);
            }
        }
    }

    fn add(&mut self, key: Key, values: Vec<Value>, across_chunks: bool) {
        let roles = key.0.columns().iter().map(|column| column.role).filter(|role| !role.is_key());
        match self.0.get_mut(&key) {
            None => drop(self.0.insert(key, values)),
            Some(old) => {
                *old =
                    old.iter().zip(&values).zip(roles).map(|((a, b), role)| join(role, a, b, across_chunks)).collect();
            }
        }
    }

    /// The same merged across chunks.
    pub fn totals(&self) -> Self {
        let mut totals = Self::default();
        for ((table, key), values) in &self.0 {
            let roles = table.columns().iter().map(|column| column.role).filter(|role| role.is_key());
            let dimensions =
                key.iter().zip(roles).filter(|(_, role)| *role != Role::Chunk).map(|(value, _)| value.clone());
            totals.add((*table, dimensions.collect()), values.clone(), true);
        }
        totals
    }

    /// The cells of chunks from offset `chunk` on.
    pub fn since_chunk(&self, chunk: u64) -> Self {
        let is_later = |(table, key): &Key| {
            let names = table.columns().iter().filter(|column| column.role.is_key());
            let at = names.map(|column| column.name).position(|name| name == "chunk").unwrap();
            key[at].number() >= i128::from(chunk)
        };
        Self(
            self.0.iter().filter(|(key, _)| is_later(key)).map(|(key, values)| (key.clone(), values.clone())).collect(),
        )
    }

    /// Sum of a column over the rows of a table whose key columns satisfy `filter`.
    pub fn sum(&self, table: Table, column: &str, filter: impl Fn(&dyn Fn(&str) -> Value) -> bool) -> i128 {
        let position = |is_key: bool, name: &str| {
            let columns = table.columns().iter().filter(|column| column.role.is_key() == is_key);
            columns.map(|column| column.name).position(|it| it == name).unwrap()
        };
        let at = position(false, column);
        let rows = self.0.iter().filter(|((of, _), _)| *of == table);
        rows.filter(|((_, key), _)| filter(&|name| key[position(true, name)].clone()))
            .map(|(_, values)| values[at].number())
            .sum()
    }
}
