//! One Parquet file: written whole and synced before the manifest names it, never changed, removed when the manifest no
//! longer names it and the last reader is done.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::row::{RowConverter, SortField};
use flagmint_schemas::rollup::{Role, Table};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::disk::{damaged, write_synced};
use super::level::Level;
use crate::StoreError;
use crate::limits::ROW_GROUP_ROWS;

/// What the manifest keeps of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileInfo {
    /// Never used twice.
    pub(super) number: u64,
    /// Name of the table.
    table: String,
    pub(super) level: Level,
    /// Whether the rows are in the next coarser level as well.
    pub(super) rolled: bool,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// CRC-32C of the whole file.
    checksum: u32,
    /// Earliest start of a row, microseconds.
    pub(super) first_us: i64,
    /// Latest start of a row, microseconds.
    pub(super) last_us: i64,
}

impl FileInfo {
    /// The file's name in the store's directory.
    pub(super) fn name(&self) -> String {
        let kind = format!("{}-{}", self.table, self.level.name());
        format!("{kind}-{}-{:08}.parquet", self.span(), self.number)
    }

    /// Which span of time the file is of: the index of its UTC day, or of its 32 days.
    pub(super) fn span(&self) -> i64 {
        self.first_us.div_euclid(self.level.file_span_us())
    }

    /// Its table, if this version knows it.
    pub(super) fn table(&self) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.name() == self.table)
    }
}

/// An id column and the values asked for, to leave out row groups by.
pub(super) type IdCondition = (usize, Vec<Uuid>);

/// A file of the manifest.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) info: FileInfo,
    disk: Arc<OnDisk>,
}

#[derive(Debug)]
struct OnDisk {
    path: PathBuf,
    /// Footer, read when the file is read for the first time, after its checksum is found right.
    metadata: OnceLock<ArrowReaderMetadata>,
    obsolete: AtomicBool,
}

impl DataFile {
    /// A file that the manifest names.
    pub(super) fn open(dir: &Path, info: FileInfo) -> Result<Arc<Self>, StoreError> {
        let file = Self::unchecked(dir, info);
        let length = fs::metadata(&file.disk.path).map_err(|error| file.damaged(&error.to_string()))?.len();
        if length != file.info.bytes {
            return Err(file.damaged(&format!("it has {length} bytes instead of {}", file.info.bytes)));
        }
        Ok(Arc::new(file))
    }

    /// The same file, when its rows are in the next coarser level too.
    pub(super) fn rolled(&self) -> Arc<Self> {
        Arc::new(Self { info: FileInfo { rolled: true, ..self.info.clone() }, disk: Arc::clone(&self.disk) })
    }

    fn unchecked(dir: &Path, info: FileInfo) -> Self {
        let path = dir.join(info.name());
        Self { info, disk: Arc::new(OnDisk { path, metadata: OnceLock::new(), obsolete: AtomicBool::new(false) }) }
    }

    /// Writes rows of one span of time as a new file, sorted by key, and syncs it.
    pub(super) fn write(
        dir: &Path,
        number: u64,
        table: Table,
        (level, rolled): (Level, bool),
        batch: &RecordBatch,
    ) -> Result<Arc<Self>, StoreError> {
        let (first_us, last_us) = time_bounds(table, batch);
        let bytes = encode(table, &sort(table, batch)?).map_err(|error| StoreError::Fatal(error.to_string()))?;
        let info = FileInfo {
            number,
            table: table.name().to_owned(),
            level,
            rolled,
            rows: batch.num_rows() as u64,
            bytes: bytes.len() as u64,
            checksum: crc32c::crc32c(&bytes),
            first_us,
            last_us,
        };
        let file = Self::unchecked(dir, info);
        write_synced(&file.disk.path, |out: &mut File| out.write_all(&bytes))?;
        Ok(Arc::new(file))
    }

    /// Removes the file once the last reader is done.
    pub(super) fn mark_obsolete(&self) {
        self.disk.obsolete.store(true, Ordering::Relaxed);
    }

    /// Whether rows of any of these ranges may be in it.
    pub(super) fn overlaps(&self, ranges: &[Range<i64>]) -> bool {
        ranges.iter().any(|range| self.info.first_us < range.end && range.start <= self.info.last_us)
    }

    /// Reads some columns, leaving out row groups that cannot have a row that meets the conditions.
    pub(super) fn read(
        self: &Arc<Self>,
        columns: &[usize],
        conditions: &[IdCondition],
    ) -> Result<impl Iterator<Item = Result<RecordBatch, StoreError>> + Send + use<>, StoreError> {
        let metadata = self.metadata()?;
        let groups = metadata.metadata().row_groups();
        let wanted = (0..groups.len()).filter(|at| may_match(&groups[*at], conditions)).collect();
        let file = File::open(&self.disk.path).map_err(|error| self.damaged(&error.to_string()))?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), columns.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
            .with_projection(mask)
            .with_row_groups(wanted)
            .with_batch_size(ROW_GROUP_ROWS)
            .build()
            .map_err(|error| self.damaged(&error.to_string()))?;
        let this = Arc::clone(self);
        Ok(reader.map(move |batch| batch.map_err(|error| this.damaged(&error.to_string()))))
    }

    fn metadata(&self) -> Result<&ArrowReaderMetadata, StoreError> {
        if let Some(metadata) = self.disk.metadata.get() {
            return Ok(metadata);
        }
        let bytes = fs::read(&self.disk.path).map_err(|error| self.damaged(&error.to_string()))?;
        if crc32c::crc32c(&bytes) != self.info.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        let metadata = ArrowReaderMetadata::load(&bytes::Bytes::from(bytes), ArrowReaderOptions::new())
            .map_err(|error| self.damaged(&error.to_string()))?;
        Ok(self.disk.metadata.get_or_init(|| metadata))
    }

    fn damaged(&self, what: &str) -> StoreError {
        damaged(&self.disk.path, what)
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if *self.obsolete.get_mut()
            && let Err(error) = fs::remove_file(&self.path)
        {
            // Harmless: the next start removes files that the manifest does not name.
            tracing::debug!(path = %self.path.display(), %error, "could not remove an old rollup file");
        }
    }
}

fn may_match(group: &RowGroupMetaData, conditions: &[IdCondition]) -> bool {
    conditions.iter().all(|(column, ids)| {
        let Some(statistics) = group.column(*column).statistics() else { return true };
        let (Some(min), Some(max)) = (statistics.min_bytes_opt(), statistics.max_bytes_opt()) else { return true };
        ids.iter().any(|id| min <= id.as_bytes().as_slice() && id.as_bytes().as_slice() <= max)
    })
}

/// The earliest and latest start of the rows.
fn time_bounds(table: Table, batch: &RecordBatch) -> (i64, i64) {
    let at = table.columns().iter().position(|column| column.role == Role::Time).expect("every table has a time");
    let times = batch.column(at).as_primitive::<Int64Type>();
    (arrow::compute::min(times).unwrap_or_default(), arrow::compute::max(times).unwrap_or_default())
}

/// Sorts rows by dimensions, then time.
fn sort(table: Table, batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
    let internal = |error: arrow::error::ArrowError| StoreError::Fatal(format!("sorting rows: {error}"));
    let keys = table.columns().iter().zip(batch.columns()).filter(|(column, _)| column.role.is_key());
    let (fields, keys): (Vec<SortField>, Vec<ArrayRef>) =
        keys.map(|(column, array)| (SortField::new(column.data_type()), Arc::clone(array))).unzip();
    let rows = RowConverter::new(fields).and_then(|sorter| sorter.convert_columns(&keys)).map_err(internal)?;
    let mut order: Vec<u64> = (0..batch.num_rows() as u64).collect();
    order.sort_unstable_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    take_record_batch(batch, &arrow::array::UInt64Array::from(order)).map_err(internal)
}

fn encode(table: Table, batch: &RecordBatch) -> parquet::errors::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}
