//! Columns of rollup tables: type, role, and how a Rust value becomes an Arrow value and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryArray, Int64Array, RecordBatch, StringBuilder, UInt8Array,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use thiserror::Error;
use uuid::Uuid;

use super::Table;
use crate::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};

/// What a column is for, and how its values merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Part of the key that questions filter and group by.
    Dimension,
    /// Start of the minute, hour or day, microseconds since the Unix epoch; part of the key.
    Time,
    /// Names the chunk (log epoch, partition, first offset); part of the key, never asked for.
    Chunk,
    /// Cumulative count: maximum within a chunk, sum across chunks.
    Count,
    /// Minimum within and across chunks.
    Min,
    /// Maximum within and across chunks. For text: a profile prefixed with its time, so that the latest wins.
    Max,
    /// Latency histogram (`sketch::latency`): per bucket maximum within a chunk, sum across chunks.
    Histogram,
    /// HyperLogLog registers (`sketch::unique`): per register maximum within and across chunks.
    Registers,
}

impl Role {
    /// Whether the column is part of a cell's key.
    #[must_use]
    pub const fn is_key(self) -> bool {
        matches!(self, Self::Dimension | Self::Time | Self::Chunk)
    }
}

/// One column of a rollup table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name in every store.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    pub(crate) data_type: fn() -> DataType,
}

impl Column {
    /// Its Arrow type.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        (self.data_type)()
    }
}

/// Rows that are not of the table they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("rows are not of table {table}: column {column} is missing or of another type")]
pub struct CellError {
    /// The table expected.
    pub table: &'static str,
    /// The column that differs.
    pub column: &'static str,
}

/// A typed row of one table.
pub trait Cell: Sized {
    /// The table.
    const TABLE: Table;

    /// Its columns, in order.
    fn columns() -> &'static [Column];

    /// Rows as one Arrow batch in the table's schema.
    fn to_batch(rows: &[Self]) -> RecordBatch;

    /// Rows of an Arrow batch that has (at least) the table's columns, by name.
    ///
    /// # Errors
    /// If a column is missing or of another type.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, CellError>;
}

/// A Rust type that a column can hold.
pub trait CellValue: Sized {
    /// The Arrow type.
    fn data_type() -> DataType;

    /// Values as an Arrow array.
    fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef
    where
        Self: 'a;

    /// Values of an Arrow array; `None` if it is of another type.
    fn from_array(array: &ArrayRef) -> Option<Vec<Self>>;
}

/// Primitive columns.
macro_rules! primitive {
    ($($rust:ty => $data_type:ident, $array:ident, $arrow:ident;)+) => {$(
        impl CellValue for $rust {
            fn data_type() -> DataType {
                DataType::$data_type
            }

            fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
                Arc::new($array::from_iter_values(values.copied()))
            }

            fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
                Some(array.as_primitive_opt::<$arrow>()?.values().to_vec())
            }
        }
    )+};
}

primitive! {
    u8 => UInt8, UInt8Array, UInt8Type;
    u32 => UInt32, UInt32Array, UInt32Type;
    u64 => UInt64, UInt64Array, UInt64Type;
    i64 => Int64, Int64Array, Int64Type;
}

/// How many there are and what they add up to: memory for a column is taken once, as growing it would copy it again and again.
fn size(lengths: impl Iterator<Item = usize>) -> (usize, usize) {
    lengths.fold((0, 0), |(rows, bytes), length| (rows + 1, bytes + length))
}

impl CellValue for String {
    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
        let (rows, bytes) = size(values.clone().map(String::len));
        let mut array = StringBuilder::with_capacity(rows, bytes);
        values.for_each(|value| array.append_value(value));
        Arc::new(array.finish())
    }

    fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
        let array = array.as_string_opt::<i32>()?;
        Some((0..array.len()).map(|row| array.value(row).to_owned()).collect())
    }
}

impl CellValue for Vec<u8> {
    fn data_type() -> DataType {
        DataType::Binary
    }

    fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
        let (rows, bytes) = size(values.clone().map(Vec::len));
        let mut array = BinaryBuilder::with_capacity(rows, bytes);
        values.for_each(|value| array.append_value(value));
        Arc::new(array.finish())
    }

    fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
        let array = array.as_binary_opt::<i32>()?;
        Some((0..array.len()).map(|row| array.value(row).to_vec()).collect())
    }
}

fn ids_to_array<'a>(values: impl Iterator<Item = &'a Uuid>) -> ArrayRef {
    let bytes: Vec<u8> = values.flat_map(|id| *id.as_bytes()).collect();
    Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
}

fn ids_from_array(array: &ArrayRef) -> Option<Vec<Uuid>> {
    let array = array.as_fixed_size_binary_opt()?;
    (0..array.len()).map(|row| Uuid::from_slice(array.value(row)).ok()).collect()
}

/// Id columns: 16 bytes, nil for "none".
macro_rules! id_column {
    ($($id:ident,)+) => {$(
        impl CellValue for $id {
            fn data_type() -> DataType {
                DataType::FixedSizeBinary(16)
            }

            fn to_array<'a>(values: impl Iterator<Item = &'a Self> + Clone) -> ArrayRef {
                ids_to_array(values.map(|id| &id.0))
            }

            fn from_array(array: &ArrayRef) -> Option<Vec<Self>> {
                Some(ids_from_array(array)?.into_iter().map(Self).collect())
            }
        }
    )+};
}

id_column! { OrganizationId, ProjectId, EnvironmentId, FlagId, VariationId, RuleId, KeyId, }
