//! From merged rows to the answer: conditions on merged rows, order, page.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::error::ArrowError;

use crate::{Having, Page, Rows};

/// Applies what a question asks of merged rows, whose first `keys` columns tell them apart.
pub(crate) fn answer(
    merged: RecordBatch,
    keys: usize,
    having: Option<&Having>,
    page: Option<&Page>,
) -> Result<Rows, ArrowError> {
    let kept = match having {
        Some(having) => filter_record_batch(&merged, &matching(&merged, having))?,
        None => merged,
    };
    let total = kept.num_rows() as u64;
    let batch = match page {
        Some(page) => cut(&kept, keys, page)?,
        None => kept,
    };
    Ok(Rows { batch, total })
}

fn matching(rows: &RecordBatch, having: &Having) -> BooleanArray {
    let contains = having.contains.to_lowercase();
    let columns: Vec<&ArrayRef> = having.columns.iter().filter_map(|name| rows.column_by_name(name)).collect();
    let matches = |row: usize| {
        columns.iter().filter_map(|column| column.as_string_opt::<i32>()).any(|column| {
            let text = column.value(row);
            text.to_lowercase().contains(&contains) || having.or_equals.iter().any(|other| other == text)
        })
    };
    (0..rows.num_rows()).map(|row| Some(matches(row))).collect()
}

/// Rows equal by the order asked for are ordered by key, so that pages never overlap.
fn cut(rows: &RecordBatch, keys: usize, page: &Page) -> Result<RecordBatch, ArrowError> {
    let end = page.offset.saturating_add(page.limit).min(rows.num_rows());
    let start = page.offset.min(end);
    let sort = |(name, descending): &(&str, bool)| {
        let values = rows.column_by_name(name).cloned()?;
        Some(SortColumn { values, options: Some(SortOptions { descending: *descending, nulls_first: false }) })
    };
    let ties = rows.columns().iter().take(keys).map(|column| SortColumn { values: column.clone(), options: None });
    let by: Vec<SortColumn> = page.order_by.iter().filter_map(sort).chain(ties).collect();
    if by.is_empty() {
        return Ok(rows.slice(start, end - start));
    }
    let order = lexsort_to_indices(&by, Some(end))?;
    take_record_batch(rows, &order.slice(start, end - start))
}
