//! The recorder while the brokers of its log are away: it goes on, spools in order, and replays under the same sequences.
//!
//! Needs `dev/servers/with-kafka` with one broker, which is killed, stopped and started again here.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flagmint_ingest::{
    CallFacts, ContextRedactor, EnvironmentIdentity, EnvironmentRecorder, Health, Recorder, Settings, Stats,
};
use flagmint_log::{DecisionLog, KafkaLog, KafkaOptions};
use flagmint_schemas::batch::{Batch, BatchHeader, DecisionRow, Outcome};
use flagmint_schemas::decision::Reason;
use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, ProjectId, RuleId, VariationId};
use uuid::Uuid;

const PARTITIONS: u32 = 3;
const DECISIONS_PER_CALL: u64 = 10;
const DEADLINE: Duration = Duration::from_secs(120);
/// How far apart a record and its copy may be for readers to recognise it (the fold's window).
const COPY_DISTANCE: usize = 4096;

/// One broker for all tests here: they take turns.
static BROKER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this under dev/servers/with-kafka"))
}

fn broker(file: &str) -> PathBuf {
    PathBuf::from(variable("FLAGMINT_TEST_KAFKA_DIR")).join("1").join(file)
}

fn signal(name: &str) {
    let pid = std::fs::read_to_string(broker("pid")).expect("one broker that runs");
    assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.trim()).status().unwrap().success());
}

fn start_again() {
    assert!(Command::new(broker("start")).status().unwrap().success());
}

fn options() -> KafkaOptions {
    let topic = format!("away-{}", Uuid::new_v4());
    KafkaOptions { partitions: PARTITIONS, ..KafkaOptions::new(variable("FLAGMINT_TEST_KAFKA"), topic) }
}

fn environment(recorder: &Recorder, number: u128) -> EnvironmentRecorder {
    let identity = EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: EnvironmentId(Uuid::from_u128(100 + number)),
    };
    let outcome = Outcome {
        flag: FlagId(Uuid::from_u128(5)),
        flag_key: "checkout".into(),
        variation: VariationId::NONE,
        reason: Reason::Static,
        error_code: None,
        exit: None,
        rule: RuleId::NONE,
        rollout: Uuid::nil(),
        value_json: "true".into(),
        analytics_enabled: true,
    };
    recorder.environment(identity, Arc::new([outcome]), ContextRedactor::new([3; 32], false))
}

/// Records calls of three environments, one a millisecond, until told to stop; returns the decisions recorded.
struct Load {
    is_stopping: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Load {
    fn start(recorder: &Recorder) -> Self {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (recorder, is_stopping) = (recorder.clone(), is_stopping.clone());
            move || {
                let environments: Vec<_> = (0..3).map(|number| environment(&recorder, number)).collect();
                let rows = [(0, DecisionRow::NO_BUCKET); DECISIONS_PER_CALL as usize];
                let mut calls = 0;
                while !is_stopping.load(Ordering::Relaxed) {
                    let call = recorder.begin();
                    let facts = CallFacts { event_time_us: call.received_us(), api_calls: 1, ..CallFacts::default() };
                    environments[calls as usize % 3].record(facts, &rows);
                    calls += 1;
                    drop(call);
                    std::thread::sleep(Duration::from_millis(1));
                }
                calls * DECISIONS_PER_CALL
            }
        });
        Self { is_stopping, thread }
    }

    fn stop(self) -> u64 {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn eventually(what: &str, mut is_met: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_met() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a reader of the log finds who knows copies by producer and sequence.
#[derive(Debug, Default, PartialEq)]
struct Found {
    decisions: u64,
    copies: u64,
    /// Sequences that never came.
    missing: u64,
}

async fn read_back(options: &KafkaOptions) -> Found {
    let log = KafkaLog::open(options.clone()).await.unwrap();
    let mut found = Found::default();
    for partition in 0..PARTITIONS {
        let bounds = log.bounds(partition).await.unwrap();
        let (mut next, mut at) = (bounds.start, 0);
        let mut first_at: HashMap<(u128, u64), usize> = HashMap::new();
        let mut expected: HashMap<u128, u64> = HashMap::new();
        while next < bounds.end {
            for record in log.read(partition, next, 1 << 20).await.unwrap() {
                (next, at) = (record.offset + 1, at + 1);
                let header = BatchHeader::decode(&record.header).unwrap();
                if let Some(first) = first_at.get(&(header.producer, header.sequence)) {
                    assert!(at - first < COPY_DISTANCE, "a copy {} records later", at - first);
                    found.copies += 1;
                    continue;
                }
                first_at.insert((header.producer, header.sequence), at);
                let expected = expected.entry(header.producer).or_default();
                assert!(header.sequence >= *expected, "sequence {} after {}", header.sequence, *expected);
                found.missing += header.sequence - *expected;
                *expected = header.sequence + 1;
                found.decisions += Batch::decode(&header, &record.payload).unwrap().decisions.len() as u64;
            }
        }
    }
    found
}

async fn start(options: &KafkaOptions, spool: &tempfile::TempDir, spool_bytes: u64) -> Recorder {
    let log = Arc::new(KafkaLog::open(options.clone()).await.unwrap());
    let settings = Settings { spool_directory: spool.path().to_owned(), spool_bytes, ..Settings::default() };
    Recorder::start(log, settings).unwrap()
}

fn check_balance(stats: Stats, recorded: u64) {
    assert_eq!(stats.recorded_decisions, recorded);
    assert_eq!(stats.recorded_decisions, stats.appended_decisions + stats.refused_decisions, "{stats:?}");
    assert_eq!(stats.in_flight_decisions, 0);
}

/// Killed for 12 seconds under load (for longer with `AWAY_S`): all is spooled, replayed in order, and counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_costs_nothing() {
    let _turn = BROKER.lock().await;
    let away = std::env::var("AWAY_S").map_or(12, |seconds| seconds.parse().unwrap());
    let (options, spool) = (options(), tempfile::tempdir().unwrap());
    let recorder = start(&options, &spool, 1 << 30).await;
    let load = Load::start(&recorder);
    eventually("appended before", || recorder.stats().appended_decisions > 5_000).await;

    signal("KILL");
    let killed = Instant::now();
    eventually("spooling", || recorder.stats().spool_bytes > 0).await;
    eventually("known to be behind", || matches!(recorder.health(), Health::LogBehind { .. })).await;
    let before = recorder.stats();
    tokio::time::sleep(Duration::from_secs(away).saturating_sub(killed.elapsed())).await;
    let during = recorder.stats();
    assert!(during.recorded_decisions > before.recorded_decisions, "recording went on");
    assert!(during.spool_bytes > before.spool_bytes, "into the spool");
    start_again();
    eventually("replayed", || recorder.stats().spool_bytes == 0 && recorder.health() == Health::Appending).await;
    println!("away {away} s, replayed {} decisions after {:?}", during.in_flight_decisions, killed.elapsed());

    let recorded = load.stop();
    recorder.drain().await.unwrap();
    check_balance(recorder.stats(), recorded);
    assert_eq!(recorder.stats().refused_decisions, 0);
    let found = read_back(&options).await;
    assert_eq!((found.decisions, found.missing), (recorded, 0), "{found:?}");
}

/// A broker that stands still while the spool is small: what finds no room is refused, counted, and seen as gaps in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_is_counted_and_seen() {
    let _turn = BROKER.lock().await;
    let (options, spool) = (options(), tempfile::tempdir().unwrap());
    let recorder = start(&options, &spool, 50_000).await;
    let load = Load::start(&recorder);
    eventually("appended before", || recorder.stats().appended_decisions > 5_000).await;
    signal("STOP");
    eventually("refused", || recorder.stats().refused_decisions > 1_000).await;
    signal("CONT");
    eventually("replayed", || recorder.stats().spool_bytes == 0 && recorder.health() == Health::Appending).await;
    let recorded = load.stop();
    recorder.drain().await.unwrap();
    let stats = recorder.stats();
    check_balance(stats, recorded);
    let by_environment: u64 =
        (0..3).map(|number| recorder.refused_decisions(EnvironmentId(Uuid::from_u128(100 + number)))).sum();
    assert_eq!(by_environment, stats.refused_decisions);
    let found = read_back(&options).await;
    assert_eq!(found.decisions, stats.appended_decisions);
    assert!(found.missing > 0, "readers see that something is missing");
}

/// Ended while the broker is away: the next process appends what the first one left, under the first one's sequences.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_process_replays_what_the_first_left() {
    let _turn = BROKER.lock().await;
    let (options, spool) = (options(), tempfile::tempdir().unwrap());
    let log = Arc::new(KafkaLog::open(options.clone()).await.unwrap());
    let settings = Settings {
        spool_directory: spool.path().to_owned(),
        drain_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let recorder = Recorder::start(log, settings.clone()).unwrap();
    let load = Load::start(&recorder);
    eventually("appended before", || recorder.stats().appended_decisions > 5_000).await;
    signal("STOP");
    eventually("spooling", || recorder.stats().spool_bytes > 0).await;
    let recorded = load.stop();
    recorder.drain().await.expect("all of it fits the spool");
    let left = recorder.stats().in_flight_decisions;
    assert!(left > 0);
    // Dropping the log waits for the broker for two seconds, in vain.
    drop(recorder);
    signal("CONT");
    let next = start(&options, &spool, 1 << 30).await;
    eventually("replayed", || next.stats().replayed_decisions >= left).await;
    next.drain().await.unwrap();
    assert_eq!(next.stats().replayed_decisions, left);
    let found = read_back(&options).await;
    assert_eq!((found.decisions, found.missing), (recorded, 0), "{found:?}");
}
