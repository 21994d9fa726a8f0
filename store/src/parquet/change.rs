//! One change of what is stored: new files and old ones out, in force with one commit of the manifest or not at all.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use flagmint_schemas::rollup::{Role, Table};

use super::file::DataFile;
use super::level::Level;
use super::manifest::Catalog;
use super::memory::Memory;
use super::shared::{Shared, unexpected};
use crate::StoreError;

/// A change in the making. Dropped without a commit, the files it wrote are removed.
pub(super) struct Change<'a> {
    shared: &'a Shared,
    /// What will be stored.
    pub(super) catalog: Catalog,
    added: Vec<Arc<DataFile>>,
    removed: Vec<Arc<DataFile>>,
}

impl<'a> Change<'a> {
    /// From what is stored now. Only the holder of the maintenance lock makes changes.
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, catalog: Catalog::clone(&shared.catalog()), added: vec![], removed: vec![] }
    }

    /// The files, old and new, that meet a condition.
    pub(super) fn files(&self, wanted: impl Fn(&DataFile) -> bool) -> Vec<Arc<DataFile>> {
        self.catalog.files.iter().filter(|file| wanted(file)).cloned().collect()
    }

    /// Writes rows, a file for each span of time.
    pub(super) fn write(&mut self, table: Table, kind: (Level, bool), rows: &RecordBatch) -> Result<(), StoreError> {
        for part in spans(table, kind.0, rows)? {
            let number = self.catalog.state.next_file;
            let file = DataFile::write(self.shared.dir(), number, table, kind, &part)?;
            self.catalog.state.next_file += 1;
            self.added.push(Arc::clone(&file));
            self.catalog.files.push(file);
        }
        Ok(())
    }

    /// Leaves files out.
    pub(super) fn remove(&mut self, files: &[Arc<DataFile>]) {
        self.catalog.files.retain(|kept| files.iter().all(|file| file.info.number != kept.info.number));
        self.removed.extend_from_slice(files);
    }

    /// Notes that the rows of files are in the next coarser level.
    pub(super) fn mark_rolled(&mut self, files: &[Arc<DataFile>]) {
        for kept in &mut self.catalog.files {
            if files.iter().any(|file| file.info.number == kept.info.number) {
                *kept = kept.rolled();
            }
        }
    }

    /// Stores the change; `then` runs at the moment when readers see it.
    pub(super) fn commit(mut self, then: impl FnOnce(&mut Memory)) -> Result<(), StoreError> {
        match self.catalog.commit(self.shared.dir()) {
            Ok(()) => {}
            Err(StoreError::Fatal(reason)) => {
                // The manifest on disk may or may not name the new files: leave them to the next start.
                self.added.clear();
                return Err(StoreError::Fatal(reason));
            }
            Err(error) => return Err(error),
        }
        self.added.clear();
        let catalog = Arc::new(std::mem::take(&mut self.catalog));
        {
            let mut inner = self.shared.inner();
            inner.catalog = catalog;
            then(&mut inner.memory);
        }
        self.removed.iter().for_each(|file| file.mark_obsolete());
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.added.iter().for_each(|file| file.mark_obsolete());
    }
}

/// Splits rows by the span of time that one file holds.
fn spans(table: Table, level: Level, rows: &RecordBatch) -> Result<Vec<RecordBatch>, StoreError> {
    let time = table.columns().iter().position(|column| column.role == Role::Time).expect("every table has a time");
    let times = rows.column(time).as_primitive::<Int64Type>().values();
    let of_row: Vec<i64> = times.iter().map(|us| us.div_euclid(level.file_span_us())).collect();
    let mut spans = of_row.clone();
    spans.sort_unstable();
    spans.dedup();
    if spans.len() == 1 {
        return Ok(vec![rows.clone()]);
    }
    let part = |span: i64| {
        let mask: BooleanArray = of_row.iter().map(|of| Some(*of == span)).collect();
        filter_record_batch(rows, &mask).map_err(unexpected)
    };
    spans.into_iter().map(part).collect()
}
