//! What decisions cost in Kafka: bytes on the broker's disk by batch, and how fast one process appends and reads.
//!
//! `dev/servers/with-kafka cargo run --release -p flagmint-benches --example kafka_log`, with one broker. Bytes are those of the segment
//! files, so everything Kafka adds is in them; CPU seconds are this process's own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flagmint_benches::caller;
use flagmint_ingest::{ContextRedactor, KnownContext};
use flagmint_log::{Append, DecisionLog, KafkaLog, KafkaOptions};
use flagmint_schemas::batch::{Batch, BatchHeader, Call, Codec, DecisionRow, Outcome};
use flagmint_schemas::decision::{Exit, Reason};
use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, ProjectId, RuleId, VariationId, part_of};
use flagmint_schemas::limits::{ATTRIBUTES_INTERVAL_US, PROTOBUF_DECISIONS_BELOW};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use uuid::Uuid;

const BATCHES: u64 = 400;
/// Contexts that ask again and again, each as often as the others.
const USERS: u32 = 10_000;
/// Microseconds between two flushes of a recorder.
const FLUSH_US: i64 = 50_000;
/// When the first batch is recorded, microseconds since the Unix epoch.
const START_US: i64 = 1_767_225_600_000_000;
const DAY_US: u64 = 86_400_000_000;
const PARTITIONS: u32 = 12;
const MEASURED: Duration = Duration::from_secs(5);
/// Batches in flight while measuring how fast appending is.
const IN_FLIGHT: usize = 256;

/// An environment's flags, each with two variations and two ways to them.
struct World {
    random: StdRng,
    outcomes: Vec<[Outcome; 4]>,
    known: Vec<KnownContext>,
    /// Between two calls, on average.
    pause_us: i64,
    sequence: u64,
    calls: u128,
    now_us: i64,
}

impl World {
    /// With as many calls that each batch is what one instance flushes of an environment at once.
    fn new(flags: usize, decisions: usize, per_call: usize) -> Self {
        let pause_us = FLUSH_US * per_call as i64 / decisions as i64;
        let mut random = StdRng::seed_from_u64(7);
        let outcomes = (0..flags)
            .map(|number| {
                let (flag, variations, [rule, rollout]) = Self::ids(&mut random);
                [(0, false), (1, false), (0, true), (1, true)].map(|(variation, by_rule)| Outcome {
                    flag: FlagId(flag),
                    flag_key: format!("checkout-redesign-{number}"),
                    variation: VariationId(variations[variation]),
                    reason: if by_rule { Reason::TargetingMatch } else { Reason::Split },
                    error_code: None,
                    exit: Some(if by_rule { Exit::RuleVariation } else { Exit::RolloutVariant }),
                    rule: if by_rule { RuleId(rule) } else { RuleId::NONE },
                    rollout: if by_rule { Uuid::nil() } else { rollout },
                    value_json: if variation == 0 { "false" } else { "true" }.into(),
                    analytics_enabled: true,
                })
            })
            .collect();
        let redactor = ContextRedactor::new([3; 32], false);
        Self {
            random: StdRng::seed_from_u64(8),
            outcomes,
            known: (0..USERS).map(|user| Self::context(&redactor, user)).collect(),
            pause_us,
            sequence: 0,
            calls: 0,
            now_us: START_US,
        }
    }

    /// Ids as the control plane gives them: of a flag made at some moment of the last year, of its two variations made with it, and of a
    /// rule and a rollout made within a week.
    fn ids(random: &mut StdRng) -> (Uuid, [Uuid; 2], [Uuid; 2]) {
        let made_us = START_US as u64 - random.random_range(0..365 * DAY_US);
        let flag = uuid::Builder::from_unix_timestamp_millis(made_us / 1000, &random.random()).into_uuid();
        let variations = [made_us + 900, made_us + 1_400].map(|at_us| part_of(flag, at_us));
        (flag, variations, [0, 1].map(|_| part_of(flag, made_us + random.random_range(0..7 * DAY_US))))
    }

    /// Lets the contexts come for as long as their attributes are told once.
    fn warm_up(&mut self) {
        let start_us = self.now_us;
        while self.now_us < start_us + ATTRIBUTES_INTERVAL_US {
            self.now_us += self.random.random_range(0..=2 * self.pause_us);
            let _ = self.known[self.random.random_range(0..USERS) as usize].tell(self.now_us);
        }
    }

    /// A batch of calls that each ask for `per_call` flags.
    fn batch(&mut self, decisions: usize, per_call: usize) -> Batch {
        let mut batch = Batch { callers: vec![caller()], ..Batch::default() };
        let (mut rows, mut known) = (std::collections::HashMap::new(), std::collections::HashMap::new());
        while batch.decisions.len() < decisions {
            let user = self.random.random_range(0..USERS);
            let context = *known.entry(user).or_insert_with(|| {
                batch.contexts.push(self.known[user as usize].tell(self.now_us));
                batch.contexts.len() as u32 - 1
            });
            let first = self.random.random_range(0..self.outcomes.len());
            let count = per_call.min(decisions - batch.decisions.len());
            self.now_us += self.random.random_range(0..=2 * self.pause_us);
            batch.calls.push(self.call(context, count as u32));
            for at in 0..count {
                let flag = (first + at) % self.outcomes.len();
                let way = usize::from(self.random.random_ratio(1, 2)) + 2 * usize::from(user % 5 == 0);
                let next = rows.len() as u32;
                let outcome = *rows.entry((flag, way)).or_insert(next);
                if outcome == next {
                    batch.outcomes.push(self.outcomes[flag][way].clone());
                }
                batch.decisions.push(DecisionRow { outcome, bucket: self.random.random_range(0..100), count: 1 });
            }
        }
        batch
    }

    fn context(redactor: &ContextRedactor, user: u32) -> KnownContext {
        let plan = ["free", "team", "enterprise"][user as usize % 3];
        let country = ["DE", "US", "FR", "JP"][user as usize % 4];
        let (key, version) = (format!("user-{user}@example.com"), format!("4.{}.1", user % 7));
        let context = json!({"kind": "user", "key": key, "plan": plan, "country": country, "appVersion": version});
        redactor.observe(context.as_object().expect("an object")).into()
    }

    fn call(&mut self, context: u32, decisions: u32) -> Call {
        self.calls += 1;
        Call {
            // As evaluators number them: a random half, and a count.
            call_id: 0x5a5a_1234_9876_0042 << 64 | self.calls,
            event_time_us: self.now_us,
            latency_us: self.random.random_range(80..900),
            evaluation_ns: self.random.random_range(2_000..9_000),
            config_version: 42,
            caller: 0,
            context,
            decisions,
            api_calls: 1,
            connections: 0,
            track_events: 0,
            error_code: None,
            counted: true,
        }
    }

    fn append(&mut self, batch: &Batch, partition: u32) -> Append {
        let codec = if batch.decisions.len() < PROTOBUF_DECISIONS_BELOW { Codec::Protobuf } else { Codec::Short };
        let header = BatchHeader {
            codec,
            schema: BatchHeader::SCHEMA,
            producer: 0x1234_5678_9abc_def0_1234_5678_9abc_def0,
            sequence: self.sequence,
            organization: OrganizationId(Uuid::from_u128(1 << 100)),
            project: ProjectId(Uuid::from_u128(2 << 100)),
            environment: EnvironmentId(Uuid::from_u128(3 << 100)),
            decisions: batch.decisions.len() as u32,
            calls: batch.calls.len() as u32,
            event_time_min_us: self.now_us - 50_000,
            event_time_max_us: self.now_us,
            low_watermark_us: self.now_us - 60_000,
            closing: false,
            pseudonym_key: 1,
        };
        self.sequence += 1;
        Append { partition, header: header.encode().to_vec().into(), payload: Bytes::from(batch.encode(codec)) }
    }
}

async fn open(partitions: u32) -> (KafkaLog, String) {
    let brokers = std::env::var("FLAGMINT_TEST_KAFKA").expect("run this under dev/servers/with-kafka");
    let topic = format!("bench-{}", Uuid::new_v4());
    let options = KafkaOptions { partitions, ..KafkaOptions::new(brokers, topic.clone()) };
    (KafkaLog::open(options).await.expect("a log in Kafka"), topic)
}

/// Bytes of a topic's segment files.
fn stored_bytes(topic: &str) -> u64 {
    let data = Path::new(&std::env::var("FLAGMINT_TEST_KAFKA_DIR").expect("set by with-kafka")).join("1/data");
    let partitions = std::fs::read_dir(data).expect("the broker's data").flatten();
    let own = partitions.filter(|entry| entry.file_name().to_string_lossy().starts_with(topic));
    let files = own.flat_map(|entry| std::fs::read_dir(entry.path()).expect("a partition").flatten());
    let segments = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    segments.map(|file| file.metadata().expect("a segment").len()).sum()
}

/// CPU seconds of this process.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("after the name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Bytes per decision if each batch is sent alone, as it is when flushes are further apart than the producer lingers.
async fn bytes_per_decision(flags: usize, decisions: usize, per_call: usize) -> (f64, f64) {
    let (log, topic) = open(1).await;
    let mut world = World::new(flags, decisions, per_call);
    world.warm_up();
    let mut raw = 0;
    for _ in 0..BATCHES {
        let batch = world.batch(decisions, per_call);
        let append = world.append(&batch, 0);
        raw += append.header.len() + append.payload.len();
        log.append(append).await.expect("appended");
    }
    drop(log);
    let count = BATCHES as f64 * decisions as f64;
    (raw as f64 / count, stored_bytes(&topic) as f64 / count)
}

async fn throughput() {
    let (log, topic) = open(PARTITIONS).await;
    let log = Arc::new(log);
    let mut world = World::new(30, 1000, 20);
    let batches: Vec<Append> = (0..64)
        .map(|number| {
            let batch = world.batch(1000, 20);
            world.append(&batch, number % PARTITIONS)
        })
        .collect();
    let (started, cpu) = (Instant::now(), cpu_s());
    let mut records = 0;
    while started.elapsed() < MEASURED {
        let appends = (0..IN_FLIGHT).map(|at| {
            let batch = &batches[at % batches.len()];
            log.append(Append { partition: (at as u32) % PARTITIONS, ..batch.clone() })
        });
        records += try_join_all(appends).await.expect("appended").len();
    }
    report("append", records, started.elapsed(), cpu_s() - cpu, stored_bytes(&topic));
    let (started, cpu) = (Instant::now(), cpu_s());
    let readers = (0..PARTITIONS).map(|partition| {
        let log = log.clone();
        tokio::spawn(async move {
            let bounds = log.bounds(partition).await.expect("bounds");
            let (mut next, mut count) = (bounds.start, 0);
            while next < bounds.end {
                let records = log.read(partition, next, 4 << 20).await.expect("read");
                count += records.len();
                next = records.last().expect("there are more").offset + 1;
            }
            count
        })
    });
    let read: usize = try_join_all(readers).await.expect("read").into_iter().sum();
    assert_eq!(read, records);
    report("read", read, started.elapsed(), cpu_s() - cpu, stored_bytes(&topic));
}

fn report(what: &str, records: usize, elapsed: Duration, cpu_s: f64, bytes: u64) {
    let seconds = elapsed.as_secs_f64();
    println!(
        "| {what}, batches of 1,000 | {:.0} | {:.1} M | {:.0} MB/s stored | {:.1} |",
        records as f64 / seconds,
        records as f64 * 1000.0 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        cpu_s / records as f64 * 1e6
    );
}

#[tokio::main]
async fn main() {
    println!(
        "| decisions a batch | flags a call | flags | encoded B/decision | stored B/decision |\n|---|---|---|---|---|"
    );
    for (decisions, per_call, flags) in [
        (1000, 12, 12),
        (8192, 12, 12),
        (200, 12, 12),
        (50, 12, 12),
        (24, 12, 12),
        (12, 12, 12),
        (1000, 1, 30),
        (1000, 5, 30),
        (1000, 20, 30),
        (1000, 50, 50),
        (8192, 20, 30),
        (50, 1, 30),
        (50, 5, 30),
        (50, 10, 10),
    ] {
        let (raw, stored) = bytes_per_decision(flags, decisions, per_call).await;
        println!("| {decisions} | {per_call} | {flags} | {raw:.1} | {stored:.1} |");
    }
    println!("\n| | batches/s | decisions/s | bytes | CPU us/batch |\n|---|---|---|---|---|");
    throughput().await;
}
