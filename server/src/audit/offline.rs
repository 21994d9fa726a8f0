//! The audit of a data directory that nobody runs: the ledger, the cells and what the log still holds beyond them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use flagmint_log::{DecisionLog as _, LocalLog, Options as LogOptions};
use flagmint_schemas::batch::BatchHeader;
use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::{CellValue, Table};
use flagmint_store::parquet::ParquetStore;
use flagmint_store::{Period, RollupQuery, RollupStore as _, Rows};

use super::Hour;
use crate::exit::Failure;
use crate::options::AuditOptions;

const HOUR_US: i64 = 3_600_000_000;
const READ_BYTES: usize = 8 * 1024 * 1024;

/// The hours of the directory's ledger, with what the log holds unfolded as in flight.
///
/// # Errors
/// If the directory is in use or cannot be read.
pub async fn hours(options: &AuditOptions) -> Result<Vec<Hour>, Failure> {
    let directory = options.data_dir.clone().unwrap_or_else(|| PathBuf::from("./flagmint-data"));
    if !directory.join("log").is_dir() {
        return Err(Failure::Usage(format!("{} holds no installation", directory.display())));
    }
    let refuse = |error: &dyn std::fmt::Display| Failure::resource(directory.display(), error);
    let log = LocalLog::open(LogOptions::new(&directory.join("log"), 1)).map_err(|error| refuse(&error))?;
    let store = ParquetStore::open(&directory.join("rollups"), &flagmint_store::parquet::Options::default())
        .map_err(|error| refuse(&error))?;
    let range = range(options)?;
    let mut hours = ledger(&store, options, &range).await?;
    add_unfolded(&log, &store, options, &range, &mut hours).await?;
    Ok(hours.into_values().map(finish).collect())
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

fn label(hours: &mut Hours) {
    for ((time_us, organization), hour) in hours {
        let time = DateTime::from_timestamp_micros(*time_us).unwrap_or_default();
        hour.hour = time.to_rfc3339_opts(SecondsFormat::Secs, true);
        hour.organization_id = if organization.is_none() { String::new() } else { organization.to_string() };
    }
}

async fn add_unfolded(
    log: &LocalLog,
    store: &ParquetStore,
    options: &AuditOptions,
    range: &std::ops::Range<i64>,
    hours: &mut Hours,
) -> Result<(), Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::resource("log", error);
    let positions = store.resume_positions().await.map_err(|error| refuse(&error))?;
    for partition in 0..log.partitions() {
        let bounds = log.bounds(partition).await.map_err(|error| refuse(&error))?;
        let folded = positions.iter().find(|position| position.partition == partition && position.epoch == log.epoch());
        let mut next = folded.map_or(bounds.start, |position| position.chunk.max(bounds.start));
        while next < bounds.end {
            let records = log.read(partition, next, READ_BYTES).await.map_err(|error| refuse(&error))?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            for record in &records {
                let Ok(header) = BatchHeader::decode(&record.header) else { continue };
                let asked = options.org.is_none_or(|organization| organization == header.organization.0);
                if header.is_heartbeat() || !asked || !range.contains(&record.append_time_us) {
                    continue;
                }
                let hour = hours.entry((floor_hour(record.append_time_us), header.organization)).or_default();
                hour.produced += u64::from(header.decisions);
                hour.in_flight += u64::from(header.decisions);
            }
        }
    }
    label(hours);
    Ok(())
}

fn finish(mut hour: Hour) -> Hour {
    hour.holds = hour.gaps == 0 && hour.produced == hour.counted + hour.duplicates + hour.parked + hour.in_flight;
    hour
}
