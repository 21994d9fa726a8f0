//! SIGKILL at random moments while a child emits, flushes, rewrites and compacts: after each, what the files hold plus
//! what is folded again from where they say equals a count of the made-up log.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::rollup::{Cell, DecisionCell, LatencyCell, Table, counting, measure};
use flagmint_schemas::sketch::latency::Histogram;
use flagmint_store::parquet::{Options, ParquetStore};
use flagmint_store::{Emission, Period, Position, RollupQuery, RollupStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

const DIRECTORY: &str = "FLAGMINT_STORE_CRASH_DIRECTORY";
const SEED: &str = "FLAGMINT_STORE_CRASH_SEED";
const START_US: i64 = 1_767_571_200_000_000;
const MINUTE_US: i64 = 60_000_000;
const PARTITIONS: u32 = 2;
/// Offsets in a chunk.
const CHUNK: u64 = 100;
/// Event time that passes per chunk: hours and days close while the child runs.
const CHUNK_US: i64 = 11 * MINUTE_US;

/// Cells of one chunk: flag, minute, count.
fn cells(partition: u32, chunk: u64) -> Vec<(u128, i64, u64)> {
    let mut random = StdRng::seed_from_u64(chunk * 2 + u64::from(partition));
    let end_us = START_US + (chunk / CHUNK + 1) as i64 * CHUNK_US;
    let mut cells = BTreeMap::new();
    for _ in 0..40 {
        let late_us = if random.random_bool(0.1) { random.random_range(0..20) * 60 * MINUTE_US } else { 0 };
        let time_us = (end_us - late_us - random.random_range(1..12) * MINUTE_US).max(START_US);
        let time_us = time_us.div_euclid(MINUTE_US) * MINUTE_US;
        cells.insert((random.random_range(1..13u128), time_us), random.random_range(1..1000));
    }
    cells.into_iter().map(|((flag, time_us), count)| (flag, time_us, count)).collect()
}

fn emission(partition: u32, chunk: u64, tenths: u64) -> Emission {
    let (mut decisions, mut latencies) = (vec![], vec![]);
    for (flag, time_us, count) in cells(partition, chunk) {
        let count = count * tenths / 10;
        let (organization, project) = (OrganizationId(Uuid::from_u128(1)), ProjectId(Uuid::from_u128(2)));
        let (environment, flag) = (EnvironmentId(Uuid::from_u128(3)), FlagId(Uuid::from_u128(flag)));
        decisions.push(DecisionCell {
            organization,
            project,
            environment,
            flag,
            variation: VariationId::NONE,
            reason: 1,
            error_code: 0,
            rule: RuleId::NONE,
            source: String::new(),
            measure: measure::SERVED,
            counting: counting::COUNTED,
            time_us,
            epoch: 9,
            partition,
            chunk,
            count,
        });
        latencies.push(LatencyCell {
            organization,
            project,
            environment,
            flag,
            counting: counting::COUNTED,
            time_us,
            epoch: 9,
            partition,
            chunk,
            count,
            latency_us: 7 * count,
            evaluation_ns: 9 * count,
            buckets: Histogram::from_dense(&[0, count]).encode(),
        });
    }
    let open = if tenths == 10 { chunk + CHUNK } else { chunk };
    let complete_through_us = START_US + (open / CHUNK) as i64 * CHUNK_US;
    Emission {
        cells: vec![
            (Table::Decisions, DecisionCell::to_batch(&decisions)),
            (Table::Latency, LatencyCell::to_batch(&latencies)),
        ],
        positions: vec![Position { epoch: 9, partition, chunk: open, next_offset: open, complete_through_us }],
    }
}

fn open(dir: &Path) -> ParquetStore {
    ParquetStore::open(dir, &Options::default()).expect("the directory can be opened after a kill")
}

async fn resume(store: &ParquetStore) -> BTreeMap<u32, u64> {
    let positions = store.resume_positions().await.expect("positions are readable");
    let known: BTreeMap<u32, u64> = positions.iter().map(|known| (known.partition, known.chunk)).collect();
    (0..PARTITIONS).map(|partition| (partition, known.get(&partition).copied().unwrap_or(0))).collect()
}

/// The child: an aggregator that folds on until it is killed. Does nothing when run as a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(DIRECTORY) else { return };
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).expect("the parent gives a seed");
    let mut random = StdRng::seed_from_u64(seed);
    let store = Arc::new(open(Path::new(&dir)));
    let maintained = Arc::clone(&store);
    tokio::spawn(async move {
        loop {
            maintained.maintain(START_US).await.expect("maintenance succeeds");
        }
    });
    let mut chunks = resume(&store).await;
    loop {
        for partition in 0..PARTITIONS {
            let chunk = chunks[&partition];
            for tenths in [4, 10] {
                store.upsert(emission(partition, chunk, tenths)).await.expect("the store takes good cells");
                if random.random_bool(0.1) {
                    // A zombie repeats something old.
                    let stale = random.random_range(0..=chunk / CHUNK) * CHUNK;
                    store.upsert(emission(partition, stale, 4)).await.expect("the store takes stale cells");
                }
                tokio::task::yield_now().await;
            }
            chunks.insert(partition, chunk + CHUNK);
        }
    }
}

fn spawn(dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().expect("the test has a path"))
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test can run itself")
}

async fn check(dir: &Path) -> BTreeMap<u32, u64> {
    let store = open(dir);
    let resumed = resume(&store).await;
    let mut ends = BTreeMap::new();
    for (partition, chunk) in &resumed {
        for chunk in [*chunk, chunk + CHUNK] {
            store.upsert(emission(*partition, chunk, 10)).await.expect("the store takes good cells");
        }
        ends.insert(*partition, chunk + 2 * CHUNK);
    }
    let mut expected: BTreeMap<(u128, i64), u64> = BTreeMap::new();
    for (partition, end) in &ends {
        for chunk in (0..*end).step_by(CHUNK as usize) {
            for (flag, time_us, count) in cells(*partition, chunk) {
                *expected.entry((flag, time_us)).or_default() += count;
            }
        }
    }
    for (from_us, step_us) in [(START_US, 60), (START_US, 24 * 60), (START_US + 17 * MINUTE_US, 60)] {
        compare(&store, from_us, step_us * MINUTE_US, &expected).await;
    }
    resumed
}

async fn compare(store: &ParquetStore, from_us: i64, step_us: i64, expected: &BTreeMap<(u128, i64), u64>) {
    let mut sums: BTreeMap<(u128, i64), u64> = BTreeMap::new();
    for ((flag, time_us), count) in expected.iter().filter(|((_, time_us), _)| *time_us >= from_us) {
        *sums.entry((*flag, time_us.div_euclid(step_us) * step_us)).or_default() += count;
    }
    let mut query = RollupQuery {
        table: Table::Decisions,
        organization: Some(OrganizationId(Uuid::from_u128(1))),
        time_us: from_us..START_US + 400 * 24 * 60 * MINUTE_US,
        filters: vec![],
        group_by: vec!["flag"],
        period: if step_us == 60 * MINUTE_US { Period::Hour } else { Period::Day },
        values: None,
        having: None,
        page: None,
    };
    for table in [Table::Decisions, Table::Latency] {
        query.table = table;
        let batch = store.query(&query).await.expect("questions are answered").batch;
        let flags = batch["flag"].as_any().downcast_ref::<arrow::array::FixedSizeBinaryArray>().expect("ids");
        let times = batch["time_us"].as_any().downcast_ref::<arrow::array::Int64Array>().expect("times");
        let counts = batch["count"].as_any().downcast_ref::<arrow::array::UInt64Array>().expect("counts");
        let found: BTreeMap<(u128, i64), u64> = (0..batch.num_rows())
            .map(|row| {
                let flag = u128::from_be_bytes(flags.value(row).try_into().expect("16 bytes"));
                ((flag, times.value(row)), counts.value(row))
            })
            .collect();
        assert_eq!(found, sums, "{table:?} from {from_us} by {step_us}");
        if table == Table::Latency {
            let stored = batch["buckets"].as_any().downcast_ref::<arrow::array::BinaryArray>().expect("histograms");
            for row in 0..batch.num_rows() {
                let histogram = Histogram::decode(stored.value(row)).expect("a histogram");
                assert_eq!(histogram.entries(), [(1, counts.value(row))]);
            }
        }
    }
}

#[tokio::test]
async fn sums_survive_kills() {
    const KILLS: u64 = 60;
    let seed: u64 = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("crash seed {seed}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut random = StdRng::seed_from_u64(seed);
    let mut resumed = BTreeMap::new();
    for kill in 0..KILLS {
        let mut child = spawn(dir.path(), random.random());
        tokio::time::sleep(Duration::from_millis(random.random_range(20..250))).await;
        child.kill().expect("the child is ours");
        child.wait().expect("the child ends");
        let now = check(dir.path()).await;
        assert!(resumed.iter().all(|(partition, chunk)| now[partition] >= *chunk), "kill {kill}: {resumed:?} {now:?}");
        resumed = now;
    }
    println!("positions after {KILLS} kills: {resumed:?}");
    assert!(resumed.values().all(|chunk| *chunk > 0), "the child never got to commit anything");
}
