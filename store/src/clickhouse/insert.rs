//! Rows on their way in: checked, turned into one body per table, and kept until ClickHouse has acknowledged them.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use flagmint_schemas::rollup::{ContextPage, Role, Table};
use futures::future::join_all;

use super::client::Client;
use super::sketches;
use crate::limits::{INSERT_PIECE_BYTES, KEPT_EMISSIONS_MAX};
use crate::{StoreError, check};

/// Rows of one table, ready to be sent.
#[derive(Clone, Debug)]
struct Ready {
    table: Table,
    into: String,
    body: Bytes,
}

/// An emission that has not been acknowledged as a whole.
#[derive(Debug)]
struct Kept {
    cells: Vec<(Table, RecordBatch)>,
    ready: Vec<Ready>,
}

/// Emissions that were refused for now. Whoever offers the same rows again sends the same bytes, and of those tables
/// only that are still missing.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Vec<Kept>>);

impl Pending {
    /// Stores cells: all tables but the last side by side, then the chunks that vouch for them.
    pub(super) async fn store(&self, client: &Client, cells: &[(Table, RecordBatch)]) -> Result<(), StoreError> {
        let ready = match self.take(cells) {
            Some(ready) => ready,
            None => cells.iter().map(|(table, batch)| ready(*table, batch)).collect::<Result<_, _>>()?,
        };
        let (chunks, data): (Vec<Ready>, Vec<Ready>) =
            ready.into_iter().partition(|ready| ready.table == Table::Chunks);
        let mut missing = Vec::new();
        let mut failure = None;
        for (ready, sent) in data.iter().zip(join_all(data.iter().map(|ready| send(client, ready))).await) {
            if let Err(error) = sent {
                missing.push(ready.clone());
                failure = Some(worse(failure, error));
            }
        }
        for ready in chunks {
            if failure.is_none() {
                failure = send(client, &ready).await.err();
            }
            if failure.is_some() {
                missing.push(ready);
            }
        }
        let Some(error) = failure else { return Ok(()) };
        if matches!(error, StoreError::Retry(_)) {
            self.keep(cells, missing);
        }
        Err(error)
    }

    fn take(&self, cells: &[(Table, RecordBatch)]) -> Option<Vec<Ready>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|kept| is_same(&kept.cells, cells))?;
        Some(kept.swap_remove(at).ready)
    }

    fn keep(&self, cells: &[(Table, RecordBatch)], ready: Vec<Ready>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_EMISSIONS_MAX {
            kept.remove(0);
        }
        kept.push(Kept { cells: cells.to_vec(), ready });
    }
}

/// Whether these are the very same rows, not only equal ones.
fn is_same(a: &[(Table, RecordBatch)], b: &[(Table, RecordBatch)]) -> bool {
    let same = |((table, rows), (other_table, other)): (&(Table, RecordBatch), &(Table, RecordBatch))| {
        table == other_table
            && rows.num_columns() == other.num_columns()
            && rows.columns().iter().zip(other.columns()).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    !a.is_empty() && a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Of two failures the one that asks for more.
fn worse(before: Option<StoreError>, error: StoreError) -> StoreError {
    match before {
        Some(before) if !matches!(before, StoreError::Retry(_)) => before,
        _ => error,
    }
}

async fn send(client: &Client, ready: &Ready) -> Result<(), StoreError> {
    client.insert(&ready.into, ready.body.clone()).await
}

fn into(table: Table, schema: &Schema) -> String {
    let columns: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    format!("INSERT INTO `{}` ({}) FORMAT ArrowStream", table.name(), columns.join(", "))
}

/// Rows of a table as the body of an insert. Refuses rows that are not of the table, or whose sketches cannot be read.
fn ready(table: Table, batch: &RecordBatch) -> Result<Ready, StoreError> {
    check::rows(table, batch)?;
    let damaged = || StoreError::Refuse(format!("a sketch in table {} is damaged", table.name()));
    let ready = |schema: &Schema, body| Ok(Ready { table, into: into(table, schema), body });
    match table {
        Table::Contexts if ContextPage::are_in(batch) => ready(&batch.schema(), body(batch)?),
        Table::Contexts => {
            let pages = ContextPage::closed(batch).map_err(|error| StoreError::Refuse(error.to_string()))?;
            ready(&pages.schema(), body(&pages)?)
        }
        _ => ready(&batch.schema(), in_pieces(batch, |piece| weighted(table, &piece).ok_or_else(damaged))?),
    }
}

/// The same rows, with its weight before each sketch. Columns are found by name.
pub(super) fn weighted(table: Table, batch: &RecordBatch) -> Option<RecordBatch> {
    let role = |field: &Field| table.column(field.name()).map(|column| column.role);
    let column = |(field, array): (&Arc<Field>, &ArrayRef)| -> Option<ArrayRef> {
        match role(field) {
            Some(role @ (Role::Histogram | Role::Registers)) => {
                Some(Arc::new(sketches::weighted(role, array.as_binary_opt::<i32>()?)?))
            }
            _ => Some(Arc::clone(array)),
        }
    };
    let columns = batch.schema().fields().iter().zip(batch.columns()).map(column).collect::<Option<Vec<_>>>()?;
    RecordBatch::try_new(batch.schema(), columns).ok()
}

/// Rows in Arrow's stream format.
pub(super) fn body(batch: &RecordBatch) -> Result<Bytes, StoreError> {
    in_pieces(batch, Ok)
}

/// The same, with what becomes of each piece of them.
fn in_pieces(
    batch: &RecordBatch,
    made: impl Fn(RecordBatch) -> Result<RecordBatch, StoreError>,
) -> Result<Bytes, StoreError> {
    let unsendable = |error: ArrowError| StoreError::Refuse(format!("rows that cannot be sent: {error}"));
    // ClickHouse reads keys and counts best when they cannot be null.
    let fields = batch.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(false)).collect();
    let fields: Vec<Field> = fields;
    let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
    let piece = (rows * INSERT_PIECE_BYTES / bytes.max(1)).clamp(1, rows.max(1));
    let room = Vec::with_capacity(bytes + bytes / 16);
    let mut writer = StreamWriter::try_new(room, &Schema::new(fields)).map_err(unsendable)?;
    for start in (0..rows).step_by(piece) {
        let made = made(batch.slice(start, piece.min(rows - start)))?;
        writer.write(&made).map_err(unsendable)?;
    }
    writer.into_inner().map(Bytes::from).map_err(unsendable)
}
