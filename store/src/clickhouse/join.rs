//! Joins two answers to one question, from rows that have nothing in common: merged across chunks by the rules by which ClickHouse merges
//! the rows of each.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, BinaryArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::UInt64Type;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use flagmint_schemas::rollup::{Role, Table};
use indexmap::IndexSet;

use super::sketches;

/// Whether answers from a table can be joined: all that is in them is added up or a sketch. Contexts are not, since their answers are of the
/// size of the table, and better merged where they are.
pub(super) fn is_joinable(table: Table) -> bool {
    let values = table.columns().iter().filter(|column| !column.role.is_key());
    values.map(|column| column.role).all(|role| matches!(role, Role::Count | Role::Histogram | Role::Registers))
}

/// All rows of both, of which the first `keys` columns tell one from another.
pub(super) fn joined(
    table: Table,
    keys: usize,
    one: RecordBatch,
    other: RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    if one.num_rows() == 0 || other.num_rows() == 0 {
        return Ok(if one.num_rows() == 0 { other } else { one });
    }
    grouped(table, keys, concat_batches(&one.schema(), [&one, &other])?)
}

/// Rows with those merged into one that are alike in the first `keys` columns.
pub(super) fn grouped(table: Table, keys: usize, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    if rows.num_rows() <= 1 {
        return Ok(rows);
    }
    let groups = Groups::of(&rows, keys)?;
    let column = |(at, array): (usize, &ArrayRef)| {
        let role = table.column(rows.schema_ref().field(at).name()).map(|column| column.role);
        match role {
            Some(Role::Count) => Ok(groups.sums(array)),
            Some(role @ (Role::Histogram | Role::Registers)) => groups.sketches(role, array),
            _ => take(array, &groups.first, None),
        }
    };
    let columns = rows.columns().iter().enumerate().map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(rows.schema(), columns)
}

/// Which rows are one in the answer.
struct Groups {
    /// By row.
    of: Vec<usize>,
    /// By group: its first row.
    first: UInt32Array,
}

impl Groups {
    fn of(rows: &RecordBatch, keys: usize) -> Result<Self, ArrowError> {
        if keys == 0 {
            return Ok(Self { of: vec![0; rows.num_rows()], first: UInt32Array::from(vec![0]) });
        }
        let columns = &rows.columns()[..keys];
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converted = RowConverter::new(fields)?.convert_columns(columns)?;
        let mut known = IndexSet::new();
        let (mut of, mut first) = (Vec::with_capacity(rows.num_rows()), Vec::new());
        for (row, key) in (0..).zip(converted.iter()) {
            let (group, is_new) = known.insert_full(key);
            first.extend(is_new.then_some(row));
            of.push(group);
        }
        Ok(Self { of, first: UInt32Array::from(first) })
    }

    fn sums(&self, array: &ArrayRef) -> ArrayRef {
        let mut sums = vec![0u64; self.first.len()];
        for (group, value) in self.of.iter().zip(array.as_primitive::<UInt64Type>().values()) {
            sums[*group] = sums[*group].wrapping_add(*value);
        }
        Arc::new(UInt64Array::from(sums))
    }

    fn sketches(&self, role: Role, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let values = array.as_binary::<i32>();
        let mut lists = vec![Vec::new(); self.first.len()];
        self.of.iter().enumerate().for_each(|(row, group)| lists[*group].push(values.value(row)));
        let merged: Option<Vec<Vec<u8>>> =
            lists.into_iter().map(|list| sketches::across_chunks(role, list.into_iter().map(Some))).collect();
        let merged = merged.ok_or_else(|| ArrowError::ComputeError("a sketch is damaged".to_owned()))?;
        Ok(Arc::new(BinaryArray::from_iter_values(merged)))
    }
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::sketch::latency::Histogram;

    use super::*;

    type Rows = [(i64, u64, u64)];

    /// Times with a number and what is in a bucket.
    fn batch(rows: &Rows) -> RecordBatch {
        let times: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.1)));
        let histograms = rows.iter().map(|row| Histogram::from_dense(&[0, row.2, 1]).encode());
        let buckets: ArrayRef = Arc::new(BinaryArray::from_iter_values(histograms));
        RecordBatch::try_from_iter([("time_us", times), ("count", counts), ("buckets", buckets)]).expect("equally long")
    }

    #[test]
    fn equal_keys_are_merged() {
        let check = |one: &Rows, other: &Rows, expected: &RecordBatch| {
            let found = joined(Table::Latency, 1, batch(one), batch(other)).expect("readable");
            assert_eq!(&found, expected, "{one:?} {other:?}");
        };
        check(&[], &[(5, 2, 3)], &batch(&[(5, 2, 3)]));
        check(&[(5, 2, 3)], &[], &batch(&[(5, 2, 3)]));
        check(&[(5, 2, 3)], &[(4, 1, 1)], &batch(&[(5, 2, 3), (4, 1, 1)]));
        let sums = joined(Table::Latency, 1, batch(&[(5, 2, 3), (6, 1, 1)]), batch(&[(6, 10, 4), (7, 1, 1)]));
        let sums = sums.expect("readable");
        assert_eq!(sums.column(1).as_primitive::<UInt64Type>().values(), &[2, 11, 1]);
        assert_eq!(sums.column(2).as_binary::<i32>().value(1), Histogram::from_dense(&[0, 5, 2]).encode());
    }

    #[test]
    fn without_keys_all_rows_are_one() {
        let without_time = |rows| batch(rows).project(&[1, 2]).expect("columns");
        let sum = joined(Table::Latency, 0, without_time(&[(0, 2, 3)]), without_time(&[(0, 5, 1)])).expect("readable");
        assert_eq!(sum.column(0).as_primitive::<UInt64Type>().values(), &[7]);
        assert_eq!(grouped(Table::Latency, 0, without_time(&[(0, 2, 3), (0, 5, 1)])).expect("readable"), sum);
        assert_eq!(grouped(Table::Latency, 0, without_time(&[])).expect("readable").num_rows(), 0);
        let damaged: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"abc"]));
        let damaged = RecordBatch::try_new(sum.schema(), vec![Arc::clone(sum.column(0)), damaged]).expect("alike");
        assert!(joined(Table::Latency, 0, sum, damaged).is_err());
    }
}
