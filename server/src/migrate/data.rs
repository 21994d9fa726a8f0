//! Moves what an embedded installation has counted into ClickHouse, so that every number stays.
//!
//! What the local log still holds beyond the rollups is folded first. Then all rollups are asked for, as a question would (so that what was
//! rewritten into hours and days is as good as what was not), and given to ClickHouse as the cells of one chunk of an epoch of their own. That
//! epoch follows from the log's, and a merge within a chunk takes the maximum: a move that was cut off is repeated
//! without counting anything twice. The log itself stays where it is; new decisions begin a new epoch, in Kafka.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::DataType;
use flagmint_log::wall_clock_us;
use flagmint_schemas::rollup::{Role, Table};
use flagmint_store::{Emission, Period, RollupQuery, RollupStore, StoreError};

use crate::audit::fold_all;
use crate::exit::Failure;
use crate::options::MigrateDataOptions;
use crate::piece::servers;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

/// What is kept as minutes by every store; before that there are hours, then days.
const MINUTES_KEPT_US: i64 = flagmint_store::limits::MINUTE_RETENTION_US;
const HOURS_KEPT_US: i64 = flagmint_store::limits::HOUR_RETENTION_US;

/// Marks the epoch of moved cells: no log's epoch and this have equal bits by intent.
const MOVED: u64 = 0x6d6f_7665_645f_6461;

/// Moves the data.
///
/// # Errors
/// If the directory is in use or cannot be read, or ClickHouse cannot be had.
pub fn data(options: &MigrateDataOptions) -> Result<(), Failure> {
    let clickhouse = servers::clickhouse_options(&options.clickhouse)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::resource("runtime", error))?.block_on(async {
        let (store, log_epoch) = fold_all(&options.data_dir).await?;
        let target = servers::clickhouse_migrated(&clickhouse).await?;
        let folded = target.resume_positions().await.map_err(|error| Failure::resource("--clickhouse", error))?;
        if !folded.is_empty() {
            let why = "move the data first, into a database that no aggregator has written to";
            return Err(Failure::Usage(format!("--clickhouse: decisions have been folded into it already; {why}")));
        }
        let mut moved = 0;
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Chunks) {
            let rows = move_table(&*store, &target, table, log_epoch ^ MOVED).await?;
            println!("{:<10} {rows:>12} rows", table.name());
            moved += rows;
        }
        println!("{moved} rows are in ClickHouse; nothing in {} was changed", options.data_dir.display());
        Ok(())
    })
}

/// Copies one table; the number of rows.
async fn move_table(from: &impl RollupStore, to: &impl RollupStore, table: Table, epoch: u64) -> Result<u64, Failure> {
    let refuse = |error: StoreError| Failure::resource(format!("rollups, table {}", table.name()), error);
    let now_us = wall_clock_us();
    let mut rows = 0;
    for day_us in days(from, table, now_us).await.map_err(refuse)? {
        for (span, period) in spans(table, day_us, now_us) {
            let batch = from.query(&question(table, span.clone(), period)).await.map_err(refuse)?.batch;
            if batch.num_rows() == 0 {
                continue;
            }
            rows += batch.num_rows() as u64;
            let cells = vec![(table, as_cells(table, &batch, span.start, epoch)?)];
            to.upsert(Emission { cells, positions: Vec::new() }).await.map_err(refuse)?;
        }
    }
    Ok(rows)
}

/// Starts of the days that have rows.
async fn days(from: &impl RollupStore, table: Table, now_us: i64) -> Result<Vec<i64>, StoreError> {
    let oldest_us = now_us - flagmint_store::limits::DAY_RETENTION_US;
    let span = oldest_us.div_euclid(DAY_US) * DAY_US..(now_us.div_euclid(DAY_US) + 2) * DAY_US;
    let query = RollupQuery { group_by: vec![], ..question(table, span, Period::Day) };
    let batch = from.query(&query).await?.batch;
    let column = batch.column_by_name("time_us").and_then(|column| column.as_any().downcast_ref::<Int64Array>());
    let mut days: Vec<i64> = column.map(|column| column.values().to_vec()).unwrap_or_default();
    days.sort_unstable();
    Ok(days)
}

/// The finest steps in which a day is still kept, each with how it is asked for: a minute is a question of its own.
fn spans(table: Table, day_us: i64, now_us: i64) -> Vec<(Range<i64>, Period)> {
    let age_us = now_us - day_us;
    let day = day_us..day_us + DAY_US;
    if !table.has_coarse_rows() || age_us >= HOURS_KEPT_US - DAY_US {
        // Tables with a coarser step than a minute have it in their rows.
        let period = if table.has_coarse_rows() { Period::Day } else { Period::Hour };
        return vec![(day, period)];
    }
    if age_us >= MINUTES_KEPT_US - DAY_US || table.step_us() > MINUTE_US {
        return vec![(day, Period::Hour)];
    }
    (0..24 * 60)
        .map(|minute| {
            let start_us = day_us + minute * MINUTE_US;
            (start_us..start_us + MINUTE_US, Period::Whole)
        })
        .collect()
}

fn question(table: Table, time_us: Range<i64>, period: Period) -> RollupQuery {
    let dimensions = table.columns().iter().filter(|column| column.role == Role::Dimension);
    RollupQuery {
        table,
        organization: None,
        time_us,
        filters: Vec::new(),
        group_by: dimensions.map(|column| column.name).collect(),
        period,
        values: None,
        having: None,
        page: None,
    }
}

/// Merged rows as the cells of one chunk.
fn as_cells(table: Table, rows: &RecordBatch, start_us: i64, epoch: u64) -> Result<RecordBatch, Failure> {
    let count = rows.num_rows();
    let arrays = table.columns().iter().map(|column| -> Option<ArrayRef> {
        match (column.role, column.data_type()) {
            (Role::Chunk, DataType::UInt64) if column.name == "epoch" => {
                Some(Arc::new(UInt64Array::from_value(epoch, count)))
            }
            (Role::Chunk, DataType::UInt64) => Some(Arc::new(UInt64Array::from_value(0, count))),
            (Role::Chunk, _) => Some(Arc::new(UInt32Array::from_value(0, count))),
            (Role::Time, _) if rows.column_by_name(column.name).is_none() => {
                Some(Arc::new(Int64Array::from_value(start_us, count)))
            }
            _ => rows.column_by_name(column.name).cloned(),
        }
    });
    let broken = |why: String| Failure::Resource(format!("rollups, table {}: {why}", table.name()));
    let arrays: Vec<ArrayRef> = arrays.collect::<Option<_>>().ok_or_else(|| broken("a column is missing".into()))?;
    RecordBatch::try_new(table.schema(), arrays).map_err(|error| broken(error.to_string()))
}
