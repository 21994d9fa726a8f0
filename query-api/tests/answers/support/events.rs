//! The events of the world and the cells that a fold would make of them.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use flagmint_schemas::decision::{ErrorCode, Reason};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::rollup::{
    Cell, DecisionCell, FlagCell, LatencyCell, LedgerCell, Table, TotalCell, UniqueCell, UsageCell, UserCell, counting,
    measure,
};
use flagmint_schemas::sketch::latency::{BUCKETS, Histogram, bucket_of};
use flagmint_schemas::sketch::unique::Registers;
use uuid::Uuid;

use super::ids;

pub const HOUR_US: i64 = 3_600_000_000;
pub const DAY_US: i64 = 24 * HOUR_US;

/// Some decisions of one user in one call.
#[derive(Clone, Debug)]
pub struct Event {
    pub environment: Uuid,
    pub flag: Uuid,
    pub variation: Uuid,
    pub reason: Reason,
    pub error_code: Option<ErrorCode>,
    pub measure: u8,
    pub counting: u8,
    pub time_us: i64,
    pub count: u64,
    pub latency_us: u64,
    pub evaluation_ns: u64,
    pub user: u64,
}

/// SplitMix64. Source: Steele, Lea, Flood (2014).
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// 6,000 events of 70 days up to now, none on 2026-03-10; the other organization's are none.
pub fn generate(seed: u64) -> Vec<Event> {
    let end_us = super::NOW.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_micros();
    let silent_us = "2026-03-10T00:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_micros();
    let mut state = seed;
    let mut below = |n: u64| {
        state = state.wrapping_add(1);
        mix(state) % n
    };
    let mut event = || {
        let flag = [ids::CHECKOUT, ids::CHECKOUT, ids::BANNER, ids::OLD, ids::HIDDEN][below(5) as usize];
        let measure =
            [measure::SERVED, measure::SERVED, measure::SERVED, measure::REPORTED, measure::GOAL, measure::APP_ERROR]
                [below(6) as usize];
        let is_error = measure == measure::SERVED && below(10) == 0;
        let reason = match measure {
            measure::SERVED => [Reason::Split, Reason::TargetingMatch, Reason::Default][below(3) as usize],
            _ => Reason::Unknown,
        };
        let magnitude = 1 << below(14);
        Event {
            environment: [ids::LIVE, ids::LIVE, ids::STAGING][below(3) as usize],
            flag,
            variation: if flag == ids::CHECKOUT {
                [ids::ON, ids::OFF, Uuid::nil()][below(3) as usize]
            } else {
                Uuid::nil()
            },
            reason: if is_error { Reason::Error } else { reason },
            error_code: is_error.then_some([ErrorCode::TypeMismatch, ErrorCode::General][below(2) as usize]),
            measure,
            counting: match (flag == ids::HIDDEN, below(8)) {
                (true, _) => counting::HIDDEN,
                (false, 0) => counting::UNCOUNTED,
                (false, _) => counting::COUNTED,
            },
            time_us: end_us - below(70 * DAY_US as u64) as i64,
            count: 1 + below(4),
            latency_us: 50 + below(magnitude),
            evaluation_ns: 20 + below(2_000),
            user: below(700),
        }
    };
    let is_silent = |event: &Event| (silent_us..silent_us + DAY_US).contains(&event.time_us);
    std::iter::repeat_with(&mut event).filter(|event| !is_silent(event)).take(6_000).collect()
}

fn organization() -> OrganizationId {
    OrganizationId(ids::ORGANIZATION)
}

fn project() -> ProjectId {
    ProjectId(ids::PROJECT)
}

/// Start of the step that a time is in.
pub fn floor(time_us: i64, step_us: i64) -> i64 {
    time_us.div_euclid(step_us) * step_us
}

/// Cells of all tables but contexts; events alternate between two chunks.
pub fn cells(events: &[Event]) -> Vec<(Table, RecordBatch)> {
    let chunks: Vec<(u64, Vec<&Event>)> =
        [0, 1].map(|odd| (1_000 * odd, events.iter().skip(odd as usize).step_by(2).collect())).into();
    let of = |make: &dyn Fn(u64, &[&Event]) -> RecordBatch| -> Vec<RecordBatch> {
        chunks.iter().map(|(chunk, events)| make(*chunk, events)).collect()
    };
    let tables = [
        (Table::Decisions, of(&decisions)),
        (Table::Latency, of(&latency)),
        (Table::Flags, of(&flags)),
        (Table::Totals, of(&totals)),
        (Table::Uniques, of(&uniques)),
        (Table::Users, of(&users)),
        (Table::Ledger, of(&ledger)),
        (Table::Usage, of(&usage)),
    ];
    let whole = |(table, batches): (Table, Vec<RecordBatch>)| {
        (table, arrow::compute::concat_batches(&table.schema(), &batches).unwrap())
    };
    tables.into_iter().map(whole).collect()
}

fn decisions(chunk: u64, events: &[&Event]) -> RecordBatch {
    let row = |event: &&Event| DecisionCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(event.environment),
        flag: FlagId(event.flag),
        variation: VariationId(event.variation),
        reason: event.reason.code(),
        error_code: event.error_code.map_or(0, |code| code.code()),
        rule: RuleId::NONE,
        source: "API".to_owned(),
        measure: event.measure,
        counting: event.counting,
        time_us: floor(event.time_us, 60_000_000),
        epoch: 1,
        partition: 0,
        chunk,
        count: event.count,
    };
    let mut cells: BTreeMap<String, DecisionCell> = BTreeMap::new();
    for cell in events.iter().map(row) {
        let key = format!("{:?}", DecisionCell { count: 0, ..cell.clone() });
        cells.entry(key).and_modify(|sum| sum.count += cell.count).or_insert(cell);
    }
    // A call that failed before evaluation: an error without a flag, in no analytics.
    let failed = cells.values().next().cloned().unwrap();
    let failed =
        DecisionCell { flag: FlagId::NONE, counting: counting::HIDDEN, measure: measure::SERVED, count: 7, ..failed };
    DecisionCell::to_batch(&cells.into_values().chain([failed]).collect::<Vec<_>>())
}

fn latency(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<_, (u64, u64, u64, Vec<u64>)> = BTreeMap::new();
    for event in events.iter().filter(|event| event.measure == measure::SERVED) {
        let key = (event.environment, event.flag, event.counting, floor(event.time_us, 60_000_000));
        let cell = cells.entry(key).or_insert_with(|| (0, 0, 0, vec![0; BUCKETS]));
        cell.0 += event.count;
        cell.1 += event.count * event.latency_us;
        cell.2 += event.count * event.evaluation_ns;
        cell.3[usize::from(bucket_of(event.latency_us))] += event.count;
    }
    let row = |((environment, flag, counting, time_us), (count, latency_us, evaluation_ns, buckets)): (
        _,
        (_, _, _, Vec<u64>),
    )| LatencyCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(environment),
        flag: FlagId(flag),
        counting,
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        count,
        latency_us,
        evaluation_ns,
        buckets: Histogram::from_dense(&buckets).encode(),
    };
    LatencyCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}

/// Served, reported, errors, application errors, goals.
fn tallies(event: &Event) -> [u64; 5] {
    let of = |measure| if event.measure == measure { event.count } else { 0 };
    let served = of(measure::SERVED);
    let errors = if event.reason == Reason::Error { served } else { 0 };
    [served, of(measure::REPORTED), errors, of(measure::APP_ERROR), of(measure::GOAL)]
}

fn flags(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<_, [u64; 5]> = BTreeMap::new();
    for event in events {
        let key = (event.environment, event.flag, event.counting, floor(event.time_us, HOUR_US));
        cells.entry(key).or_default().iter_mut().zip(tallies(event)).for_each(|(sum, count)| *sum += count);
    }
    let row = |((environment, flag, counting, time_us), sums): (_, [u64; 5])| FlagCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(environment),
        flag: FlagId(flag),
        counting,
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        served: sums[0],
        reported: sums[1],
        errors: sums[2],
        app_errors: sums[3],
        goals: sums[4],
    };
    FlagCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}

fn totals(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<_, ([u64; 5], u64, u64, Vec<u64>)> = BTreeMap::new();
    for event in events {
        let key = (event.environment, event.counting, floor(event.time_us, 60_000_000));
        let cell = cells.entry(key).or_insert_with(|| ([0; 5], 0, 0, vec![0; BUCKETS]));
        cell.0.iter_mut().zip(tallies(event)).for_each(|(sum, count)| *sum += count);
        if event.measure == measure::SERVED {
            cell.1 += event.count * event.latency_us;
            cell.2 += event.count * event.evaluation_ns;
            cell.3[usize::from(bucket_of(event.latency_us))] += event.count;
        }
    }
    let row = |(key, sums): (_, ([u64; 5], u64, u64, Vec<u64>))| {
        let (environment, counting, time_us) = key;
        let ([served, reported, errors, app_errors, goals], latency_us, evaluation_ns, buckets) = sums;
        TotalCell {
            organization: organization(),
            project: project(),
            environment: EnvironmentId(environment),
            counting,
            time_us,
            epoch: 1,
            partition: 0,
            chunk,
            served,
            reported,
            errors,
            app_errors,
            goals,
            latency_us,
            evaluation_ns,
            buckets: Histogram::from_dense(&buckets).encode(),
        }
    };
    TotalCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}

fn users(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<_, Registers> = BTreeMap::new();
    for event in events.iter().filter(|event| event.counting == counting::COUNTED) {
        cells.entry((event.environment, floor(event.time_us, DAY_US))).or_default().insert(mix(event.user));
    }
    let row = |((environment, time_us), registers): (_, Registers)| UserCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(environment),
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        registers: registers.encode(),
    };
    UserCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}

fn uniques(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<_, Registers> = BTreeMap::new();
    for event in events {
        let mut see = |flag, variation| {
            let key = (event.environment, flag, variation, floor(event.time_us, DAY_US));
            cells.entry(key).or_default().insert(mix(event.user));
        };
        see(Uuid::nil(), Uuid::nil());
        if event.counting == counting::COUNTED {
            see(event.flag, Uuid::nil());
            see(event.flag, event.variation);
        }
    }
    let row = |((environment, flag, variation, time_us), registers): (_, Registers)| UniqueCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(environment),
        flag: FlagId(flag),
        variation: VariationId(variation),
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        registers: registers.encode(),
    };
    UniqueCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}

fn ledger(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<(Uuid, i64), u64> = BTreeMap::new();
    for event in events {
        *cells.entry((event.environment, floor(event.time_us, HOUR_US))).or_default() += event.count;
    }
    // Of each cell one decision was clamped; each record came twice.
    let row = |((environment, time_us), counted): ((Uuid, i64), u64)| LedgerCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(environment),
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        records: 3,
        produced: 2 * counted + 5,
        counted,
        calls: 1,
        duplicate_records: 1,
        duplicate_decisions: counted,
        parked_records: 1,
        parked_decisions: 5,
        gaps: 0,
        clamped: 1,
        estimated_missing: 0,
    };
    LedgerCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}

fn usage(chunk: u64, events: &[&Event]) -> RecordBatch {
    let mut cells: BTreeMap<(Uuid, i64), u64> = BTreeMap::new();
    for event in events {
        *cells.entry((event.environment, floor(event.time_us, 60_000_000))).or_default() += 1;
    }
    let row = |((environment, time_us), api_calls): ((Uuid, i64), u64)| UsageCell {
        organization: organization(),
        project: project(),
        environment: EnvironmentId(environment),
        key: KeyId::NONE,
        transport: 1,
        sdk_name: String::new(),
        sdk_version: String::new(),
        time_us,
        epoch: 1,
        partition: 0,
        chunk,
        api_calls,
        connections: 2 * api_calls,
        track_events: 3 * api_calls,
        calls: api_calls,
        failed_calls: 0,
    };
    UsageCell::to_batch(&cells.into_iter().map(row).collect::<Vec<_>>())
}
