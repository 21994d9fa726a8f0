//! The rollup store: cells go in by upsert, questions are answered from merged cells.
//!
//! A store merges emissions of one cell key by the first rule of each column's [`Role`](flagmint_schemas::rollup::Role)
//! and answers with the second rule applied across chunks, so whatever is emitted twice, late or again changes nothing.
//! The embedded backend is Parquet files queried by DataFusion ([`parquet::ParquetStore`]); the other is ClickHouse
//! ([`clickhouse::ClickHouseStore`]).

mod answer;
mod check;
pub mod clickhouse;
pub mod conformance;
pub mod limits;
pub mod parquet;
mod parts;
pub mod query;

use arrow::array::RecordBatch;
use flagmint_schemas::rollup::Table;
use thiserror::Error;

pub use query::{Filter, Having, Page, Period, RollupQuery, Rows};

/// Where the fold stands in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Log epoch.
    pub epoch: u64,
    /// Log partition.
    pub partition: u32,
    /// First offset of the open chunk: where a fold resumes after a restart.
    pub chunk: u64,
    /// The offset that follows the last record folded into this emission; of a position to resume from, the last whose cells are stored.
    pub next_offset: u64,
    /// Every event of this partition before this is in the cells emitted up to now, microseconds; `i64::MIN` if unknown.
    pub complete_through_us: i64,
}

/// What one tick of the aggregator hands over: all dirty cells of all partitions, and where they bring the fold.
#[derive(Clone, Debug, Default)]
pub struct Emission {
    /// Dirty cells with their cumulative values, at most one batch per table, in the table's schema; contexts also as
    /// [`ContextPage`](flagmint_schemas::rollup::ContextPage)s.
    pub cells: Vec<(Table, RecordBatch)>,
    /// One per partition that moved. Cells of chunks before `chunk` are final with this emission.
    pub positions: Vec<Position>,
}

/// What a store's caller must do about a failure.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Try the same again later: the disk is full, the server is away.
    #[error("the rollup store cannot take this now: {0}")]
    Retry(String),
    /// The question or the rows cannot be right; asking again gives the same answer.
    #[error("refused by the rollup store: {0}")]
    Refuse(String),
    /// Stored data is damaged or of another version; somebody must act.
    #[error("the rollup store is unusable: {0}")]
    Fatal(String),
}

/// A rollup store. Two backends: Parquet with DataFusion, and ClickHouse.
pub trait RollupStore: Send + Sync + 'static {
    /// Merges cells and moves positions. When it returns, the cells are visible to questions; they are durable once
    /// [`RollupStore::resume_positions`] says so (until then the log holds them).
    fn upsert(&self, emission: Emission) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Merged rows for one question of one organization.
    fn query(&self, query: &RollupQuery) -> impl Future<Output = Result<Rows, StoreError>> + Send;

    /// Per partition, where a fold must resume so that nothing is missing: durable positions only. A store that does not keep the cells of
    /// open chunks over a crash gives a `next_offset` that is the chunk's start.
    fn resume_positions(&self) -> impl Future<Output = Result<Vec<Position>, StoreError>> + Send;

    /// Every event before this is in the answers, microseconds; never goes backwards; `None` before the first decision or heartbeat.
    fn complete_through_us(&self) -> Option<i64>;
}
