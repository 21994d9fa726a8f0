//! SIGKILL of ClickHouse at random moments while cells are stored and rewritten: nothing acknowledged is lost, and what was not is
//! emitted again from where the store says.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use flagmint_store::clickhouse::{ClickHouseStore, Options};
use flagmint_store::{Emission, Period, RollupStore, StoreError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{self, DAY_US, HOUR_US, MINUTE_US, START_US, counts, emission, position};

/// A ClickHouse of this test's own, since others would not like it to be killed.
struct Server {
    options: Options,
    control: String,
    script: Child,
    _until: Option<ChildStdin>,
}

impl Server {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/servers/with-clickhouse");
        let mut script = Command::new(script)
            .args(["sh", "-c", "echo $FLAGMINT_TEST_CLICKHOUSE; echo $FLAGMINT_TEST_CLICKHOUSE_CONTROL; cat"])
            .env_remove("FLAGMINT_TEST_CLICKHOUSE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script runs");
        let mut lines = BufReader::new(script.stdout.take().expect("its output")).lines();
        let mut line = || lines.next().expect("the server started").expect("a line");
        let (url, control) = (line(), line());
        let until = script.stdin.take();
        Self { options: support::database_at(&url), control, script, _until: until }
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(format!("{}/pid", self.control)).expect("a process id");
        Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill runs");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The command ends with its input, and the server with the command.
        self._until = None;
        let _ = self.script.wait();
    }
}

fn cells(chunk: u64) -> Vec<(u128, i64, u64)> {
    let mut random = StdRng::seed_from_u64(chunk);
    let now_us = START_US + (chunk as i64 / 100 + 1) * 20 * MINUTE_US;
    let mut cells = std::collections::BTreeMap::new();
    for _ in 0..20 {
        let latest = if random.random_bool(0.1) { 1200 } else { 20 };
        let late_us = random.random_range(1..latest) * MINUTE_US;
        cells.insert((random.random_range(1..5u128), (now_us - late_us).max(START_US)), random.random_range(1..100));
    }
    cells.into_iter().map(|((flag, time_us), count)| (flag, time_us, count)).collect()
}

/// Offers the same rows until they are taken, as an aggregator does.
async fn upsert(store: &ClickHouseStore, emission: Emission) {
    loop {
        match store.upsert(emission.clone()).await {
            Ok(()) => return,
            Err(StoreError::Retry(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn retried<T>(mut step: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match step().await {
            Ok(done) => return done,
            Err(StoreError::Retry(reason)) => {
                assert!(std::time::Instant::now() < deadline, "{reason}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Chunks that are folded between two kills at least.
const CHUNKS_BETWEEN_KILLS: u64 = 2;

/// An aggregator that never stops: chunk after chunk in two emissions each.
async fn fold(store: &ClickHouseStore, from: u64, folded: &std::sync::atomic::AtomicU64) {
    for chunk in (from..).step_by(100) {
        let half: Vec<_> =
            cells(chunk).iter().map(|&(flag, time_us, count)| (flag, time_us, count.div_ceil(2))).collect();
        let complete_us = START_US + (chunk as i64 / 100 + 1) * 20 * MINUTE_US;
        upsert(store, emission(chunk, &half, Some(position(chunk, complete_us - 20 * MINUTE_US)))).await;
        upsert(store, emission(chunk, &cells(chunk), Some(position(chunk + 100, complete_us)))).await;
        folded.store(chunk + 100, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_cells_survive_kills_of_the_server() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start();
    retried(async || flagmint_store::clickhouse::migrate(&server.options).await).await;
    let folded = std::sync::atomic::AtomicU64::new(0);
    for kill in 0..kills {
        let store = retried(async || ClickHouseStore::open(&server.options).await).await;
        let positions = retried(async || store.resume_positions().await).await;
        let from = positions.first().map_or(0, |position| position.chunk);
        let acknowledged = folded.load(std::sync::atomic::Ordering::SeqCst);
        assert!(from >= acknowledged, "kill {kill}: {acknowledged} was acknowledged, the store says {from}");
        let maintain = async {
            loop {
                // It fails while the server is away; everything stays as it was.
                let _ = store.maintain(START_US + 300 * DAY_US).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let rest = Duration::from_millis(random.random_range(300..1500));
        let wait = async {
            tokio::time::sleep(rest).await;
            // However slow the machine is, each kill finds something that was acknowledged since the one before.
            while folded.load(std::sync::atomic::Ordering::SeqCst) < acknowledged + CHUNKS_BETWEEN_KILLS * 100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = fold(&store, from, &folded) => unreachable!("it never ends"),
            () = maintain => unreachable!("it never ends"),
            () = wait => server.kill(),
        }
    }
    let store = retried(async || ClickHouseStore::open(&server.options).await).await;
    let end = retried(async || store.resume_positions().await).await.first().map_or(0, |position| position.chunk);
    // What was under way when the last kill came is folded again.
    upsert(&store, emission(end, &cells(end), Some(position(end + 100, START_US)))).await;
    let mut expected = std::collections::BTreeMap::new();
    for (flag, time_us, count) in (0..=end).step_by(100).flat_map(cells) {
        *expected.entry((flag, time_us.div_euclid(HOUR_US) * HOUR_US)).or_default() += count;
    }
    println!("{} chunks after {kills} kills", end / 100);
    assert!(end >= u64::from(kills) * CHUNKS_BETWEEN_KILLS * 100, "only {end} records were folded");
    assert_eq!(counts(&store, Period::Hour).await, expected);
}
