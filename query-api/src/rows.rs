//! Reads typed columns out of a store's answer.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use flagmint_schemas::rollup::CellValue;
use flagmint_store::Rows;

use crate::error::ApiError;

/// A column of the answer; the store promises it, so that it is missing or of another type is our fault.
pub(crate) fn column<T: CellValue>(rows: &Rows, name: &str) -> Result<Vec<T>, ApiError> {
    let array = rows.batch.column_by_name(name);
    array.and_then(T::from_array).ok_or_else(|| ApiError::Internal(format!("the store's answer lacks column {name}")))
}

/// Sum of a count over all rows.
pub(crate) fn sum(rows: &Rows, name: &str) -> Result<u64, ApiError> {
    Ok(column::<u64>(rows, name)?.iter().sum())
}

/// A sketch that cannot be read: stored data is damaged.
pub(crate) fn damaged(error: impl std::fmt::Display) -> ApiError {
    ApiError::Internal(format!("the store's answer is damaged: {error}"))
}
