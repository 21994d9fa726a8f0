//! Figures of the Parquet store: 30 days of generated cells, then the time of each shape of question.
//!
//! `cargo run --release -p flagmint-store --example figures -- <flags> <decisions>`: cells are the same dimensions in as
//! many minutes as that many decisions touch, so 100 times the decisions are a few times the cells.

use std::path::Path;
use std::time::Instant;

use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::rollup::{Cell, DecisionCell, LatencyCell, Table, UniqueCell, UsageCell, counting, measure};
use flagmint_schemas::sketch::latency::{BUCKETS, Histogram};
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::parquet::{Options, ParquetStore};
use flagmint_store::{Emission, Filter, Page, Period, Position, RollupQuery, RollupStore};
use uuid::Uuid;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
const START_US: i64 = 1_767_571_200_000_000;
const DAYS: i64 = 30;
const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const PROJECT: ProjectId = ProjectId(Uuid::from_u128(2));
const ENVIRONMENT: EnvironmentId = EnvironmentId(Uuid::from_u128(3));

/// Spreads numbers. Source: the finaliser of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// The cells of one hour, as one chunk. Returns how many of decisions.
fn hour(hour: i64, flags: u64, per_cell: f64) -> (Emission, u64) {
    let (mut decisions, mut latencies, mut usage) = (vec![], vec![], vec![]);
    let chunk = hour as u64;
    for time_us in (0..60).map(|minute| START_US + hour * HOUR_US + minute * MINUTE_US) {
        for flag in 0..flags {
            let cells = decision_cells(time_us, chunk, flag, flags, per_cell);
            let served = cells.iter().map(|cell| cell.count).sum();
            decisions.extend(cells);
            latencies.extend((served > 0).then(|| latency_cell(time_us, chunk, flag, served)));
        }
        usage.extend((0..2).map(|key| usage_cell(time_us, chunk, key)));
    }
    let uniques: Vec<UniqueCell> = (0..flags).map(|flag| unique_cell(hour, flag)).collect();
    let cells = vec![
        (Table::Decisions, DecisionCell::to_batch(&decisions)),
        (Table::Latency, LatencyCell::to_batch(&latencies)),
        (Table::Usage, UsageCell::to_batch(&usage)),
        (Table::Uniques, UniqueCell::to_batch(&uniques)),
    ];
    let complete_through_us = START_US + (hour + 1) * HOUR_US;
    let position = Position { epoch: 1, partition: 0, chunk: chunk + 1, next_offset: chunk + 1, complete_through_us };
    (Emission { cells, positions: vec![position] }, decisions.len() as u64)
}

fn flag_id(flag: u64) -> FlagId {
    FlagId(Uuid::from_u128(100 + u128::from(flag)))
}

/// Three combinations of variation and rule; with fewer decisions than cells, most are absent.
fn decision_cells(time_us: i64, chunk: u64, flag: u64, flags: u64, per_cell: f64) -> Vec<DecisionCell> {
    let is_there = |combination: &u64| {
        let draw = mix((time_us as u64 / 1000 * flags + flag) * 3 + combination);
        per_cell >= 1.0 || ((draw % 1_000_000) as f64) < per_cell * 1e6
    };
    let cell = |combination: u64| DecisionCell {
        organization: ORGANIZATION,
        project: PROJECT,
        environment: ENVIRONMENT,
        flag: flag_id(flag),
        variation: VariationId(Uuid::from_u128(u128::from(flag * 2 + combination % 2))),
        reason: combination as u8,
        error_code: 0,
        rule: RuleId(Uuid::from_u128(u128::from(combination))),
        source: String::new(),
        measure: measure::SERVED,
        counting: counting::COUNTED,
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        count: per_cell.max(1.0) as u64,
    };
    (0..3).filter(is_there).map(cell).collect()
}

fn latency_cell(time_us: i64, chunk: u64, flag: u64, served: u64) -> LatencyCell {
    let mut counts = vec![0; BUCKETS];
    (0..served.min(40)).for_each(|n| counts[250 + (mix(n + flag * 99) % 90) as usize] += served.div_ceil(40));
    let histogram = Histogram::from_dense(&counts);
    LatencyCell {
        organization: ORGANIZATION,
        project: PROJECT,
        environment: ENVIRONMENT,
        flag: flag_id(flag),
        counting: counting::COUNTED,
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        count: histogram.count(),
        latency_us: served * 500,
        evaluation_ns: served * 200,
        buckets: histogram.encode(),
    }
}

fn usage_cell(time_us: i64, chunk: u64, key: u128) -> UsageCell {
    UsageCell {
        organization: ORGANIZATION,
        project: PROJECT,
        environment: ENVIRONMENT,
        key: KeyId(Uuid::from_u128(key)),
        transport: 1,
        sdk_name: "web".to_owned(),
        sdk_version: "1.0".to_owned(),
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        api_calls: 5,
        connections: 1,
        track_events: 0,
        calls: 5,
        failed_calls: 0,
    }
}

fn unique_cell(hour: i64, flag: u64) -> UniqueCell {
    let mut registers = Registers::default();
    (0..500).for_each(|user| {
        registers.insert(mix(mix(user + hour as u64 * 137) + flag));
    });
    UniqueCell {
        organization: ORGANIZATION,
        project: PROJECT,
        environment: ENVIRONMENT,
        flag: flag_id(flag),
        variation: VariationId::NONE,
        time_us: START_US + hour.div_euclid(24) * DAY_US,
        epoch: 1,
        partition: 0,
        chunk: hour as u64,
        registers: registers.encode(),
    }
}

/// The shapes of the analytics endpoints' questions.
fn questions() -> Vec<(&'static str, RollupQuery)> {
    let end_us = START_US + DAYS * DAY_US;
    let month = RollupQuery {
        table: Table::Decisions,
        organization: Some(ORGANIZATION),
        time_us: START_US..end_us,
        filters: vec![
            Filter::IdIn("environment", vec![ENVIRONMENT.0]),
            Filter::CodeIn("counting", vec![counting::COUNTED]),
        ],
        group_by: vec!["flag", "variation"],
        period: Period::Whole,
        values: None,
        having: None,
        page: None,
    };
    let flag = Filter::IdIn("flag", vec![Uuid::from_u128(105)]);
    let one_flag = RollupQuery { filters: vec![month.filters[0].clone(), flag.clone()], ..month.clone() };
    let latency = RollupQuery { table: Table::Latency, group_by: vec!["flag"], ..month.clone() };
    let top = Page { order_by: vec![("count", true)], offset: 0, limit: 20 };
    let usage = RollupQuery { table: Table::Usage, filters: vec![], group_by: vec!["key"], ..month.clone() };
    let uniques = RollupQuery { table: Table::Uniques, filters: vec![], group_by: vec!["flag"], ..month.clone() };
    vec![
        ("decisions, 30 d, by flag and variation", month.clone()),
        ("decisions, 30 d by day, by flag and variation", RollupQuery { period: Period::Day, ..month.clone() }),
        ("decisions, 30 d by hour, one flag", RollupQuery { period: Period::Hour, ..one_flag.clone() }),
        (
            "decisions, 30 d by hour, by flag",
            RollupQuery { period: Period::Hour, group_by: vec!["flag"], ..month.clone() },
        ),
        (
            "decisions, last 90 minutes, top 20",
            RollupQuery { time_us: end_us - 90 * MINUTE_US..end_us, page: Some(top), ..month.clone() },
        ),
        (
            "decisions, 7 d from 13:37 by day",
            RollupQuery {
                time_us: end_us - 7 * DAY_US - 623 * MINUTE_US..end_us - 17 * MINUTE_US,
                period: Period::Day,
                ..month.clone()
            },
        ),
        ("latency, 30 d, by flag", latency.clone()),
        (
            "latency, 30 d by day, one flag",
            RollupQuery { table: Table::Latency, group_by: vec![], period: Period::Day, ..one_flag.clone() },
        ),
        (
            "latency, 24 h by hour, by flag",
            RollupQuery { time_us: end_us - DAY_US..end_us, period: Period::Hour, ..latency },
        ),
        ("usage, 30 d by day, by key", RollupQuery { period: Period::Day, ..usage }),
        ("uniques, 30 d, by flag", uniques.clone()),
        ("uniques, 30 d by day, by flag", RollupQuery { period: Period::Day, ..uniques }),
    ]
}

async fn ask(store: &ParquetStore, title: &str) {
    println!("\n{title}\n\n| question | rows | p50 ms | p99 ms |\n|---|---|---|---|");
    for (name, query) in questions() {
        let mut rows = 0;
        let mut times_us = vec![];
        for _ in 0..100 {
            let start = Instant::now();
            rows = store.query(&query).await.expect("questions are answered").batch.num_rows();
            times_us.push(start.elapsed().as_micros() as f64);
        }
        times_us.sort_by(f64::total_cmp);
        println!("| {name} | {rows} | {:.1} | {:.1} |", times_us[50] / 1e3, times_us[98] / 1e3);
    }
}

fn size(dir: &Path) -> (usize, u64) {
    let files = std::fs::read_dir(dir).expect("a directory").filter_map(|entry| entry.ok()?.metadata().ok());
    files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.len()))
}

#[tokio::main]
async fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [flags, decisions] = numbers[..] else { panic!("usage: figures <flags> <decisions>") };
    let per_cell = decisions as f64 / (DAYS * 1440 * 3) as f64 / flags as f64;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = ParquetStore::open(dir.path(), &Options::default()).expect("an empty directory opens");
    let (start, mut cells, mut slowest_ms) = (Instant::now(), 0, 0);
    for at in 0..DAYS * 24 {
        let (emission, count) = hour(at, flags, per_cell);
        cells += count;
        store.upsert(emission).await.expect("cells are taken");
        let step = Instant::now();
        store.maintain(START_US + at * HOUR_US).await.expect("there is room");
        slowest_ms = step.elapsed().as_millis().max(slowest_ms);
    }
    let (files, bytes) = size(dir.path());
    println!("\n## {flags} flags, {decisions} decisions in 30 days: {cells} decision cells by the minute");
    println!("written in {:.1} s, slowest maintenance {slowest_ms} ms", start.elapsed().as_secs_f64());
    println!("{files} files, {} KiB", bytes / 1024);
    ask(&store, "From files:").await;
    let memory = tempfile::tempdir().expect("a temporary directory");
    let store = ParquetStore::open(memory.path(), &Options::default()).expect("an empty directory opens");
    let (emission, count) = hour(DAYS * 24 - 1, flags, per_cell);
    store.upsert(emission).await.expect("cells are taken");
    ask(&store, &format!("From memory only (the last hour, {count} decision cells):")).await;
}
