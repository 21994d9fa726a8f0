//! The events as evaluators write them: batches of one environment, contexts as pseudonyms, in the log's own form.

use std::collections::HashMap;

use bytes::Bytes;
use flagmint_ingest::{ContextRedactor, KnownContext};
use flagmint_log::Append;
use flagmint_schemas::batch::{Batch, BatchHeader, Call, Codec, DecisionRow, ObservedContext, Outcome};
use flagmint_schemas::decision::{Exit, Reason};
use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, ProjectId, RuleId, VariationId};
use serde_json::json;
use uuid::Uuid;

use crate::caller;
use crate::events::{ENVIRONMENTS, Event, PARTITIONS, Random};

/// Decisions of a batch; those of one call stay together.
const PER_BATCH: usize = 1000;

/// An environment's batch under construction.
struct Open {
    batch: Batch,
    outcomes: HashMap<(usize, u64), u32>,
    contexts: HashMap<u64, u32>,
    last_call: Option<u64>,
}

impl Open {
    fn new() -> Self {
        let batch = Batch { callers: vec![caller()], ..Batch::default() };
        Self { batch, outcomes: HashMap::new(), contexts: HashMap::new(), last_call: None }
    }

    fn add(&mut self, event: Event, known: &mut Contexts, random: &mut Random) {
        let batch = &mut self.batch;
        if self.last_call.replace(event.call) != Some(event.call) {
            let next = batch.contexts.len() as u32;
            let context = *self.contexts.entry(event.user).or_insert(next);
            if context == next {
                batch.contexts.push(known.of(event));
            }
            batch.calls.push(call(event, context, random));
        }
        batch.calls.last_mut().expect("the call just added").decisions += 1;
        let next = batch.outcomes.len() as u32;
        let outcome = *self.outcomes.entry((event.flag, event.variation)).or_insert(next);
        if outcome == next {
            batch.outcomes.push(self::outcome(event));
        }
        batch.decisions.push(DecisionRow { outcome, bucket: random.next() as u8 % 100, count: 1 });
    }
}

/// Contexts as they are logged, each worked out once and its attributes told now and then, as evaluators do.
struct Contexts {
    redactor: ContextRedactor,
    known: HashMap<(u64, u64), KnownContext>,
}

impl Contexts {
    fn of(&mut self, event: Event) -> ObservedContext {
        let Event { environment, user, time_us, .. } = event;
        let redactor = &self.redactor;
        let observe = || {
            let (country, plan) = (["DE", "US", "FR", "JP"][user as usize % 4], ["free", "pro"][user as usize % 2]);
            let context = json!({"kind": "user", "key": format!("user-{user:08}"), "country": country, "plan": plan});
            redactor.observe(context.as_object().expect("an object")).into()
        };
        self.known.entry((environment, user)).or_insert_with(observe).tell(time_us)
    }
}

fn call(event: Event, context: u32, random: &mut Random) -> Call {
    Call {
        call_id: (0x5a5a_1234_9876_0042 << 64) | u128::from(event.call),
        event_time_us: event.time_us,
        latency_us: event.latency_us,
        evaluation_ns: 2_000 + random.next() as u32 % 7_000,
        config_version: 42,
        caller: 0,
        context,
        decisions: 0,
        api_calls: 1,
        connections: 0,
        track_events: 0,
        error_code: None,
        counted: true,
    }
}

/// An id as random ones look, the same for the same numbers.
fn id(kind: u64, number: u64) -> Uuid {
    let mut random = Random((kind << 32) | number);
    Uuid::from_u64_pair(random.next(), random.next())
}

fn outcome(event: Event) -> Outcome {
    let flag = event.flag as u64 | ((event.environment % 5) << 16);
    Outcome {
        flag: FlagId(id(1, flag)),
        flag_key: format!("feature-flag-{:03}", event.flag),
        variation: VariationId(id(2, (flag << 8) | event.variation)),
        reason: Reason::Split,
        error_code: None,
        exit: Some(Exit::RolloutBucket),
        rule: RuleId::NONE,
        rollout: id(3, flag),
        value_json: format!("\"treatment-{}\"", event.variation),
        analytics_enabled: true,
    }
}

fn append(environment: u64, sequence: u64, batch: &Batch) -> Append {
    let times = || batch.calls.iter().map(|call| call.event_time_us);
    let last_us = times().max().unwrap_or_default();
    let header = BatchHeader {
        codec: Codec::Short,
        schema: BatchHeader::SCHEMA,
        producer: u128::from(environment) + 1,
        sequence,
        organization: OrganizationId(id(4, environment / 8)),
        project: ProjectId(id(5, environment / 4)),
        environment: EnvironmentId(id(6, environment)),
        decisions: batch.decisions.len() as u32,
        calls: batch.calls.len() as u32,
        event_time_min_us: times().min().unwrap_or_default(),
        event_time_max_us: last_us,
        low_watermark_us: last_us,
        closing: false,
        pseudonym_key: 1,
    };
    Append {
        partition: environment as u32 % PARTITIONS,
        header: header.encode().to_vec().into(),
        payload: Bytes::from(batch.encode(Codec::Short)),
    }
}

/// Hands over all events in batches, each when it is full and the rest at the end.
pub fn each(events: impl Iterator<Item = Event>, mut ready: impl FnMut(Append)) {
    let mut random = Random(2);
    let mut contexts = Contexts { redactor: ContextRedactor::new([3; 32], false), known: HashMap::new() };
    let mut open: Vec<Open> = (0..ENVIRONMENTS).map(|_| Open::new()).collect();
    let mut sequences = [0; ENVIRONMENTS as usize];
    let mut close = |environment: u64, batch: Batch| {
        let sequence = &mut sequences[environment as usize];
        ready(append(environment, *sequence, &batch));
        *sequence += 1;
    };
    for event in events {
        let environment = &mut open[event.environment as usize];
        let begins = environment.last_call != Some(event.call);
        if begins && environment.batch.decisions.len() >= PER_BATCH {
            let full = std::mem::replace(environment, Open::new());
            close(event.environment, full.batch);
        }
        open[event.environment as usize].add(event, &mut contexts, &mut random);
    }
    for (environment, rest) in (0..).zip(open).filter(|(_, rest)| !rest.batch.decisions.is_empty()) {
        close(environment, rest.batch);
    }
}
