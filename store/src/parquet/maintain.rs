//! What happens to files over time: final cells are flushed, closed hours and days are rewritten into coarser rows,
//! small files are merged, old ones expire. Each is one change of the manifest, repeated from the start if it fails.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use flagmint_schemas::rollup::{Role, Table};

use super::change::Change;
use super::file::DataFile;
use super::level::Level;
use super::plan::Merge;
use super::scan::Source;
use super::shared::{Shared, query_error, unexpected};
use crate::StoreError;
use crate::check::rewritten_keys;
use crate::limits::{CLOSE_MARGIN_US, COMPACTION_BYTES_MAX, COMPACTION_FILES, DAY_US, HOUR_US};
use crate::query::Rounding;

/// All of time.
const EVER: Range<i64> = i64::MIN..i64::MAX;

impl Shared {
    /// Writes the cells of final chunks, and how far they fold the log.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let (fold, cells) = {
            let mut inner = self.inner();
            let fold = inner.memory.fold.clone();
            let cells: Vec<_> =
                Table::ALL.into_iter().map(|table| (table, inner.memory.final_batches(table, &fold))).collect();
            (fold, cells)
        };
        let mut change = Change::new(self);
        if change.catalog.state.fold == fold {
            return Ok(());
        }
        for (table, batches) in cells {
            let rows = concat_batches(&table.schema(), &batches).map_err(unexpected)?;
            change.write(table, (Level::Base, false), &rows)?;
        }
        change.catalog.state.fold = fold.clone();
        change.commit(|memory| memory.forget(&fold))
    }

    /// Rewrites closed hours into hour rows and closed days into day rows, once per hour.
    pub(super) fn roll(&self) -> Result<(), StoreError> {
        let mut change = Change::new(self);
        let Some(complete_us) = change.catalog.state.fold.complete_through_us() else { return Ok(()) };
        let closed_us = (complete_us - CLOSE_MARGIN_US).div_euclid(HOUR_US) * HOUR_US;
        if change.catalog.state.rolled_through_us.is_some_and(|rolled_us| rolled_us >= closed_us) {
            return Ok(());
        }
        for table in Table::ALL.into_iter().filter(|table| table.has_coarse_rows()) {
            self.roll_hours(&mut change, table, closed_us)?;
            self.roll_days(&mut change, table, closed_us.div_euclid(DAY_US) * DAY_US)?;
        }
        change.catalog.state.rolled_through_us = Some(closed_us);
        change.commit(|_| ())
    }

    /// Minute rows before `closed_us` become hour rows as well; the files that hold them are split there.
    fn roll_hours(&self, change: &mut Change, table: Table, closed_us: i64) -> Result<(), StoreError> {
        let files = change.files(|file| {
            file.info.table() == Some(table)
                && (file.info.level, file.info.rolled) == (Level::Base, false)
                && file.info.first_us < closed_us
        });
        for files in by_span(files).into_values() {
            let rows = self.merge(table, Level::Base, whole(&files))?;
            let (closed, open) = split(table, &rows, closed_us)?;
            let hours = self.merge(table, Level::Hour, vec![Source::Memory(closed.clone(), vec![EVER])])?;
            change.remove(&files);
            change.write(table, (Level::Base, true), &closed)?;
            change.write(table, (Level::Base, false), &open)?;
            change.write(table, (Level::Hour, false), &hours)?;
        }
        Ok(())
    }

    /// Hour rows of days before `closed_us` become day rows as well.
    fn roll_days(&self, change: &mut Change, table: Table, closed_us: i64) -> Result<(), StoreError> {
        let files = change.files(|file| {
            file.info.table() == Some(table)
                && (file.info.level, file.info.rolled) == (Level::Hour, false)
                && file.info.last_us < closed_us
        });
        for files in by_span(files).into_values() {
            let days = self.merge(table, Level::Day, whole(&files))?;
            change.write(table, (Level::Day, false), &days)?;
            change.mark_rolled(&files);
        }
        Ok(())
    }

    /// Merges files of one table, level and span that are of alike size.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        while let Some(files) = self.compactable() {
            let info = &files[0].info;
            let table = info.table().expect("tables were checked when the manifest was read");
            let rows = self.merge(table, info.level, whole(&files))?;
            let mut change = Change::new(self);
            change.remove(&files);
            change.write(table, (info.level, info.rolled), &rows)?;
            change.commit(|_| ())?;
        }
        Ok(())
    }

    fn compactable(&self) -> Option<Vec<Arc<DataFile>>> {
        let catalog = self.catalog();
        let mut groups: BTreeMap<_, Vec<Arc<DataFile>>> = BTreeMap::new();
        for file in catalog.files.iter().filter(|file| file.info.bytes < COMPACTION_BYTES_MAX) {
            let info = &file.info;
            groups.entry((info.table(), info.level, info.rolled, info.span())).or_default().push(Arc::clone(file));
        }
        groups.into_values().find_map(alike)
    }

    /// Drops files whose rows are all past their retention, as of `now_us` or of the log, whichever is earlier: a clock
    /// that jumps ahead must not delete anything.
    pub(super) fn expire(&self, now_us: i64) -> Result<(), StoreError> {
        let mut change = Change::new(self);
        let Some(complete_us) = change.catalog.state.fold.complete_through_us() else { return Ok(()) };
        let now_us = now_us.min(complete_us);
        let expired = change.files(|file| {
            let info = &file.info;
            let table = info.table().expect("tables were checked when the manifest was read");
            let kept_coarser = info.rolled || info.level == Level::Day || !table.has_coarse_rows();
            kept_coarser && info.last_us < now_us - info.level.retention_us(table)
        });
        if expired.is_empty() {
            return Ok(());
        }
        change.remove(&expired);
        change.commit(|_| ())
    }

    /// All rows of some sources at one level, merged across chunks, in the table's schema.
    fn merge(&self, table: Table, level: Level, sources: Vec<Source>) -> Result<RecordBatch, StoreError> {
        let keys = rewritten_keys(table);
        let times = Some(Rounding::Step(level.step_us()));
        let merge = Merge { table, organization: None, filters: &[], group_by: &keys, times, values: None };
        let merged = tokio::runtime::Handle::current().block_on(merge.run(sources, self.context()));
        let merged = merged.map_err(query_error)?;
        let columns = table.columns().iter().map(|column| match merged.column_by_name(column.name) {
            Some(array) => Arc::clone(array),
            None => zeros(&column.data_type(), merged.num_rows()),
        });
        RecordBatch::try_new(table.schema(), columns.collect()).map_err(unexpected)
    }
}

/// A chunk column that is not kept any more.
fn zeros(data_type: &DataType, rows: usize) -> ArrayRef {
    if *data_type == DataType::UInt32 {
        Arc::new(UInt32Array::from_value(0, rows))
    } else {
        Arc::new(UInt64Array::from_value(0, rows))
    }
}

fn whole(files: &[Arc<DataFile>]) -> Vec<Source> {
    files.iter().map(|file| Source::File(Arc::clone(file), vec![EVER])).collect()
}

fn by_span(files: Vec<Arc<DataFile>>) -> BTreeMap<i64, Vec<Arc<DataFile>>> {
    let mut spans: BTreeMap<i64, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        spans.entry(file.info.span()).or_default().push(file);
    }
    spans
}

/// Rows before and from a time on.
fn split(table: Table, rows: &RecordBatch, at_us: i64) -> Result<(RecordBatch, RecordBatch), StoreError> {
    let time = table.columns().iter().position(|column| column.role == Role::Time).expect("every table has a time");
    let times = rows.column(time).as_primitive::<Int64Type>().values();
    let before: BooleanArray = times.iter().map(|us| Some(*us < at_us)).collect();
    let after: BooleanArray = times.iter().map(|us| Some(*us >= at_us)).collect();
    Ok((
        filter_record_batch(rows, &before).map_err(unexpected)?,
        filter_record_batch(rows, &after).map_err(unexpected)?,
    ))
}

/// The smallest files of which each is at most twice as large as those before it together, if they are enough to merge.
fn alike(mut files: Vec<Arc<DataFile>>) -> Option<Vec<Arc<DataFile>>> {
    files.sort_by_key(|file| file.info.bytes);
    (0..files.len().saturating_sub(COMPACTION_FILES - 1)).find_map(|start| {
        let mut sum = files[start].info.bytes;
        let follow = files[start + 1..].iter().take_while(|file| {
            let fits = file.info.bytes <= 2 * sum && sum + file.info.bytes <= COMPACTION_BYTES_MAX;
            sum += file.info.bytes;
            fits
        });
        let count = 1 + follow.count();
        (count >= COMPACTION_FILES).then(|| files[start..start + count].to_vec())
    })
}
