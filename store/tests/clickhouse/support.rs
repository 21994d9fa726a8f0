//! Databases of their own for tests, and cells to put into them.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, UInt64Type};
use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::rollup::{
    Cell, ContextCell, ContextPage, DecisionCell, FlagCell, LatencyCell, Table, TotalCell, UniqueCell, UserCell,
    counting, measure,
};
use flagmint_schemas::sketch::latency::Histogram;
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::clickhouse::{ClickHouseStore, Options, migrate};
use flagmint_store::{Emission, Period, Position, RollupQuery, RollupStore};
use uuid::Uuid;

/// 2026-01-05, a day's start, microseconds.
pub const START_US: i64 = 1_767_571_200_000_000;
pub const MINUTE_US: i64 = 60_000_000;
pub const HOUR_US: i64 = 60 * MINUTE_US;
pub const DAY_US: i64 = 24 * HOUR_US;

/// The server's URL.
pub fn url() -> String {
    std::env::var("FLAGMINT_TEST_CLICKHOUSE")
        .expect("FLAGMINT_TEST_CLICKHOUSE names no server: run the tests under dev/servers/with-clickhouse")
}

/// A database that nobody else uses, of a server.
pub fn database_at(url: &str) -> Options {
    let options = Options::from_url(url).expect("a URL");
    options.with_database(&format!("test_{}", Uuid::new_v4().simple()))
}

/// A database that nobody else uses.
pub fn database() -> Options {
    database_at(&url())
}

/// A store in a database, migrated if it was not.
pub async fn store(options: &Options) -> ClickHouseStore {
    migrate(options).await.expect("the schema can be created");
    ClickHouseStore::open(options).await.expect("the store opens")
}

/// Runs SQL over plain HTTP, past the store.
pub async fn sql(options: &Options, statement: &str) -> String {
    raw(&format!("{}/?database={}", url_of(options), name_of(options)), statement).await
}

/// The name of a database.
pub fn name_of(options: &Options) -> String {
    let text = format!("{options:?}");
    let place = text.trim_start_matches("Options(").split(' ').next().expect("a place");
    place.rsplit('/').next().expect("a database").to_owned()
}

fn url_of(options: &Options) -> String {
    let text = format!("{options:?}");
    let place = text.trim_start_matches("Options(").split(' ').next().expect("a place");
    place.rsplit_once('/').expect("a database").0.to_owned()
}

/// POSTs a body; the answer, whatever it is.
pub async fn raw(url: &str, body: &str) -> String {
    let (url, body) = (url.to_owned(), body.to_owned());
    let run = move || {
        let output = std::process::Command::new("curl").args(["-s", "--data-binary", &body, &url]).output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).trim().to_owned()
    };
    tokio::task::spawn_blocking(run).await.expect("curl ends")
}

pub fn flag(number: u128) -> FlagId {
    FlagId(Uuid::from_u128(number))
}

const EPOCH: u64 = 9;
const PARTITION: u32 = 0;

/// A cell of the tests: flag, minute, count.
pub type Counted = (u128, i64, u64);

fn tenant() -> (OrganizationId, ProjectId, EnvironmentId) {
    (OrganizationId(Uuid::from_u128(1)), ProjectId(Uuid::from_u128(2)), EnvironmentId(Uuid::from_u128(3)))
}

/// Decisions, latencies, distinct users and a context of some flags and minutes, all of one chunk.
pub fn emission(chunk: u64, cells: &[Counted], position: Option<Position>) -> Emission {
    let mut users: BTreeMap<(u128, i64), Registers> = BTreeMap::new();
    let mut seen: BTreeMap<i64, (u64, i64, i64)> = BTreeMap::new();
    for (number, time_us, count) in cells {
        let day_us = time_us.div_euclid(DAY_US) * DAY_US;
        let registers = users.entry((*number, day_us)).or_default();
        (0..*count).for_each(|user| {
            registers.insert((user + chunk + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        });
        let context = seen.entry(day_us).or_insert((0, i64::MAX, i64::MIN));
        *context = (context.0 + count, context.1.min(*time_us), context.2.max(*time_us));
    }
    let mut all: BTreeMap<i64, Registers> = BTreeMap::new();
    users.iter().for_each(|((_, day_us), registers)| all.entry(*day_us).or_default().merge_max(registers));
    let uniques: Vec<UniqueCell> = users.into_iter().map(|(key, registers)| unique(chunk, key, &registers)).collect();
    let contexts: Vec<ContextCell> =
        seen.into_iter().map(|(day_us, context)| observed(chunk, day_us, context)).collect();
    Emission {
        cells: vec![
            (
                Table::Decisions,
                DecisionCell::to_batch(&cells.iter().map(|cell| decision(chunk, *cell)).collect::<Vec<_>>()),
            ),
            (
                Table::Latency,
                LatencyCell::to_batch(&cells.iter().map(|cell| latency(chunk, *cell)).collect::<Vec<_>>()),
            ),
            (Table::Flags, FlagCell::to_batch(&flags(chunk, cells))),
            (Table::Totals, TotalCell::to_batch(&totals(chunk, cells))),
            (Table::Uniques, UniqueCell::to_batch(&uniques)),
            (Table::Users, UserCell::to_batch(&all.iter().map(|day| user(chunk, day)).collect::<Vec<_>>())),
            (Table::Contexts, ContextCell::to_batch(&contexts)),
        ],
        positions: position.into_iter().collect(),
    }
}

fn decision(chunk: u64, (number, time_us, count): Counted) -> DecisionCell {
    let (organization, project, environment) = tenant();
    DecisionCell {
        organization,
        project,
        environment,
        flag: flag(number),
        variation: VariationId::NONE,
        reason: 1,
        error_code: 0,
        rule: RuleId::NONE,
        source: String::new(),
        measure: measure::SERVED,
        counting: counting::COUNTED,
        time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        count,
    }
}

fn latency(chunk: u64, (number, time_us, count): Counted) -> LatencyCell {
    let (organization, project, environment) = tenant();
    LatencyCell {
        organization,
        project,
        environment,
        flag: flag(number),
        counting: counting::COUNTED,
        time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        count,
        latency_us: 7 * count,
        evaluation_ns: 9 * count,
        buckets: Histogram::from_dense(&[0, count, number as u64]).encode(),
    }
}

fn flags(chunk: u64, cells: &[Counted]) -> Vec<FlagCell> {
    let (organization, project, environment) = tenant();
    let mut hours: BTreeMap<(u128, i64), u64> = BTreeMap::new();
    for (number, time_us, count) in cells {
        *hours.entry((*number, time_us.div_euclid(HOUR_US) * HOUR_US)).or_default() += count;
    }
    let row = |((number, time_us), served)| FlagCell {
        organization,
        project,
        environment,
        flag: flag(number),
        counting: counting::COUNTED,
        time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        served,
        reported: 0,
        errors: 0,
        app_errors: 0,
        goals: 0,
    };
    hours.into_iter().map(row).collect()
}

fn totals(chunk: u64, cells: &[Counted]) -> Vec<TotalCell> {
    let (organization, project, environment) = tenant();
    let mut minutes: BTreeMap<i64, u64> = BTreeMap::new();
    for (_, time_us, count) in cells {
        *minutes.entry(*time_us).or_default() += count;
    }
    let row = |(time_us, served)| TotalCell {
        organization,
        project,
        environment,
        counting: counting::COUNTED,
        time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        served,
        reported: 0,
        errors: 0,
        app_errors: 0,
        goals: 0,
        latency_us: 7 * served,
        evaluation_ns: 9 * served,
        buckets: Histogram::from_dense(&[0, served]).encode(),
    };
    minutes.into_iter().map(row).collect()
}

fn user(chunk: u64, (time_us, registers): (&i64, &Registers)) -> UserCell {
    let (organization, project, environment) = tenant();
    UserCell {
        organization,
        project,
        environment,
        time_us: *time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        registers: registers.encode(),
    }
}

fn unique(chunk: u64, (number, time_us): (u128, i64), registers: &Registers) -> UniqueCell {
    let (organization, project, environment) = tenant();
    UniqueCell {
        organization,
        project,
        environment,
        flag: flag(number),
        variation: VariationId::NONE,
        time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        registers: registers.encode(),
    }
}

fn observed(chunk: u64, time_us: i64, (evaluations, first_seen_us, last_seen_us): (u64, i64, i64)) -> ContextCell {
    let (organization, project, environment) = tenant();
    ContextCell {
        organization,
        project,
        environment,
        kind: "user".to_owned(),
        key: "somebody".to_owned(),
        source: String::new(),
        time_us,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        evaluations,
        first_seen_us,
        last_seen_us,
        profile: format!("{last_seen_us:016x}{{}}"),
    }
}

/// A page of contexts with these numbers as pseudonyms and these evaluations.
pub fn page(chunk: u64, complete: u8, seen: &[(u128, u64)]) -> ContextPage {
    let (organization, project, environment) = tenant();
    ContextPage {
        organization,
        project,
        environment,
        kind: "user".to_owned(),
        time_us: START_US,
        epoch: EPOCH,
        partition: PARTITION,
        chunk,
        complete,
        pseudonyms: seen.iter().map(|(number, _)| number.to_be_bytes()).collect(),
        evaluations: seen.iter().map(|(_, evaluations)| *evaluations).collect(),
        first_seen_us: vec![START_US; seen.len()],
        last_seen_us: vec![START_US; seen.len()],
        known_us: vec![0; seen.len()],
        profiles: vec!["{}".to_owned()],
        shared_by: vec![seen.len() as u32],
        ..ContextPage::default()
    }
}

/// The fold is at an open chunk, and complete up to a time.
pub fn position(chunk: u64, complete_through_us: i64) -> Position {
    Position { epoch: EPOCH, partition: PARTITION, chunk, next_offset: chunk, complete_through_us }
}

/// A question about everything, by flag.
pub fn question(table: Table, period: Period) -> RollupQuery {
    RollupQuery {
        table,
        organization: Some(OrganizationId(Uuid::from_u128(1))),
        time_us: 0..START_US + 1000 * DAY_US,
        filters: vec![],
        group_by: match table {
            Table::Contexts => vec!["key"],
            Table::Totals | Table::Users => vec![],
            _ => vec!["flag"],
        },
        period,
        values: None,
        having: None,
        page: None,
    }
}

/// Counts by flag and time; 0 for the time of the whole.
pub async fn counts(store: &ClickHouseStore, period: Period) -> BTreeMap<(u128, i64), u64> {
    let batch = store.query(&question(Table::Decisions, period)).await.expect("questions are answered").batch;
    let flags = batch["flag"].as_fixed_size_binary();
    let counts = batch["count"].as_primitive::<UInt64Type>();
    let times = batch.column_by_name("time_us").map(|times| times.as_primitive::<Int64Type>().clone());
    let row = |row: usize| {
        let flag = u128::from_be_bytes(flags.value(row).try_into().expect("16 bytes"));
        ((flag, times.as_ref().map_or(0, |times| times.value(row))), counts.value(row))
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Sketches and contexts must say what the counts say: of each flag the histogram's counts, and of the context all.
pub async fn check_others(
    store: &ClickHouseStore,
    counts: &BTreeMap<(u128, i64), u64>,
    cells: &[(u64, u128, i64, u64)],
) {
    let latency = store.query(&question(Table::Latency, Period::Whole)).await.expect("an answer").batch;
    for row in 0..latency.num_rows() {
        let number =
            u128::from_be_bytes(latency["flag"].as_fixed_size_binary().value(row).try_into().expect("16 bytes"));
        let histogram = Histogram::decode(latency["buckets"].as_binary::<i32>().value(row)).expect("a histogram");
        let of_flag = cells.iter().filter(|(_, flag, ..)| *flag == number).count() as u64;
        assert_eq!(histogram.entries(), [(1, counts[&(number, 0)]), (2, number as u64 * of_flag)], "{number}");
    }
    let mut expected: BTreeMap<u128, Registers> = BTreeMap::new();
    for (chunk, number, _, count) in cells {
        let registers = expected.entry(*number).or_default();
        (0..*count).for_each(|user| {
            registers.insert((user + chunk + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        });
    }
    let uniques = store.query(&question(Table::Uniques, Period::Whole)).await.expect("an answer").batch;
    assert_eq!(uniques.num_rows(), expected.len());
    for row in 0..uniques.num_rows() {
        let number =
            u128::from_be_bytes(uniques["flag"].as_fixed_size_binary().value(row).try_into().expect("16 bytes"));
        assert_eq!(uniques["registers"].as_binary::<i32>().value(row), expected[&number].encode(), "{number}");
    }
    let flags = store.query(&question(Table::Flags, Period::Whole)).await.expect("an answer").batch;
    let served = flags["served"].as_primitive::<UInt64Type>();
    let of_flag =
        |row| u128::from_be_bytes(flags["flag"].as_fixed_size_binary().value(row).try_into().expect("16 bytes"));
    let served = (0..flags.num_rows()).map(|row| ((of_flag(row), 0), served.value(row)));
    assert_eq!(&served.collect::<BTreeMap<_, _>>(), counts);
    let all: u64 = counts.values().sum();
    let totals = store.query(&question(Table::Totals, Period::Whole)).await.expect("an answer").batch;
    let histogram = Histogram::decode(totals["buckets"].as_binary::<i32>().value(0)).expect("a histogram");
    assert_eq!((totals["served"].as_primitive::<UInt64Type>().value(0), histogram.entries()), (all, &[(1, all)][..]));
    let mut users = Registers::default();
    expected.values().for_each(|registers| users.merge_max(registers));
    let found = store.query(&question(Table::Users, Period::Whole)).await.expect("an answer").batch;
    assert_eq!(found["registers"].as_binary::<i32>().value(0), users.encode());
    let contexts = store.query(&question(Table::Contexts, Period::Whole)).await.expect("an answer").batch;
    let evaluations: u64 = contexts["evaluations"].as_primitive::<UInt64Type>().values().iter().sum();
    assert_eq!(evaluations, cells.iter().map(|(.., count)| count).sum::<u64>());
}
