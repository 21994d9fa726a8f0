//! What a decision costs the aggregator and ClickHouse together, with all rollups: CPU seconds of both.
//!
//! `dev/servers/with-clickhouse cargo run --release -p flagmint-benches --example clickhouse_fold -- [DECISIONS] [PER_CALL]`
//!
//! The events are those that the rivals of `benches/peers/pipeline` count: 200 flags with a Zipf distribution in 20 environments, 100,000 users, 4 partitions.
//! Records lie in memory as a log would give them (reading Kafka costs some 0.6 µs per record, of 1,000 decisions here); they are
//! decoded, folded, and what changed is stored every 100 ms, as an aggregator does that catches up. ClickHouse gets four more seconds
//! to merge. Sums are then compared with what was made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flagmint_aggregator::fold::{Emitted, FoldLimits, PartitionFold, Resume};
use flagmint_log::Record;
use flagmint_schemas::batch::{Batch, BatchHeader, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome};
use flagmint_schemas::decision::{Exit, Reason, Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::rollup::Table;
use flagmint_store::clickhouse::{ClickHouseStore, Options, migrate};
use flagmint_store::{Emission, Period, RollupQuery, RollupStore};
use uuid::Uuid;

const START_US: i64 = 1_767_225_600_000_000;
const ENVIRONMENTS: u64 = 20;
const FLAGS: usize = 200;
const USERS: u64 = 100_000;
const PARTITIONS: u64 = 4;
const PER_BATCH: u64 = 1000;
/// Of log time, so that an hour's minutes do not all fall into one.
const DECISIONS_PER_SECOND: u64 = 50_000;
const EMIT_INTERVAL: Duration = Duration::from_millis(100);

/// SplitMix64. Source: Steele, Lea, Flood (2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A flag by Zipf's law with exponent 1, by inversion of the harmonic sums.
    fn flag(&mut self, sums: &[f64]) -> usize {
        let draw = self.next() as f64 / u64::MAX as f64 * sums[sums.len() - 1];
        sums.partition_point(|sum| *sum < draw).min(sums.len() - 1)
    }
}

fn outcomes(environment: u64) -> Vec<Outcome> {
    let outcome = |index: usize| {
        let id = |n: usize| Uuid::from_u128((u128::from(environment) << 64) | n as u128);
        Outcome {
            flag: FlagId(id(index / 2 + 1)),
            flag_key: format!("flag-{}", index / 2),
            variation: VariationId(id(1000 + index)),
            reason: Reason::Split,
            error_code: None,
            exit: Some(Exit::RolloutBucket),
            rule: RuleId::NONE,
            rollout: id(5000 + index / 2),
            value_json: if index.is_multiple_of(2) { "true".into() } else { "false".into() },
            analytics_enabled: true,
        }
    };
    (0..2 * FLAGS).map(outcome).collect()
}

fn batch(random: &mut Random, sums: &[f64], environment: u64, now_us: i64, per_call: u64) -> Batch {
    let caller = Caller {
        key: KeyId(Uuid::from_u128(9)),
        transport: Transport::Rest,
        trigger: Trigger::Evaluate,
        source: "SDK".into(),
        sdk_name: "js".into(),
        sdk_version: "2.2.0".into(),
        platform: "browser".into(),
        wrapper: String::new(),
    };
    let mut contexts: Vec<Arc<ObservedContext>> = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    let (mut calls, mut decisions) = (Vec::new(), Vec::new());
    while (decisions.len() as u64) < PER_BATCH {
        let rows = per_call.min(PER_BATCH - decisions.len() as u64);
        for _ in 0..rows {
            let outcome = 2 * random.flag(sums) as u64 + random.below(2);
            decisions.push(DecisionRow { outcome: outcome as u32, bucket: random.below(100) as u8, count: 1 });
        }
        let user = random.below(USERS);
        let context = *numbers.entry(user).or_insert_with(|| {
            contexts.push(Arc::new(ObservedContext {
                kind: "user".into(),
                key: format!("p1_{:032x}", u128::from(user + 1).wrapping_mul(0x1234_5678_9ABC_DEF1_2345_6789)),
                user_hash: Random(user).next() | 1,
                attributes_json: r#"{"country":"DE","plan":"pro"}"#.into(),
                attributes_omitted: 0,
            }));
            contexts.len() as u32 - 1
        });
        calls.push(Call {
            call_id: u128::from(random.next()),
            event_time_us: now_us - random.below(20_000) as i64,
            latency_us: 40 + (random.below(1 << 16) as u32).leading_zeros() * 30 + random.below(40) as u32,
            evaluation_ns: 4_000 + random.below(2_000) as u32,
            config_version: 7,
            caller: 0,
            context,
            decisions: rows as u32,
            api_calls: 1,
            connections: 0,
            track_events: 0,
            error_code: None,
            counted: true,
        });
    }
    Batch { callers: vec![caller], outcomes: outcomes(environment), contexts, calls, decisions }
}

fn records(decisions: u64, per_call: u64) -> Vec<Record> {
    let mut random = Random(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=FLAGS)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let record = |number: u64| {
        let environment = number % ENVIRONMENTS;
        let append_time_us = START_US + (number * PER_BATCH * 1_000_000 / DECISIONS_PER_SECOND) as i64;
        let batch = batch(&mut random, &sums, environment + 1, append_time_us, per_call);
        let (partition, offset) = (environment % PARTITIONS, number / PARTITIONS);
        let header = BatchHeader {
            codec: Codec::Arrow,
            schema: BatchHeader::SCHEMA,
            producer: 1,
            sequence: offset,
            organization: OrganizationId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::from_u128(2)),
            environment: EnvironmentId(Uuid::from_u128(u128::from(environment + 1))),
            decisions: batch.decisions.len() as u32,
            calls: batch.calls.len() as u32,
            event_time_min_us: append_time_us - 20_000,
            event_time_max_us: append_time_us,
            low_watermark_us: append_time_us - 20_000,
            closing: false,
        };
        let payload = Bytes::from(batch.encode(Codec::Arrow));
        let header = header.encode().to_vec().into();
        Record { partition: partition as u32, offset, append_time_us, header, payload }
    };
    (0..decisions / PER_BATCH).map(record).collect()
}

/// CPU seconds of a process so far, by user and by kernel together.
fn cpu_s(process: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process is there");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in parentheses").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

async fn emit(folds: &mut [PartitionFold], store: &ClickHouseStore) -> usize {
    let (mut cells, mut positions) = (Emitted::default(), Vec::new());
    for fold in folds {
        if let Some((mut own, position)) = fold.emit() {
            cells.append(&mut own);
            positions.push(position);
        }
    }
    store.upsert(Emission { cells: cells.to_batches(), positions }).await.expect("ClickHouse takes cells");
    cells.len()
}

async fn counted(store: &ClickHouseStore) -> u64 {
    let query = RollupQuery {
        table: Table::Latency,
        organization: None,
        time_us: 0..i64::MAX,
        filters: vec![],
        group_by: vec![],
        period: Period::Whole,
        having: None,
        page: None,
    };
    let batch = store.query(&query).await.expect("an answer").batch;
    let counts = batch.column_by_name("count").expect("counts");
    counts.as_any().downcast_ref::<arrow::array::UInt64Array>().expect("counts").value(0)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let (decisions, per_call) = (numbers.next().unwrap_or(5_000_000), numbers.next().unwrap_or(1));
    let server = std::env::var("FLAGMINT_TEST_CLICKHOUSE").expect("run this under dev/servers/with-clickhouse");
    let control =
        std::env::var("FLAGMINT_TEST_CLICKHOUSE_CONTROL").expect("run this under dev/servers/with-clickhouse");
    let pid = std::fs::read_to_string(format!("{control}/pid")).expect("a process id");
    let options = Options::from_url(&server).expect("a URL").with_database(&format!("fold_{per_call}"));
    migrate(&options).await.expect("a schema");
    let store = ClickHouseStore::open(&options).await.expect("the store opens");
    let records = records(decisions, per_call);
    let bytes: usize = records.iter().map(|record| record.payload.len() + record.header.len()).sum();
    let new = |partition| {
        let start = Resume { chunk: 0, complete_through_us: i64::MIN };
        PartitionFold::new(1, partition, start, FoldLimits::default())
    };
    let mut folds: Vec<PartitionFold> = (0..PARTITIONS as u32).map(new).collect();
    let (own, theirs) = (cpu_s("self"), cpu_s(pid.trim()));
    let start = Instant::now();
    let (mut last, mut emissions, mut cells) = (Instant::now(), 0, 0);
    for record in &records {
        folds[record.partition as usize].fold(record);
        if last.elapsed() >= EMIT_INTERVAL {
            cells += emit(&mut folds, &store).await;
            emissions += 1;
            last = Instant::now();
        }
    }
    cells += emit(&mut folds, &store).await;
    let (wall, own) = (start.elapsed().as_secs_f64(), cpu_s("self") - own);
    let inserted = cpu_s(pid.trim()) - theirs;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let theirs = cpu_s(pid.trim()) - theirs;
    assert_eq!(counted(&store).await, decisions, "all decisions are counted");
    let rate = decisions as f64 / (own + theirs) / 1e6;
    println!(
        "{decisions} decisions, {per_call} a call, {:.1} bytes each in the log: {wall:.2} s, {emissions} emissions, {cells} cells; \
         CPU s: aggregator {own:.2}, ClickHouse {inserted:.2}, with merges {theirs:.2}; {rate:.2} M decisions per CPU s",
        bytes as f64 / decisions as f64
    );
}
