//! The recorder against the real local log: exact counts, order, watermark, back-pressure, drain and restart.

mod privacy;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use flagmint_log::{Append, Assignment, LocalLog, LogError, Options, Record};
use flagmint_schemas::batch::{Batch, DecisionRow};
use flagmint_schemas::decision::{Reason, Transport, Trigger};
use flagmint_schemas::ids::{FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::limits::{BATCH_DECISIONS_MAX, FLUSH_INTERVAL_US};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;

const PARTITIONS: u32 = 2;

/// What a gate does to appends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gate {
    Open,
    /// Appends wait.
    Stalled,
    /// Appends are told to come later.
    Retry,
    /// The log has failed.
    Fatal,
}

/// A local log behind a gate.
struct GatedLog {
    log: LocalLog,
    gate: watch::Sender<Gate>,
}

impl DecisionLog for GatedLog {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn epoch(&self) -> u64 {
        self.log.epoch()
    }

    async fn append(&self, append: Append) -> Result<u64, LogError> {
        let mut gate = self.gate.subscribe();
        let state = *gate.wait_for(|gate| *gate != Gate::Stalled).await.expect("the log keeps the sender");
        match state {
            Gate::Retry => Err(LogError::Retry("the gate says so".into())),
            Gate::Fatal => Err(LogError::Fatal("the gate says so".into())),
            Gate::Open | Gate::Stalled => self.log.append(append).await,
        }
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        self.log.read(partition, from, max_bytes).await
    }

    async fn wait_beyond(&self, partition: u32, after: u64) -> Result<(), LogError> {
        self.log.wait_beyond(partition, after).await
    }

    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        self.log.bounds(partition).await
    }

    async fn trim(&self, before_us: i64, folded: &[u64]) -> Result<u64, LogError> {
        self.log.trim(before_us, folded).await
    }

    fn assignment(&self) -> watch::Receiver<Assignment> {
        self.log.assignment()
    }

    fn commit(&self, partition: u32, chunk_start: u64) {
        self.log.commit(partition, chunk_start);
    }
}

fn open(directory: &Path) -> Arc<GatedLog> {
    let log = LocalLog::open(Options::new(directory.join("log"), PARTITIONS)).unwrap();
    Arc::new(GatedLog { log, gate: watch::channel(Gate::Open).0 })
}

fn settings(directory: &Path) -> Settings {
    Settings { spool_directory: directory.join("spool"), ..Settings::default() }
}

fn identity(number: u128) -> EnvironmentIdentity {
    EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: EnvironmentId(Uuid::from_u128(100 + number)),
    }
}

fn outcomes(count: u128) -> Arc<[Outcome]> {
    let outcome = |number: u128| Outcome {
        flag: FlagId(Uuid::from_u128(number)),
        flag_key: format!("flag-{number}"),
        variation: VariationId::NONE,
        reason: Reason::Static,
        error_code: None,
        exit: None,
        rule: RuleId::NONE,
        rollout: Uuid::nil(),
        value_json: "true".into(),
        analytics_enabled: true,
    };
    (0..count).map(outcome).collect()
}

fn environment(recorder: &Recorder, number: u128) -> EnvironmentRecorder {
    recorder.environment(identity(number), outcomes(20), ContextRedactor::new([3; 32], false))
}

fn caller(source: &str) -> CallerName<'_> {
    CallerName { source, ..CallerName::silent(KeyId(Uuid::from_u128(9)), Transport::Rest, Trigger::Evaluate) }
}

fn observed(environment: &EnvironmentRecorder, context: serde_json::Value) -> KnownContext {
    environment.observe(context.as_object().unwrap())
}

fn facts(event_time_us: i64) -> CallFacts<'static> {
    CallFacts { event_time_us, api_calls: 1, ..CallFacts::default() }
}

/// Records one call of `decisions` decisions.
fn record(recorder: &Recorder, environment: &EnvironmentRecorder, decisions: u32) -> bool {
    let call = recorder.begin();
    let rows: Vec<(u32, u8)> = (0..decisions).map(|number| (number % 20, DecisionRow::NO_BUCKET)).collect();
    environment.record(facts(call.received_us()), &rows)
}

/// All records of the log, per partition, in order.
async fn read_all(log: &GatedLog) -> Vec<(BatchHeader, Batch, Record)> {
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let bounds = log.bounds(partition).await.unwrap();
        let mut next = bounds.start;
        while next < bounds.end {
            for record in log.read(partition, next, 1 << 20).await.unwrap() {
                next = record.offset + 1;
                let header = BatchHeader::decode(&record.header).unwrap();
                all.push((header, Batch::decode(&header, &record.payload).unwrap(), record));
            }
        }
    }
    all
}

fn decisions_of(records: &[(BatchHeader, Batch, Record)]) -> u64 {
    records.iter().map(|(_, batch, _)| batch.decisions.len() as u64).sum()
}

/// Sequences of each producer and partition are 0, 1, 2, …; watermarks never go back and never pass a later call.
fn check_order(records: &[(BatchHeader, Batch, Record)]) {
    let mut seen: HashMap<(u128, u32), (u64, i64)> = HashMap::new();
    for (header, batch, record) in records {
        let (next, watermark_us) = seen.entry((header.producer, record.partition)).or_insert((0, i64::MIN));
        assert_eq!(header.sequence, *next, "sequence in partition {}", record.partition);
        for call in &batch.calls {
            assert!(call.event_time_us >= *watermark_us, "call at {} behind {watermark_us}", call.event_time_us);
        }
        assert!(header.low_watermark_us >= *watermark_us, "the watermark went back");
        (*next, *watermark_us) = (header.sequence + 1, header.low_watermark_us);
    }
}

/// Polls until `is_met`, at most for 20 s.
async fn eventually(what: &str, mut is_met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_met() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn check_balance(stats: Stats) {
    let accounted = stats.appended_decisions + stats.in_flight_decisions + stats.refused_decisions;
    assert_eq!(stats.recorded_decisions, accounted, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_of_many_threads_is_appended_once() {
    const THREADS: u128 = 8;
    const CALLS: u128 = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environments: Vec<_> = (0..3).map(|number| environment(&recorder, number)).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (recorder, environments) = (&recorder, &environments);
            scope.spawn(move || {
                for number in 0..CALLS {
                    let call = recorder.begin();
                    let environment = &environments[(number % 3) as usize];
                    let caller = environment.caller(caller(["SDK", "API"][(number % 2) as usize]));
                    let context = observed(environment, json!({"kind": "user", "key": format!("u{}", number % 50)}));
                    let (call_id, context) = (thread * CALLS + number, Some(&context));
                    let facts = CallFacts { call_id, caller, context, ..facts(call.received_us()) };
                    let rows = (0..number % 7).map(|row| (row as u32, (row * 10) as u8)).collect::<Vec<_>>();
                    assert!(environment.record(facts, &rows));
                    check_balance(recorder.stats());
                }
            });
        }
    });
    recorder.drain().await.unwrap();
    let stats = recorder.stats();
    check_balance(stats);
    let records = read_all(&log).await;
    check_order(&records);
    assert_eq!(decisions_of(&records), stats.recorded_decisions);
    assert_eq!(stats.appended_decisions, stats.recorded_decisions);
    let mut calls: BTreeMap<u128, u32> = BTreeMap::new();
    for (header, batch, _) in &records {
        for call in &batch.calls {
            assert!(calls.insert(call.call_id, call.decisions).is_none(), "call {} twice", call.call_id);
            let number = call.call_id % CALLS;
            assert_eq!(header.environment, identity(number % 3).environment);
            assert_eq!(batch.callers[call.caller as usize].source, ["SDK", "API"][(number % 2) as usize]);
            assert_eq!(u128::from(call.decisions), number % 7);
        }
    }
    assert_eq!(calls.len() as u128, THREADS * CALLS);
    assert_eq!(records.iter().filter(|(header, ..)| header.closing).count() as u32, PARTITIONS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_appended_within_the_flush_interval() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    let mut delays_us = Vec::new();
    for number in 1..=20 {
        assert!(record(&recorder, &environment, 3));
        eventually("appended", || recorder.stats().appended_decisions == 3 * number).await;
    }
    for (_, batch, record) in read_all(&log).await {
        delays_us.extend(batch.calls.iter().map(|call| record.append_time_us - call.event_time_us));
    }
    delays_us.sort_unstable();
    // The median, as a machine that also compiles something now and then stops everything for longer.
    assert!(delays_us[delays_us.len() / 2] < FLUSH_INTERVAL_US, "{delays_us:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_holds_back_the_watermark() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    let slow = recorder.begin();
    for number in 1..=3 {
        assert!(record(&recorder, &environment, 1));
        eventually("appended", || recorder.stats().appended_decisions == number).await;
    }
    for (header, ..) in read_all(&log).await {
        assert!(header.low_watermark_us <= slow.received_us(), "{header:?}");
    }
    assert!(environment.record(facts(slow.received_us()), &[(0, 0)]));
    let received_us = slow.received_us();
    drop(slow);
    recorder.drain().await.unwrap();
    let records = read_all(&log).await;
    check_order(&records);
    assert!(records.iter().any(|(header, ..)| header.low_watermark_us > received_us));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_partitions_get_heartbeats() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    for partition in 0..PARTITIONS {
        tokio::time::timeout(Duration::from_secs(20), log.wait_beyond(partition, 2)).await.unwrap().unwrap();
    }
    recorder.drain().await.unwrap();
    let records = read_all(&log).await;
    check_order(&records);
    assert!(records.iter().all(|(header, batch, _)| header.is_heartbeat() && *batch == Batch::default()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_says_later_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    log.gate.send_replace(Gate::Retry);
    let mut recorded = 0;
    // Until the queue is older than it may be, so that the spool is used as well.
    let spooled = || recorder.stats().spool_bytes > 0;
    eventually("spooled", || {
        assert!(record(&recorder, &environment, 5));
        recorded += 5;
        spooled()
    })
    .await;
    assert!(matches!(recorder.health(), Health::LogBehind { .. }));
    check_balance(recorder.stats());
    log.gate.send_replace(Gate::Open);
    eventually("caught up", || recorder.stats().appended_decisions == recorded).await;
    recorder.drain().await.unwrap();
    let records = read_all(&log).await;
    check_order(&records);
    assert_eq!(decisions_of(&records), recorded);
    assert_eq!(recorder.stats().spool_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let settings = Settings { spool_bytes: 20_000, ..settings(directory.path()) };
    let recorder = Recorder::start(Arc::clone(&log), settings).unwrap();
    let environment = environment(&recorder, 0);
    log.gate.send_replace(Gate::Stalled);
    eventually("refused", || {
        record(&recorder, &environment, 40);
        check_balance(recorder.stats());
        recorder.stats().refused_decisions > 0
    })
    .await;
    assert!(recorder.stats().spool_bytes <= 20_000);
    log.gate.send_replace(Gate::Open);
    recorder.drain().await.unwrap();
    let stats = recorder.stats();
    check_balance(stats);
    assert_eq!(stats.refused_decisions, recorder.refused_decisions(identity(0).environment));
    let records = read_all(&log).await;
    assert_eq!(decisions_of(&records), stats.recorded_decisions - stats.refused_decisions);
    // The numbers of the refused batches are missing: readers of the log see that something was lost.
    let sequences: Vec<u64> =
        records.iter().filter(|(_, batch, _)| !batch.calls.is_empty()).map(|(header, ..)| header.sequence).collect();
    assert!(sequences.is_sorted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_replays_the_spool_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let short = Settings { drain_timeout: Duration::from_millis(50), ..settings(directory.path()) };
    let recorder = Recorder::start(Arc::clone(&log), short).unwrap();
    let before = environment(&recorder, 0);
    log.gate.send_replace(Gate::Stalled);
    let mut recorded = 0;
    eventually("spooled", || {
        assert!(record(&recorder, &before, 5));
        recorded += 5;
        recorder.stats().spool_bytes > 0
    })
    .await;
    recorder.drain().await.unwrap();
    assert!(!record(&recorder, &before, 1), "recorded after the drain");
    assert_eq!(recorder.stats().in_flight_decisions, recorded);

    log.gate.send_replace(Gate::Open);
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let after = environment(&recorder, 0);
    assert!(record(&recorder, &after, 7));
    recorder.drain().await.unwrap();
    assert_eq!(recorder.stats().replayed_decisions, recorded);
    let records = read_all(&log).await;
    check_order(&records);
    assert_eq!(decisions_of(&records), recorded + 7);
    assert_eq!(std::fs::read_dir(directory.path().join("spool")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_log_is_told_and_its_decisions_are_spooled() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    log.gate.send_replace(Gate::Fatal);
    assert!(record(&recorder, &environment, 5));
    eventually("failed", || !recorder.is_healthy()).await;
    recorder.drain().await.unwrap();
    check_balance(recorder.stats());
    log.gate.send_replace(Gate::Open);
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    recorder.drain().await.unwrap();
    assert_eq!(decisions_of(&read_all(&log).await), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_flushes_are_cut_into_batches() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    for _ in 0..2_000 {
        assert!(record(&recorder, &environment, 20));
    }
    recorder.drain().await.unwrap();
    let records = read_all(&log).await;
    check_order(&records);
    assert_eq!(decisions_of(&records), 40_000);
    assert!(records.iter().all(|(_, batch, _)| batch.decisions.len() <= BATCH_DECISIONS_MAX));
}

/// Rows that stand for more than one evaluation keep their counts, and so do those around them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_reports_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    let calls: [&[u32]; 5] = [&[1, 1], &[1, 7, 1], &[], &[1; 60], &[u32::MAX, 1]];
    for counts in calls {
        let row = |(at, &count): (usize, &u32)| DecisionRow { outcome: at as u32 % 20, bucket: at as u8, count };
        let call = recorder.begin();
        assert!(environment.record_rows(facts(call.received_us()), counts.iter().enumerate().map(row)));
    }
    recorder.drain().await.unwrap();
    let records = read_all(&log).await;
    let rows: Vec<DecisionRow> = records.iter().flat_map(|(_, batch, _)| batch.decisions.clone()).collect();
    assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), calls.concat());
    let buckets: Vec<u8> = calls.iter().flat_map(|counts| 0..counts.len() as u8).collect();
    assert_eq!(rows.iter().map(|row| row.bucket).collect::<Vec<_>>(), buckets);
}

/// A caller with endless names is kept without them, and an outcome of nowhere is refused, not a panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_bounded_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let environment = environment(&recorder, 0);
    let ids: std::collections::HashSet<u32> =
        (0..5_000).map(|number| environment.caller(caller(&format!("s{number}"))).number()).collect();
    assert!(ids.len() <= limits::CALLERS_MAX);
    for rows in [&[(1, 0), (2, 0)][..], &[(20, 0), (0, 0)], &[(3, 0)]] {
        assert!(environment.record(facts(wall_clock_us()), rows));
    }
    recorder.drain().await.unwrap();
    check_balance(recorder.stats());
    assert_eq!(recorder.stats().refused_decisions, 2);
    // What stood around it is in the log.
    let flags = |(_, batch, _): &(BatchHeader, Batch, Record)| -> Vec<String> {
        batch.decisions.iter().map(|row| batch.outcomes[row.outcome as usize].flag_key.clone()).collect()
    };
    assert_eq!(read_all(&log).await.iter().flat_map(flags).collect::<Vec<_>>(), ["flag-1", "flag-2", "flag-3"]);
}

/// Bytes of the spool's files.
fn spooled(directory: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(directory.join("spool")).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}
