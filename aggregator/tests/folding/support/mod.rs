//! A random log of one partition with everything that can go wrong in it, and a naive store to merge emissions.

pub mod merged;

use std::collections::HashSet;

use bytes::Bytes;
use flagmint_aggregator::fold::FoldLimits;
use flagmint_log::Record;
use flagmint_schemas::batch::{
    Attributes, Batch, BatchHeader, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome,
};
use flagmint_schemas::context_key::ContextKey;
use flagmint_schemas::decision::{ErrorCode, Exit, Reason, Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

pub const EPOCH: u64 = 77;
/// 2026-01-01 minus half an hour, so that the log crosses midnight.
const START_US: i64 = 1_767_225_600_000_000 - 1_800_000_000;

/// Small limits, so that a short log has many chunks.
pub const LIMITS: FoldLimits = FoldLimits {
    chunk_records: 20,
    chunk_cells: 400,
    duplicate_window_records: 16,
    poison_window_records: 16,
    poison_percent: 90,
};

/// What a record is, as the generator knows.
pub enum Entry {
    Batch(BatchHeader, Batch),
    Heartbeat,
    Poison { header: Option<BatchHeader> },
    Copy { of: usize },
}

pub struct World {
    pub records: Vec<Record>,
    pub entries: Vec<Entry>,
    /// Records that producers numbered but that never came.
    pub dropped: u64,
}

/// A seed, printed so that a failure can be repeated with `SEED=…`.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    seed
}

struct Producer {
    name: u128,
    sequence: u64,
    low_watermark_us: i64,
}

impl Producer {
    fn new(name: u128, sequence: u64) -> Self {
        Self { name, sequence, low_watermark_us: START_US }
    }
}

impl World {
    pub fn generate(seed: u64, length: usize) -> Self {
        Self::with_copies(seed, length, 30)
    }

    /// A world whose copies come at most `copy_distance` records after what they repeat.
    pub fn with_copies(seed: u64, length: usize, copy_distance: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = Self { records: Vec::new(), entries: Vec::new(), dropped: 0 };
        let mut producers: Vec<Producer> = (1..=3).map(|name| Producer::new(name, name as u64 * 5)).collect();
        let mut known = HashSet::new();
        let mut now_us = START_US;
        while world.records.len() < length {
            now_us += random.random_range(0..400_000) + if random.random_ratio(1, 60) { 500_000_000 } else { 0 };
            if random.random_ratio(1, 12) && !world.records.is_empty() {
                let of = world.records.len() - random.random_range(1..=world.records.len().min(copy_distance));
                let original = world.records[of].clone();
                world.push(now_us, original.header, original.payload, Entry::Copy { of });
                continue;
            }
            let which = random.random_range(0..producers.len());
            let producer = &mut producers[which];
            if random.random_ratio(1, 15) && known.contains(&(producer.name, now_us / 5_000_000)) {
                world.dropped += 1;
                producer.sequence += 1;
            }
            let closing = random.random_ratio(1, 40);
            // A producer that works off its spool says for a while what it said before.
            if random.random_ratio(2, 3) {
                producer.low_watermark_us = now_us - 100_000;
            }
            let mut header = header(&mut random, producer, now_us, closing);
            producer.sequence += 1;
            known.insert((producer.name, now_us / 5_000_000));
            if closing {
                *producer = Producer::new(random.random(), 0);
            }
            world.push_some(&mut random, &mut header, now_us);
        }
        world
    }

    fn push_some(&mut self, random: &mut StdRng, header: &mut BatchHeader, now_us: i64) {
        match random.random_range(0..20) {
            0 => {
                let text = Bytes::from_static(b"no header");
                self.push(now_us, text, Bytes::from_static(b"x"), Entry::Poison { header: None });
            }
            1 => {
                header.decisions = 3;
                let poison = Entry::Poison { header: Some(*header) };
                self.push(now_us, header.encode().to_vec().into(), Bytes::from_static(b"no batch"), poison);
            }
            2 | 3 => {
                (header.organization, header.project) = (OrganizationId::NONE, ProjectId::NONE);
                header.environment = EnvironmentId::NONE;
                header.codec = Codec::Protobuf;
                self.push(now_us, header.encode().to_vec().into(), Bytes::new(), Entry::Heartbeat);
            }
            _ => {
                let batch = batch(random, now_us);
                header.codec = if random.random() { Codec::Arrow } else { Codec::Protobuf };
                header.calls = batch.calls.len() as u32;
                header.decisions = batch.decisions.len() as u32;
                let payload = batch.encode(header.codec);
                self.push(now_us, header.encode().to_vec().into(), payload.into(), Entry::Batch(*header, batch));
            }
        }
    }

    fn push(&mut self, append_time_us: i64, header: Bytes, payload: Bytes, entry: Entry) {
        let offset = self.records.len() as u64;
        self.records.push(Record { partition: 3, offset, append_time_us, header, payload });
        self.entries.push(entry);
    }

    /// The record that this one is or repeats.
    pub fn original(&self, at: usize) -> usize {
        match self.entries[at] {
            Entry::Copy { of } => self.original(of),
            _ => at,
        }
    }
}

fn header(random: &mut StdRng, producer: &Producer, now_us: i64, closing: bool) -> BatchHeader {
    let environment = random.random_range(1..4);
    BatchHeader {
        codec: Codec::Arrow,
        schema: BatchHeader::SCHEMA,
        producer: producer.name,
        sequence: producer.sequence,
        organization: OrganizationId(Uuid::from_u128(10 + environment % 2)),
        project: ProjectId(Uuid::from_u128(20 + environment)),
        environment: EnvironmentId(Uuid::from_u128(30 + environment)),
        decisions: 0,
        calls: 0,
        event_time_min_us: now_us,
        event_time_max_us: now_us,
        low_watermark_us: producer.low_watermark_us,
        closing,
        pseudonym_key: 1,
    }
}

fn pick(random: &mut StdRng, texts: &[&str]) -> String {
    texts[random.random_range(0..texts.len())].to_owned()
}

fn caller(random: &mut StdRng) -> Caller {
    use Trigger::{AppError, Connect, Evaluate, Goal, Report};
    let triggers = [Evaluate, Connect, Report, Trigger::Context, Goal, AppError];
    Caller {
        key: KeyId(Uuid::from_u128(random.random_range(1..3))),
        transport: Transport::Rest,
        trigger: triggers[random.random_range(0..triggers.len())],
        source: pick(random, &["SDK", "API", ""]),
        sdk_name: pick(random, &["js", "go"]),
        sdk_version: pick(random, &["1.0.0", "2.2.0"]),
        platform: pick(random, &["browser", ""]),
        wrapper: String::new(),
    }
}

fn outcome(random: &mut StdRng) -> Outcome {
    let flag = random.random_range(1..5);
    let is_error = random.random_ratio(1, 5);
    Outcome {
        flag: FlagId(Uuid::from_u128(100 + flag)),
        flag_key: format!("flag-{flag}"),
        variation: VariationId(Uuid::from_u128([0, 200 + flag, 300 + flag][random.random_range(0..3)])),
        reason: if is_error { Reason::Error } else { Reason::Split },
        error_code: is_error.then_some(ErrorCode::General),
        exit: Some(Exit::RolloutVariant),
        rule: RuleId(Uuid::from_u128(random.random_range(0..2))),
        rollout: Uuid::nil(),
        value_json: "true".into(),
        analytics_enabled: random.random_ratio(3, 4),
    }
}

fn context(random: &mut StdRng) -> ObservedContext {
    let number: u64 = random.random_range(0..60);
    ObservedContext {
        kind: pick(random, &["user", "organization", ""]).into(),
        key: if number == 0 { ContextKey::None } else { ContextKey::of(&format!("context-{number}")) },
        user_hash: if number.is_multiple_of(7) { 0 } else { number.wrapping_mul(0x9E37_79B9_7F4A_7C15) },
        attributes: Attributes::told(
            pick(random, &["", "{}", r#"{"plan":"pro"}"#, r#"{"plan":"free"}"#]),
            random.random_range(0..2),
        ),
    }
}

fn batch(random: &mut StdRng, now_us: i64) -> Batch {
    let mut batch = Batch {
        callers: (0..random.random_range(1..4)).map(|_| caller(random)).collect(),
        outcomes: (0..random.random_range(1..8)).map(|_| outcome(random)).collect(),
        contexts: (0..random.random_range(0..6)).map(|_| context(random)).collect(),
        calls: Vec::new(),
        decisions: Vec::new(),
    };
    for _ in 0..random.random_range(0..30) {
        let decisions: u32 = random.random_range(0..5);
        let caller = random.random_range(0..batch.callers.len());
        let is_report = batch.callers[caller].trigger == Trigger::Report;
        let context = random.random_range(0..=batch.contexts.len());
        let far = [-90_000_000_000, 400_000_000, -3_600_000_000, -61_000_000];
        let shift = if random.random_ratio(1, 6) { far[random.random_range(0..far.len())] } else { 0 };
        batch.calls.push(Call {
            call_id: random.random(),
            event_time_us: now_us - random.random_range(0..100_000) + shift,
            latency_us: random.random_range(0..5_000),
            evaluation_ns: random.random_range(0..100_000),
            config_version: 1,
            caller: caller as u32,
            context: if context == batch.contexts.len() { Call::NO_CONTEXT } else { context as u32 },
            decisions,
            api_calls: random.random_range(0..2),
            connections: random.random_range(0..2),
            track_events: random.random_range(0..3),
            error_code: (decisions == 0 && random.random()).then_some(ErrorCode::ParseError),
            counted: random.random_ratio(4, 5),
        });
        for _ in 0..decisions {
            let count = if is_report { random.random_range(0..9) } else { 1 };
            let outcome = random.random_range(0..batch.outcomes.len()) as u32;
            batch.decisions.push(DecisionRow { outcome, bucket: DecisionRow::NO_BUCKET, count });
        }
    }
    batch
}
