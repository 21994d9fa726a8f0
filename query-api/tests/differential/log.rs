//! A seeded log: 2 organizations, 10 projects, 50 environments, 2,000 flags, four partitions, some two and a half days.

use std::collections::VecDeque;

use bytes::Bytes;
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

pub const PARTITIONS: u32 = 4;
pub const PROJECTS: u64 = 10;
pub const FLAGS_PER_PROJECT: u64 = 200;
pub const ENVIRONMENTS: u64 = 50;

/// 2026-02-27T10:00:00Z: the log crosses the end of a month.
const START_US: i64 = 1_772_186_400_000_000;
const LENGTH_US: i64 = 60 * 3_600_000_000;
/// Decisions per batch, on average.
const PER_BATCH: u64 = 400;

pub const fn organization(project: u64) -> Uuid {
    Uuid::from_u128(0xA0 + (project % 2) as u128)
}

pub const fn project(number: u64) -> Uuid {
    Uuid::from_u128(0x1_0000 + number as u128)
}

pub const fn environment(number: u64) -> Uuid {
    Uuid::from_u128(0x2_0000 + number as u128)
}

pub const fn flag(number: u64) -> Uuid {
    Uuid::from_u128(0x3_0000 + number as u128)
}

const fn variation(flag: u64, which: u64) -> Uuid {
    Uuid::from_u128(0x4_0000 + 2 * flag as u128 + which as u128)
}

struct Producer {
    name: u128,
    /// By partition.
    sequences: [u64; PARTITIONS as usize],
    lag_us: i64,
}

impl Producer {
    fn new(random: &mut StdRng) -> Self {
        Self { name: random.random(), sequences: [0; PARTITIONS as usize], lag_us: 100_000 }
    }
}

/// Records of all partitions in the order of their append.
pub struct Log {
    random: StdRng,
    batches: u64,
    made: u64,
    now_us: i64,
    step_us: i64,
    offsets: [u64; PARTITIONS as usize],
    producers: Vec<Producer>,
    /// The last records of each partition, to be repeated.
    latest: Vec<VecDeque<(Bytes, Bytes)>>,
    heartbeat: u64,
}

impl Log {
    pub fn new(seed: u64, decisions: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let batches = decisions.div_ceil(PER_BATCH);
        let producers = (0..3).map(|_| Producer::new(&mut random)).collect();
        Self {
            random,
            batches,
            made: 0,
            now_us: START_US,
            step_us: LENGTH_US / batches as i64,
            offsets: [0; PARTITIONS as usize],
            producers,
            latest: vec![VecDeque::new(); PARTITIONS as usize],
            heartbeat: 0,
        }
    }

    /// The time of the last append, microseconds.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    fn record(&mut self, partition: u32, header: Bytes, payload: Bytes) -> Record {
        let offset = &mut self.offsets[partition as usize];
        let record = Record { partition, offset: *offset, append_time_us: self.now_us, header, payload };
        *offset += 1;
        let latest = &mut self.latest[partition as usize];
        latest.push_back((record.header.clone(), record.payload.clone()));
        if latest.len() > 60 {
            latest.pop_front();
        }
        record
    }

    /// A record that only says how far its producer is.
    fn beat(&mut self, partition: u32) -> Record {
        let which = self.random.random_range(0..self.producers.len());
        let mut header = self.header(which, partition);
        (header.organization, header.project) = (OrganizationId::NONE, ProjectId::NONE);
        (header.environment, header.codec) = (EnvironmentId::NONE, Codec::Protobuf);
        self.record(partition, header.encode().to_vec().into(), Bytes::new())
    }

    fn header(&mut self, which: usize, partition: u32) -> BatchHeader {
        let producer = &mut self.producers[which];
        let sequence = &mut producer.sequences[partition as usize];
        let header = BatchHeader {
            codec: Codec::Arrow,
            schema: BatchHeader::SCHEMA,
            producer: producer.name,
            sequence: *sequence,
            organization: OrganizationId::NONE,
            project: ProjectId::NONE,
            environment: EnvironmentId::NONE,
            decisions: 0,
            calls: 0,
            event_time_min_us: self.now_us,
            event_time_max_us: self.now_us,
            low_watermark_us: self.now_us - producer.lag_us,
            closing: false,
            pseudonym_key: 1,
        };
        *sequence += 1;
        header
    }

    fn poison(&mut self, which: usize, partition: u32) -> Record {
        let mut header = self.header(which, partition);
        header.decisions = 3;
        let environment = self.random.random_range(0..ENVIRONMENTS);
        name(&mut header, environment);
        let header = if self.random.random_bool(0.3) {
            Bytes::from_static(b"no header")
        } else {
            header.encode().to_vec().into()
        };
        self.record(partition, header, Bytes::from_static(b"no batch"))
    }

    fn batch(&mut self, which: usize, environment: u64) -> Record {
        let partition = (environment % u64::from(PARTITIONS)) as u32;
        let batch = batch(&mut self.random, environment, self.now_us);
        let mut header = self.header(which, partition);
        name(&mut header, environment);
        header.codec = if batch.decisions.len() < 50 { Codec::Protobuf } else { Codec::Arrow };
        (header.calls, header.decisions) = (batch.calls.len() as u32, batch.decisions.len() as u32);
        if self.random.random_ratio(1, 400) {
            // It says goodbye in this partition and is followed by another.
            header.closing = true;
            self.producers[which] = Producer::new(&mut self.random);
        }
        let payload = batch.encode(header.codec);
        self.record(partition, header.encode().to_vec().into(), payload.into())
    }
}

impl Iterator for Log {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        // Each partition hears of the time now and then, or no hour would close.
        if self.heartbeat < u64::from(PARTITIONS) && self.made.is_multiple_of(20) {
            self.heartbeat += 1;
            return Some(self.beat(self.heartbeat as u32 - 1));
        }
        if self.made == self.batches {
            return None;
        }
        self.made += 1;
        self.heartbeat = 0;
        self.now_us += self.random.random_range(0..2 * self.step_us);
        let which = self.random.random_range(0..self.producers.len());
        let partition = self.random.random_range(0..PARTITIONS);
        let repeated = self.latest[partition as usize].len();
        match self.random.random_range(0..200) {
            0..6 if repeated > 0 => {
                let at = self.random.random_range(0..repeated);
                let (header, payload) = self.latest[partition as usize][at].clone();
                Some(self.record(partition, header, payload))
            }
            6 => Some(self.poison(which, partition)),
            7 => {
                // A record that never came.
                self.producers[which].sequences[partition as usize] += 1;
                Some(self.beat(partition))
            }
            8 => {
                self.producers[which].lag_us = [100_000, 5_000_000][self.random.random_range(0..2)];
                Some(self.beat(partition))
            }
            _ => {
                // A few environments have most of the traffic.
                let environment =
                    self.random.random_range(0..ENVIRONMENTS).min(self.random.random_range(0..ENVIRONMENTS));
                Some(self.batch(which, environment))
            }
        }
    }
}

fn name(header: &mut BatchHeader, number: u64) {
    let of = number % PROJECTS;
    header.organization = OrganizationId(organization(of));
    header.project = ProjectId(project(of));
    header.environment = EnvironmentId(environment(number));
}

fn pick(random: &mut StdRng, texts: &[&str]) -> String {
    texts[random.random_range(0..texts.len())].to_owned()
}

fn caller(random: &mut StdRng) -> Caller {
    let triggers = [Trigger::Evaluate, Trigger::Evaluate, Trigger::Connect, Trigger::Report, Trigger::Context];
    Caller {
        key: KeyId(Uuid::from_u128(random.random_range(1..4))),
        transport: Transport::Rest,
        trigger: triggers[random.random_range(0..triggers.len())],
        source: pick(random, &["SDK", "API", ""]),
        sdk_name: pick(random, &["js", "go"]),
        sdk_version: pick(random, &["1.0.0", "2.2.0"]),
        platform: pick(random, &["browser", ""]),
        wrapper: String::new(),
    }
}

fn outcome(random: &mut StdRng, project: u64) -> Outcome {
    let range = 0..FLAGS_PER_PROJECT;
    // Some flags are asked for much more often.
    let flag_number = random.random_range(range.clone()).min(random.random_range(range)) * PROJECTS + project;
    let is_error = random.random_ratio(1, 12);
    let reasons = [Reason::Split, Reason::TargetingMatch, Reason::Default];
    let which = random.random_range(0..3);
    Outcome {
        flag: FlagId(flag(flag_number)),
        flag_key: format!("flag-{flag_number}"),
        variation: if which == 2 { VariationId::NONE } else { VariationId(variation(flag_number, which)) },
        reason: if is_error { Reason::Error } else { reasons[random.random_range(0..3)] },
        error_code: is_error.then_some(ErrorCode::General),
        exit: Some(Exit::RolloutVariant),
        rule: RuleId(Uuid::from_u128(random.random_range(0..2))),
        rollout: Uuid::nil(),
        value_json: "true".into(),
        analytics_enabled: !flag_number.is_multiple_of(9),
    }
}

fn context(random: &mut StdRng) -> ObservedContext {
    let number: u64 = random.random_range(0..500);
    ObservedContext {
        kind: pick(random, &["user", "user", "organization", ""]).into(),
        key: if number == 0 { ContextKey::None } else { ContextKey::of(&format!("Böhm-{number}")) },
        user_hash: if number.is_multiple_of(7) { 0 } else { number.wrapping_mul(0x9E37_79B9_7F4A_7C15) },
        attributes: Attributes::told(
            pick(random, &["", "{}", r#"{"plan":"pro"}"#, r#"{"plan":"free"}"#]),
            random.random_range(0..2),
        ),
    }
}

/// Calls of one environment; some of their times are far off.
fn batch(random: &mut StdRng, environment: u64, now_us: i64) -> Batch {
    let mut batch = Batch {
        callers: (0..random.random_range(1..3)).map(|_| caller(random)).collect(),
        outcomes: (0..random.random_range(5..30)).map(|_| outcome(random, environment % PROJECTS)).collect(),
        contexts: (0..random.random_range(1..12)).map(|_| context(random)).collect(),
        calls: Vec::new(),
        decisions: Vec::new(),
    };
    let calls = random.random_range(1..2 * PER_BATCH / 10);
    for _ in 0..calls {
        let decisions: u32 = random.random_range(0..21);
        let caller = random.random_range(0..batch.callers.len());
        let is_report = batch.callers[caller].trigger == Trigger::Report;
        let context = random.random_range(0..=batch.contexts.len());
        // Unbelievably old, unbelievably early, late by hours and by a minute.
        let longest_us = 1 << random.random_range(6..20);
        let far = [-90_000_000_000, 400_000_000, -40_000_000_000, -3_600_000_000, -61_000_000];
        let shift = if random.random_ratio(1, 300) { far[random.random_range(0..far.len())] } else { 0 };
        batch.calls.push(Call {
            call_id: random.random(),
            event_time_us: now_us - random.random_range(0..100_000) + shift,
            latency_us: random.random_range(20..longest_us),
            evaluation_ns: random.random_range(0..100_000),
            config_version: 1,
            caller: caller as u32,
            context: if context == batch.contexts.len() { Call::NO_CONTEXT } else { context as u32 },
            decisions,
            api_calls: random.random_range(0..2),
            connections: random.random_range(0..2),
            track_events: random.random_range(0..3),
            error_code: (decisions == 0 && random.random()).then_some(ErrorCode::ParseError),
            counted: random.random_ratio(9, 10),
        });
        for _ in 0..decisions {
            let count = if is_report { random.random_range(1..9) } else { 1 };
            let outcome = random.random_range(0..batch.outcomes.len()) as u32;
            batch.decisions.push(DecisionRow { outcome, bucket: DecisionRow::NO_BUCKET, count });
        }
    }
    batch
}
