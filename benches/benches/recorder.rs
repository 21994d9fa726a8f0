//! What recording costs the thread that serves a request, per call of 1, 12 and 50 decisions; bar: 40 ns a decision.
//!
//! The log takes everything and keeps nothing, so that no disk is measured. The flusher works beside as in production.
//! Allocations are counted on the measuring thread after both buffers of its shard have grown to their working size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flagmint_ingest::{CallFacts, ContextRedactor, EnvironmentIdentity, EnvironmentRecorder, Recorder, Settings};
use flagmint_log::{Append, Assignment, DecisionLog, LogError, Record};
use flagmint_schemas::batch::Outcome;
use flagmint_schemas::decision::Reason;
use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, ProjectId, RuleId, VariationId};
use uuid::Uuid;

/// Decisions per call.
const SIZES: [usize; 3] = [1, 12, 50];

/// Outcomes of the environment: 50 flags with four each.
const OUTCOMES: u128 = 200;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Takes everything, keeps nothing.
struct NoLog;

impl DecisionLog for NoLog {
    fn partitions(&self) -> u32 {
        1
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn append(&self, _append: Append) -> Result<u64, LogError> {
        Ok(0)
    }

    async fn read(&self, _partition: u32, _from: u64, _max_bytes: usize) -> Result<Vec<Record>, LogError> {
        Ok(Vec::new())
    }

    async fn wait_beyond(&self, _partition: u32, _after: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn bounds(&self, _partition: u32) -> Result<Range<u64>, LogError> {
        Ok(0..0)
    }

    async fn trim(&self, _before_append_time_us: i64, _folded: &[u64]) -> Result<u64, LogError> {
        Ok(0)
    }

    fn assignment(&self) -> tokio::sync::watch::Receiver<Assignment> {
        Assignment::all(1)
    }

    fn commit(&self, _partition: u32, _chunk_start: u64) {}
}

fn outcome(number: u128) -> Outcome {
    Outcome {
        flag: FlagId(Uuid::from_u128(number / 4)),
        flag_key: format!("flag-{}", number / 4),
        variation: VariationId(Uuid::from_u128(number)),
        reason: Reason::Split,
        error_code: None,
        exit: None,
        rule: RuleId::NONE,
        rollout: Uuid::nil(),
        value_json: "true".into(),
        analytics_enabled: true,
    }
}

fn environment(recorder: &Recorder) -> EnvironmentRecorder {
    let identity = EnvironmentIdentity {
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: EnvironmentId(Uuid::from_u128(3)),
    };
    recorder.environment(identity, (0..OUTCOMES).map(outcome).collect(), ContextRedactor::new([5; 32], false))
}

fn recording(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings { spool_directory: directory.path().to_owned(), ..Settings::default() };
    let recorder = runtime.block_on(async { Recorder::start(Arc::new(NoLog), settings) }).expect("the recorder starts");
    let environment = environment(&recorder);
    let member = |name: &str, value: &str| (name.to_owned(), serde_json::Value::from(value));
    let context = serde_json::Map::from_iter([
        member("kind", "user"),
        member("key", "5f0c8a52-1c5e-4b7a-9d8e-0a1b2c3d4e5f"),
        member("country", "DE"),
        member("plan", "pro"),
        member("email", "someone@example.com"),
        member("version", "2.1.0"),
    ]);
    let known = environment.observe(&context);
    let mut group = criterion.benchmark_group("recorder");
    for size in SIZES {
        let rows: Vec<(u32, u8)> = (0..size).map(|row| (row as u32 * 4, row as u8)).collect();
        let call = || {
            let facts = CallFacts { context: Some(&known), api_calls: 1, ..CallFacts::default() };
            black_box(environment.record(black_box(facts), black_box(&rows)))
        };
        let in_flight = || {
            let in_flight = recorder.begin();
            let event_time_us = in_flight.received_us();
            let context = Some(black_box(&known));
            environment.record(CallFacts { context, event_time_us, ..CallFacts::default() }, black_box(&rows))
        };
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("record/{size}"), |bencher| bencher.iter_custom(|calls| paced(calls, size, call)));
        let name = format!("begin_record/{size}");
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| paced(calls, size, in_flight)));
        let before = ALLOCATIONS.get();
        paced(20_000, size, call);
        println!("recorder/record/{size}: {} allocations in 20000 calls", ALLOCATIONS.get() - before);
        let before = ALLOCATIONS.get();
        paced(20_000, size, in_flight);
        println!("recorder/begin_record/{size}: {} allocations in 20000 calls", ALLOCATIONS.get() - before);
    }
    group.finish();
    let stats = recorder.stats();
    assert_eq!(stats.refused_decisions, 0, "the flusher kept up");
    runtime.block_on(recorder.drain()).expect("nothing is lost");
}

/// Times `calls` calls in bursts with pauses between that are not timed, at a rate that the flusher keeps up with when
/// it shares the machine: 8192 decisions in 10 ms.
fn paced(calls: u64, size: usize, mut call: impl FnMut() -> bool) -> std::time::Duration {
    let burst = (8192 / size as u64).max(1);
    let mut spent = std::time::Duration::ZERO;
    let mut left = calls;
    while left > 0 {
        let now = left.min(burst);
        let started = Instant::now();
        for _ in 0..now {
            assert!(call(), "a call was refused");
        }
        spent += started.elapsed();
        left -= now;
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    spent
}

criterion_group!(benches, recording);
criterion_main!(benches);
