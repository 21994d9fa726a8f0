//! Reading the rows of a question: files and memory as streams that DataFusion aggregates.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::file::{DataFile, IdCondition};
use crate::StoreError;
use crate::query::Rounding;

/// Rows with the ranges of time wanted of them.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file.
    File(Arc<DataFile>, Vec<Range<i64>>),
    /// Cells in memory, in the table's schema.
    Memory(RecordBatch, Vec<Range<i64>>),
}

impl Source {
    pub(super) fn rows(&self) -> u64 {
        match self {
            Self::File(file, _) => file.info.rows,
            Self::Memory(batch, _) => batch.num_rows() as u64,
        }
    }
}

/// What a scan gives of every source.
#[derive(Debug)]
pub(super) struct Projection {
    /// Columns of the table, ascending.
    pub(super) columns: Vec<usize>,
    /// Where the time is among them.
    pub(super) time: usize,
    /// Times are rounded down.
    pub(super) times: Rounding,
    /// Only rows that meet these are needed; others may be given.
    pub(super) conditions: Vec<IdCondition>,
    /// Schema of the columns.
    pub(super) schema: SchemaRef,
}

/// Sources that one thread reads, one after the other.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) sources: Vec<Source>,
    pub(super) projection: Arc<Projection>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.projection.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let projection = Arc::clone(&self.projection);
        let batches = self.sources.clone().into_iter().flat_map(move |source| read(source, &projection));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.projection.schema), stream::iter(batches)))
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

fn read(source: Source, projection: &Arc<Projection>) -> Batches {
    match source {
        Source::Memory(batch, ranges) => {
            let batch = batch.project(&projection.columns).map_err(DataFusionError::from);
            Box::new(iter::once(batch.and_then(|batch| within(&batch, &ranges, projection))))
        }
        Source::File(file, ranges) => {
            let external = |error: StoreError| DataFusionError::External(error.into());
            let projection = Arc::clone(projection);
            match file.read(&projection.columns, &projection.conditions) {
                Err(error) => Box::new(iter::once(Err(external(error)))),
                Ok(batches) => {
                    Box::new(batches.map(move |batch| within(&batch.map_err(external)?, &ranges, &projection)))
                }
            }
        }
    }
}

/// The rows whose time is in one of the ranges, with times rounded down.
fn within(batch: &RecordBatch, ranges: &[Range<i64>], projection: &Projection) -> Result<RecordBatch> {
    let times = batch.column(projection.time).as_primitive::<Int64Type>().values();
    let inside = |us: &i64| ranges.iter().any(|range| range.contains(us));
    let kept = if times.iter().all(inside) {
        batch.clone()
    } else {
        let mask: BooleanArray = times.iter().map(|us| Some(inside(us))).collect();
        filter_record_batch(batch, &mask)?
    };
    let mut columns = kept.columns().to_vec();
    if projection.times != Rounding::NONE {
        let times = columns[projection.time].as_primitive::<Int64Type>().values();
        let rounded: ArrayRef =
            Arc::new(Int64Array::from_iter_values(times.iter().map(|us| projection.times.round(*us))));
        columns[projection.time] = rounded;
    }
    Ok(RecordBatch::try_new(Arc::clone(&projection.schema), columns)?)
}
