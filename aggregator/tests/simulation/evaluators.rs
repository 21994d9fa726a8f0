//! The simulated evaluators: each decides, flushes batches into queues per partition, and appends them in order, under numbers that it never
//! uses twice. It may be told that an append failed that did not, crash, pause, find its queue full, or have a wrong clock.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use flagmint_schemas::batch::{
    Attributes, Batch, BatchHeader, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome,
};
use flagmint_schemas::context_key::ContextKey;
use flagmint_schemas::decision::{Exit, Reason, Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use flagmint_schemas::limits::{HEARTBEAT_INTERVAL_US, PRODUCER_EXPIRY_US};
use rand::Rng;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::log::{Log, PARTITIONS, encoded};
use crate::oracle::{Oracle, Sent, SentCall};

pub const ENVIRONMENTS: u32 = 3;
/// Flags of an environment, with two variations each; the last is without analytics.
pub const FLAGS: u32 = 3;
const CONTEXTS: u32 = 12;

/// Records in which a repetition is recognised.
pub const WINDOW: usize = 16;

/// The hash of a context's user key.
pub fn user_hash(context: u32) -> u64 {
    (u64::from(context) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

pub fn environment_id(environment: u32) -> Uuid {
    Uuid::from_u128(30 + u128::from(environment))
}

/// Flag, variation and whether analytics are on, of an outcome of any environment.
pub fn outcome(number: u32) -> (Uuid, Uuid, bool) {
    let flag = number / 2;
    (Uuid::from_u128(100 + u128::from(flag)), Uuid::from_u128(200 + u128::from(number)), flag + 1 < FLAGS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Heartbeat,
    /// Number of the batch among all that were sent.
    Batch(usize),
    Poison,
}

/// A record on its way.
#[derive(Clone, Debug)]
struct Item {
    header: BatchHeader,
    payload: Bytes,
    content: Content,
    /// Its place in the log, if the log has it but the evaluator was not told.
    unacknowledged: Option<usize>,
}

/// One partition's queue, and what the log knows of its producer.
#[derive(Debug, Default)]
struct Queue {
    next_sequence: u64,
    items: VecDeque<Item>,
    /// Watermark of the last flush.
    watermark_us: i64,
    queued_us: Option<i64>,
    /// What the log expects next; nothing if it does not know the producer.
    next_in_log: Option<u64>,
    appended_us: i64,
}

impl Queue {
    fn is_known(&self, now_us: i64) -> bool {
        self.next_in_log.is_some() && now_us - self.appended_us < PRODUCER_EXPIRY_US
    }
}

#[derive(Debug)]
pub struct Evaluator {
    producer: u128,
    pub skew_us: i64,
    pub paused_until_us: i64,
    /// It only works off what an evaluator that is gone had on its disk.
    pub is_ghost: bool,
    queues: Vec<Queue>,
    /// By environment: the batch under construction.
    buffer: BTreeMap<u32, usize>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    Nothing,
    Refused,
    Fresh,
    Unacknowledged,
    Repeated,
}

impl Evaluator {
    pub fn new(random: &mut StdRng, skew_us: i64) -> Self {
        let queues = (0..PARTITIONS).map(|_| Queue::default()).collect();
        let producer = random.random();
        Self { producer, skew_us, paused_until_us: i64::MIN, is_ghost: false, queues, buffer: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.queues.iter().all(|queue| queue.items.is_empty())
    }

    /// Time has passed: who is silent for too long no longer holds the watermark.
    pub fn note_silence(&self, now_us: i64, oracle: &mut Oracle) {
        for (partition, queue) in (0..).zip(&self.queues).filter(|(_, queue)| !queue.is_known(now_us)) {
            let buffered = self.buffer.iter().filter(|(environment, _)| *environment % PARTITIONS == partition);
            buffered.for_each(|(_, batch)| oracle.batches[*batch].is_covered = false);
            uncover(&queue.items, oracle);
        }
    }

    /// Makes a call, if the log has heard of this evaluator.
    pub fn decide(&mut self, random: &mut StdRng, now_us: i64, oracle: &mut Oracle) {
        let environment = random.random_range(0..ENVIRONMENTS);
        if !self.queues[(environment % PARTITIONS) as usize].is_known(now_us) {
            return;
        }
        let number = *self.buffer.entry(environment).or_insert_with(|| {
            oracle.batches.push(Sent {
                environment,
                calls: vec![],
                is_covered: self.skew_us == 0,
                append_time_us: None,
                is_lost: false,
            });
            oracle.batches.len() - 1
        });
        let decisions = random.random_range(0..4);
        oracle.batches[number].calls.push(SentCall {
            event_time_us: now_us + self.skew_us,
            latency_us: random.random_range(0..5000),
            evaluation_ns: random.random_range(0..9000),
            context: random.random_range(0..CONTEXTS),
            is_counted: random.random_ratio(4, 5),
            outcomes: (0..decisions).map(|_| random.random_range(0..2 * FLAGS)).collect(),
        });
    }

    /// Turns what was decided into batches in the queues; says hello, is alive, or says goodbye otherwise.
    pub fn flush(&mut self, random: &mut StdRng, now_us: i64, is_last: bool, oracle: &mut Oracle) {
        let watermark_us = now_us + self.skew_us;
        let buffer = std::mem::take(&mut self.buffer);
        for partition in 0..PARTITIONS {
            let mine = buffer.iter().filter(|(environment, _)| *environment % PARTITIONS == partition);
            let mut items: Vec<Item> = mine.map(|(_, batch)| self.item(random, *batch, oracle)).collect();
            let queue = &self.queues[partition as usize];
            let is_idle = queue.queued_us.is_none_or(|at| now_us - at >= HEARTBEAT_INTERVAL_US);
            if is_last || (items.is_empty() && is_idle) {
                let header = BatchHeader { closing: is_last, ..self.heartbeat() };
                items.push(Item { header, payload: Bytes::new(), content: Content::Heartbeat, unacknowledged: None });
            }
            self.push(random, partition, items, watermark_us, now_us, oracle);
        }
    }

    fn push(
        &mut self,
        random: &mut StdRng,
        partition: u32,
        items: Vec<Item>,
        watermark_us: i64,
        now_us: i64,
        oracle: &mut Oracle,
    ) {
        let queue = &mut self.queues[partition as usize];
        let Some(last) = items.len().checked_sub(1) else { return };
        queue.queued_us = Some(now_us);
        for (at, mut item) in items.into_iter().enumerate() {
            item.header.sequence = queue.next_sequence;
            queue.next_sequence += 1;
            item.header.low_watermark_us = if at == last { watermark_us } else { queue.watermark_us };
            match item.content {
                // No room: its number is used up, which shows the loss.
                Content::Batch(batch) if random.random_ratio(1, 40) => oracle.batches[batch].is_lost = true,
                _ => queue.items.push_back(item),
            }
        }
        queue.watermark_us = watermark_us;
    }

    fn heartbeat(&self) -> BatchHeader {
        BatchHeader::heartbeat(self.producer)
    }

    fn header_of(&self, environment: u32) -> BatchHeader {
        BatchHeader {
            organization: OrganizationId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::from_u128(2)),
            environment: EnvironmentId(environment_id(environment)),
            ..self.heartbeat()
        }
    }

    fn item(&self, random: &mut StdRng, number: usize, oracle: &Oracle) -> Item {
        let sent = &oracle.batches[number];
        let codec = if random.random() { Codec::Arrow } else { Codec::Protobuf };
        let header = BatchHeader {
            codec,
            decisions: sent.decisions(),
            calls: sent.calls.len() as u32,
            ..self.header_of(sent.environment)
        };
        let payload = batch(sent).encode(codec).into();
        Item { header, payload, content: Content::Batch(number), unacknowledged: None }
    }

    /// Puts a record in the queue of a partition that nobody can read.
    pub fn poison(&mut self, partition: u32) {
        let header = BatchHeader { decisions: 3, calls: 1, ..self.header_of(partition) };
        let queue = &mut self.queues[partition as usize];
        let header = BatchHeader { sequence: queue.next_sequence, low_watermark_us: queue.watermark_us, ..header };
        queue.next_sequence += 1;
        let payload = Bytes::from_static(b"no batch");
        queue.items.push_back(Item { header, payload, content: Content::Poison, unacknowledged: None });
    }

    /// Appends the first record that waits for a partition.
    pub fn append(
        &mut self,
        random: &mut StdRng,
        now_us: i64,
        partition: u32,
        log: &mut Log,
        oracle: &mut Oracle,
    ) -> Appended {
        let queue = &mut self.queues[partition as usize];
        let Some(item) = queue.items.front_mut() else { return Appended::Nothing };
        if random.random_ratio(1, 12) {
            return Appended::Refused;
        }
        let records = log.partitions[partition as usize].records.len();
        let announced = i128::from(item.header.decisions);
        if let Some(place) = item.unacknowledged {
            let is_recognised = records - place <= WINDOW;
            if is_recognised {
                let at = log.append(random, now_us, partition, encoded(&item.header), item.payload.clone());
                oracle.note_record(log, partition, at);
                oracle.log.duplicate_records += 1;
                oracle.log.duplicate_decisions += announced;
                oracle.log.produced += announced;
            }
            // Otherwise it asks the log, as one that retries for so long must.
            queue.items.pop_front();
            return if is_recognised { Appended::Repeated } else { Appended::Nothing };
        }
        let at = log.append(random, now_us, partition, encoded(&item.header), item.payload.clone());
        oracle.note_record(log, partition, at);
        let append_us = log.partitions[partition as usize].records[at].append_time_us;
        oracle.log.produced += announced;
        match item.content {
            Content::Heartbeat => {}
            Content::Batch(batch) => oracle.batches[batch].append_time_us = Some(append_us),
            Content::Poison => oracle.note_poison(log, partition, at, announced),
        }
        item.unacknowledged = Some(at);
        let (sequence, closing) = (item.header.sequence, item.header.closing);
        let expected = queue.next_in_log.filter(|_| append_us - queue.appended_us < PRODUCER_EXPIRY_US);
        oracle.log.gaps += expected.map_or(0, |expected| i128::from(sequence - expected));
        (queue.next_in_log, queue.appended_us) = (Some(sequence + 1).filter(|_| !closing), append_us);
        if random.random_ratio(1, 12) {
            return Appended::Unacknowledged;
        }
        queue.items.pop_front();
        Appended::Fresh
    }

    /// The process is killed: what was in memory is gone; what was on disk, if it spooled, is worked off by the process that comes after.
    pub fn crash(mut self, has_spooled: bool, oracle: &mut Oracle) -> Option<Self> {
        for batch in std::mem::take(&mut self.buffer).into_values() {
            oracle.batches[batch].is_lost = true;
        }
        for queue in &mut self.queues {
            if !has_spooled {
                let lost = queue.items.drain(..).filter(|item| item.unacknowledged.is_none());
                lost.for_each(|item| lose(item.content, oracle));
            }
            uncover(&queue.items, oracle);
        }
        self.is_ghost = true;
        (!self.is_empty()).then_some(self)
    }

    /// The topic was deleted and made again: nobody is known there, and what the old one had is not sent again.
    pub fn note_new_topic(&mut self, oracle: &mut Oracle) {
        for queue in &mut self.queues {
            queue.items.retain(|item| item.unacknowledged.is_none());
            queue.next_in_log = None;
            uncover(&queue.items, oracle);
        }
        for batch in self.buffer.values() {
            oracle.batches[*batch].is_covered = false;
        }
    }
}

fn lose(content: Content, oracle: &mut Oracle) {
    if let Content::Batch(batch) = content {
        oracle.batches[batch].is_lost = true;
    }
}

fn uncover(items: &VecDeque<Item>, oracle: &mut Oracle) {
    for item in items.iter().filter(|item| item.unacknowledged.is_none()) {
        if let Content::Batch(batch) = item.content {
            oracle.batches[batch].is_covered = false;
        }
    }
}

impl Oracle {
    pub fn note_record(&mut self, log: &Log, partition: u32, at: usize) {
        let offset = log.partitions[partition as usize].records[at].offset;
        self.offsets.entry((log.epoch, partition)).or_default().push(offset);
        self.log.records += 1;
    }

    pub fn note_poison(&mut self, log: &Log, partition: u32, at: usize, announced: i128) {
        let offset = log.partitions[partition as usize].records[at].offset;
        self.poison.push((log.epoch, partition, offset));
        self.log.parked_records += 1;
        self.log.parked_decisions += announced;
    }
}

fn batch(sent: &Sent) -> Batch {
    let caller = Caller {
        key: KeyId(Uuid::from_u128(9)),
        transport: Transport::Rest,
        trigger: Trigger::Evaluate,
        source: "SDK".into(),
        sdk_name: "js".into(),
        sdk_version: "2.2.0".into(),
        platform: String::new(),
        wrapper: String::new(),
    };
    let outcomes = (0..2 * FLAGS).map(|number| {
        let (flag, variation, analytics_enabled) = outcome(number);
        Outcome {
            flag: FlagId(flag),
            flag_key: format!("flag-{}", number / 2),
            variation: VariationId(variation),
            reason: Reason::Split,
            error_code: None,
            exit: Some(Exit::RolloutBucket),
            rule: RuleId::NONE,
            rollout: Uuid::nil(),
            value_json: "true".into(),
            analytics_enabled,
        }
    });
    let (mut contexts, mut rows) = (Vec::new(), BTreeMap::new());
    let mut calls = Vec::new();
    for (at, call) in sent.calls.iter().enumerate() {
        let context = *rows.entry(call.context).or_insert_with(|| {
            contexts.push(ObservedContext {
                kind: "user".into(),
                key: ContextKey::of(&format!("context-{}", call.context)),
                user_hash: user_hash(call.context),
                attributes: Attributes::told(r#"{"plan":"pro"}"#, 0),
            });
            contexts.len() as u32 - 1
        });
        calls.push(Call {
            call_id: at as u128,
            event_time_us: call.event_time_us,
            latency_us: call.latency_us,
            evaluation_ns: call.evaluation_ns,
            config_version: 1,
            caller: 0,
            context,
            decisions: call.outcomes.len() as u32,
            api_calls: 1,
            connections: 0,
            track_events: 0,
            error_code: None,
            counted: call.is_counted,
        });
    }
    let decided = sent.calls.iter().flat_map(|call| &call.outcomes);
    let decisions = decided.map(|&outcome| DecisionRow { outcome, bucket: DecisionRow::NO_BUCKET, count: 1 }).collect();
    Batch { callers: vec![caller], outcomes: outcomes.collect(), contexts, calls, decisions }
}
