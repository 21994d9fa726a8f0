//! The audit of a data directory that nobody runs: what the log still holds is folded, then the ledger is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use flagmint_aggregator as aggregator;
use flagmint_log::{DecisionLog as _, LocalLog, Options as LogOptions};
use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::{CellValue, Table};
use flagmint_store::parquet::ParquetStore;
use flagmint_store::{Period, RollupQuery, RollupStore as _, Rows};

use tokio::sync::{mpsc, watch};

use super::Hour;
use crate::exit::Failure;
use crate::options::AuditOptions;

const HOUR_US: i64 = 3_600_000_000;

/// The hours of the directory's ledger.
///
/// # Errors
/// If the directory is in use or cannot be read.
pub async fn hours(options: &AuditOptions) -> Result<Vec<Hour>, Failure> {
    let directory = options.data_dir.clone().unwrap_or_else(|| PathBuf::from("./flagmint-data"));
    let (store, _epoch) = fold_all(&directory).await?;
    let hours = ledger(&store, options, &range(options)?).await?;
    Ok(hours.into_values().map(finish).collect())
}

/// The rollups of a directory that nobody runs, with everything that its log holds, and the log's epoch.
///
/// # Errors
/// If there is no installation, or it is in use or damaged.
pub async fn fold_all(directory: &Path) -> Result<(Arc<ParquetStore>, u64), Failure> {
    if !directory.join("log").is_dir() {
        return Err(Failure::Usage(format!("{} holds no installation", directory.display())));
    }
    let refuse = |error: &dyn std::fmt::Display| Failure::resource(directory.display(), error);
    let log = LocalLog::open(LogOptions::new(directory.join("log"), 1)).map_err(|error| refuse(&error))?;
    let store = ParquetStore::open(&directory.join("rollups"), &flagmint_store::parquet::Options::default())
        .map_err(|error| refuse(&error))?;
    let (store, epoch) = (Arc::new(store), log.epoch());
    fold(log, Arc::clone(&store)).await?;
    Ok((store, epoch))
}

type Hours = BTreeMap<(i64, OrganizationId), Hour>;

/// The period asked for, microseconds.
///
/// # Errors
/// If a time cannot be read.
pub fn range(options: &AuditOptions) -> Result<std::ops::Range<i64>, Failure> {
    let time = |text: &Option<String>, default: DateTime<Utc>| match text {
        None => Ok(default),
        Some(text) => DateTime::parse_from_rfc3339(text)
            .map(|time| time.to_utc())
            .map_err(|error| Failure::Usage(format!("{text} is not an ISO-8601 time: {error}"))),
    };
    let now = Utc::now();
    let (from, to) = (time(&options.from, now - Duration::hours(24))?, time(&options.to, now)?);
    if from >= to {
        return Err(Failure::Usage("--from must be before --to".into()));
    }
    Ok(floor_hour(from.timestamp_micros())..floor_hour(to.timestamp_micros()) + HOUR_US)
}

const fn floor_hour(time_us: i64) -> i64 {
    time_us - time_us.rem_euclid(HOUR_US)
}

async fn ledger(store: &ParquetStore, options: &AuditOptions, range: &std::ops::Range<i64>) -> Result<Hours, Failure> {
    let query = RollupQuery {
        table: Table::Ledger,
        organization: options.org.map(OrganizationId),
        time_us: range.clone(),
        filters: Vec::new(),
        group_by: vec!["organization"],
        period: Period::Hour,
        values: None,
        having: None,
        page: None,
    };
    let rows = store.query(&query).await.map_err(|error| Failure::resource("rollups", error))?;
    let (times, organizations) = (column::<i64>(&rows, "time_us")?, column::<OrganizationId>(&rows, "organization")?);
    let count = |name| column::<u64>(&rows, name);
    let (produced, counted, duplicates) = (count("produced")?, count("counted")?, count("duplicate_decisions")?);
    let (parked, gaps, clamped) = (count("parked_decisions")?, count("gaps")?, count("clamped")?);
    let missing = count("estimated_missing")?;
    let mut hours = Hours::new();
    for (row, key) in times.into_iter().zip(organizations).enumerate() {
        let hour = hours.entry(key).or_default();
        hour.produced += produced[row];
        hour.counted += counted[row];
        hour.duplicates += duplicates[row];
        hour.parked += parked[row];
        hour.gaps += gaps[row];
        hour.clamped += clamped[row];
        hour.estimated_missing += missing[row];
    }
    label(&mut hours);
    Ok(hours)
}

fn column<T: CellValue>(rows: &Rows, name: &str) -> Result<Vec<T>, Failure> {
    let found = rows.batch.column_by_name(name).and_then(T::from_array);
    found.ok_or_else(|| Failure::Resource(format!("rollups: the ledger lacks column {name}")))
}

/// Hours and organizations as text.
fn label(hours: &mut Hours) {
    for ((time_us, organization), hour) in hours {
        let time = DateTime::from_timestamp_micros(*time_us).unwrap_or_default();
        hour.hour = time.to_rfc3339_opts(SecondsFormat::Secs, true);
        hour.organization_id = if organization.is_none() { String::new() } else { organization.to_string() };
    }
}

/// Folds what the log still holds beyond the rollups, as a start would.
async fn fold(log: LocalLog, store: Arc<ParquetStore>) -> Result<(), Failure> {
    let (dead_letters, mut parked) = mpsc::channel(1);
    // They are in the ledger; a running server also writes them down.
    let discard = tokio::spawn(async move { while parked.recv().await.is_some() {} });
    let (status, _) = watch::channel(aggregator::Status::default());
    let settings = aggregator::Settings::new(dead_letters, status);
    let folded = aggregator::run(Arc::new(log), store, settings, std::future::ready(())).await;
    discard.abort();
    folded.map_err(|error| Failure::resource("aggregator", error))
}

fn finish(mut hour: Hour) -> Hour {
    hour.holds = hour.gaps == 0 && hour.produced == hour.counted + hour.duplicates + hour.parked + hour.in_flight;
    hour
}
