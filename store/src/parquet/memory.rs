//! Cells that are not in files yet, and where the fold stands.
//!
//! A chunk is either here or in files, never in both: its cells move when it is final, and whatever is emitted for it
//! afterwards is dropped, because a chunk's final cells are a pure function of the log.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use flagmint_schemas::rollup::{ContextPage, Table};

use super::cells::{ChunkCells, ChunkId, Layout};
use super::fold::Fold;
use crate::{Emission, StoreError};

/// Open and final chunks by table.
#[derive(Debug)]
pub(super) struct Memory {
    layouts: Vec<Layout>,
    chunks: BTreeMap<ChunkId, BTreeMap<Table, ChunkCells>>,
    bytes_max: usize,
    /// Positions as emitted.
    pub(super) fold: Fold,
}

impl Memory {
    /// Empty, with the fold as it is on disk.
    pub(super) fn new(fold: Fold, bytes_max: usize) -> Self {
        let layouts = Table::ALL.into_iter().map(Layout::new).collect();
        Self { layouts, chunks: BTreeMap::new(), bytes_max, fold }
    }

    /// Merges an emission; `stored` is the fold as it is on disk. All or nothing.
    pub(super) fn upsert(&mut self, emission: &Emission, stored: &Fold) -> Result<(), StoreError> {
        let mut cells = Vec::new();
        for (table, batch) in &emission.cells {
            for rows in rows(*table, batch)? {
                self.layouts[*table as usize].check(&rows)?;
                cells.push((*table, rows));
            }
        }
        if self.bytes() > self.bytes_max {
            let wait = "memory is full of cells that could not be written to disk yet";
            return Err(StoreError::Retry(wait.to_owned()));
        }
        for (table, batch) in &cells {
            self.merge(*table, batch, stored);
            let_others_run();
        }
        for position in &emission.positions {
            self.fold.advance(position);
        }
        Ok(())
    }

    fn merge(&mut self, table: Table, batch: &RecordBatch, stored: &Fold) {
        let layout = &self.layouts[table as usize];
        let mut rows: BTreeMap<ChunkId, Vec<usize>> = BTreeMap::new();
        for (row, id) in layout.chunks(batch).enumerate() {
            rows.entry(id).or_default().push(row);
        }
        rows.retain(|id, _| !stored.is_final(*id));
        let keys = layout.keys(batch);
        for (id, rows) in rows {
            let tables = self.chunks.entry(id).or_default();
            let cells = tables.entry(table).or_insert_with(|| ChunkCells::new(layout));
            for row in rows {
                cells.merge(layout, keys.row(row).as_ref(), batch, row);
            }
        }
    }

    /// Bytes taken, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.values().flat_map(BTreeMap::values).map(ChunkCells::bytes).sum()
    }

    /// All cells of one table.
    pub(super) fn batches(&mut self, table: Table) -> Vec<RecordBatch> {
        self.batches_where(table, |_| true)
    }

    /// The cells of one table in chunks that `fold` says are final.
    pub(super) fn final_batches(&mut self, table: Table, fold: &Fold) -> Vec<RecordBatch> {
        self.batches_where(table, |id| fold.is_final(id))
    }

    fn batches_where(&mut self, table: Table, wanted: impl Fn(ChunkId) -> bool) -> Vec<RecordBatch> {
        let layout = &self.layouts[table as usize];
        let chunks = self.chunks.iter_mut().filter(|(id, _)| wanted(**id));
        chunks.filter_map(|(id, tables)| Some(tables.get_mut(&table)?.batch(layout, *id))).collect()
    }

    /// Forgets the chunks that `fold` says are final: they are in files now.
    pub(super) fn forget(&mut self, fold: &Fold) {
        self.chunks.retain(|id, _| !fold.is_final(*id));
    }
}

/// Rows of a table that may have come in pages: those of one page after the other.
fn rows(table: Table, batch: &RecordBatch) -> Result<Vec<RecordBatch>, StoreError> {
    if table != Table::Contexts || !ContextPage::are_in(batch) {
        return Ok(vec![batch.clone()]);
    }
    let opened = |page| {
        let rows = ContextPage::opened(&batch.slice(page, 1));
        let_others_run();
        rows.map_err(|error| StoreError::Refuse(error.to_string()))
    };
    (0..batch.num_rows()).map(opened).collect()
}

/// Whoever answers requests on the same core waits for one page or table at most.
fn let_others_run() {
    std::thread::yield_now();
}
