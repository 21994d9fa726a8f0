//! Decoding and folding Arrow batches, in decisions per second of one core.
//!
//! `one_environment`: batches of 8192 decisions of 12 flags for 1,000 contexts. `general`: 50 environments in turn, 40 flags
//! each (2,000 in all), batches of 1,000 decisions. Every batch lies in the log as the recorder would write it. `chunk`: from
//! no cells to the end of a chunk, which is what a running aggregator does over and over; `cold`: only its first batches.

use std::collections::HashMap;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flagmint_aggregator::fold::{FoldLimits, PartitionFold, Resume};
use flagmint_aggregator::limits::CHUNK_RECORDS;
use flagmint_benches::events::Random;
use flagmint_log::Record;
use flagmint_schemas::batch::{
    Attributes, Batch, BatchHeader, Call, Caller, Codec, DecisionRow, ObservedContext, Outcome,
};
use flagmint_schemas::context_key::{ContextKey, Pseudonym};
use flagmint_schemas::decision::{Exit, Reason, Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};
use uuid::Uuid;

const START_US: i64 = 1_767_225_600_000_000;
/// Different batches; a chunk has each several times, under new names.
const BATCHES: u64 = 1000;
/// Batches of the cold case.
const COLD: u64 = 400;

fn below(random: &mut Random, end: usize) -> usize {
    random.below(end as u64) as usize
}

#[derive(Clone, Copy)]
struct Shape {
    environments: u64,
    flags: usize,
    contexts: usize,
    decisions: usize,
    per_call: usize,
}

fn outcomes(shape: Shape, environment: u64) -> Vec<Outcome> {
    let outcome = |index: usize| {
        let (flag, variation) = (index / 2, index % 2);
        let id = |n: usize| Uuid::from_u128(u128::from(environment) << 64 | n as u128);
        Outcome {
            flag: FlagId(id(flag + 1)),
            flag_key: format!("flag-{flag}"),
            variation: VariationId(id(1000 + index)),
            reason: Reason::Split,
            error_code: None,
            exit: Some(Exit::RolloutBucket),
            rule: RuleId::NONE,
            rollout: id(5000 + flag),
            value_json: if variation == 0 { "true".into() } else { "false".into() },
            analytics_enabled: true,
        }
    };
    (0..2 * shape.flags).map(outcome).collect()
}

fn context(random: &mut Random, number: usize) -> ObservedContext {
    ObservedContext {
        kind: "user".into(),
        key: ContextKey::Pseudonym(Pseudonym::from_bytes(
            (number as u128 + 1).wrapping_mul(0x1234_5678_9ABC_DEF1_2345_6789).to_be_bytes(),
        )),
        user_hash: random.next() | 1,
        attributes: Attributes::told(r#"{"country":"DE","plan":"pro","age":34,"beta":true}"#, 0),
    }
}

fn batch(random: &mut Random, shape: Shape, environment: u64, now_us: i64) -> Batch {
    let caller = Caller {
        key: KeyId(Uuid::from_u128(9)),
        transport: Transport::Rest,
        trigger: Trigger::Evaluate,
        source: "SDK".into(),
        sdk_name: "js".into(),
        sdk_version: "2.2.0".into(),
        platform: "browser".into(),
        wrapper: String::new(),
    };
    let mut users = Random(environment);
    let people: Vec<ObservedContext> = (0..shape.contexts).map(|number| context(&mut users, number)).collect();
    // As the recorder does, a batch names the contexts of its calls, each once.
    let (mut contexts, mut numbers) = (Vec::new(), HashMap::new());
    let outcomes = outcomes(shape, environment);
    let (mut calls, mut decisions) = (Vec::new(), Vec::new());
    while decisions.len() < shape.decisions {
        let rows = shape.per_call.min(shape.decisions - decisions.len());
        let first = below(random, shape.flags);
        for flag in first..first + rows {
            let outcome = 2 * (flag % shape.flags) + below(random, 2);
            decisions.push(DecisionRow { outcome: outcome as u32, bucket: below(random, 100) as u8, count: 1 });
        }
        let person = below(random, shape.contexts);
        let context = *numbers.entry(person).or_insert_with(|| {
            contexts.push(people[person].clone());
            contexts.len() as u32 - 1
        });
        calls.push(Call {
            call_id: u128::from(random.next()) << 64 | u128::from(random.next()),
            event_time_us: now_us - below(random, 100_000) as i64,
            latency_us: 40 + (below(random, 1 << 16) as u32).leading_zeros() * 30 + below(random, 40) as u32,
            evaluation_ns: 4_000 + below(random, 2_000) as u32,
            config_version: 7,
            caller: 0,
            context,
            decisions: rows as u32,
            api_calls: 1,
            connections: 0,
            track_events: 0,
            error_code: None,
            counted: true,
        });
    }
    Batch { callers: vec![caller], outcomes, contexts, calls, decisions }
}

fn record(random: &mut Random, shape: Shape, offset: u64) -> Record {
    let environment = 1 + offset % shape.environments;
    let append_time_us = START_US + offset as i64 * 2_000;
    let batch = batch(random, shape, environment, append_time_us);
    let header = BatchHeader {
        codec: Codec::Arrow,
        schema: BatchHeader::SCHEMA,
        producer: 1,
        sequence: offset,
        organization: OrganizationId(Uuid::from_u128(1)),
        project: ProjectId(Uuid::from_u128(2)),
        environment: EnvironmentId(Uuid::from_u128(u128::from(environment))),
        decisions: batch.decisions.len() as u32,
        calls: batch.calls.len() as u32,
        event_time_min_us: append_time_us - 100_000,
        event_time_max_us: append_time_us,
        low_watermark_us: append_time_us - 100_000,
        closing: false,
        pseudonym_key: 1,
    };
    let payload = Bytes::from(batch.encode(Codec::Arrow));
    Record { partition: 0, offset, append_time_us, header: header.encode().to_vec().into(), payload }
}

/// `count` records, those beyond the first [`BATCHES`] with payloads and times of earlier ones.
fn stream(records: &[Record], count: u64) -> Vec<Record> {
    let again = |offset: u64| {
        let record = &records[offset as usize % records.len()];
        let header = BatchHeader { sequence: offset, ..BatchHeader::decode(&record.header).expect("made here") };
        Record { offset, header: header.encode().to_vec().into(), ..record.clone() }
    };
    (0..count).map(again).collect()
}

fn fold(criterion: &mut Criterion) {
    let one = Shape { environments: 1, flags: 12, contexts: 1000, decisions: 8192, per_call: 12 };
    let general = Shape { environments: 50, flags: 40, contexts: 200, decisions: 1000, per_call: 12 };
    let shapes = [
        ("one_environment", one),
        ("one_environment_single_decisions", Shape { per_call: 1, ..one }),
        ("general", general),
        ("general_single_decisions", Shape { per_call: 1, ..general }),
    ];
    let mut group = criterion.benchmark_group("decode_and_fold");
    group.sample_size(10);
    for (name, shape) in shapes {
        let mut random = Random(1);
        let records: Vec<Record> = (0..BATCHES).map(|offset| record(&mut random, shape, offset)).collect();
        for (length, count) in [("cold", COLD), ("chunk", CHUNK_RECORDS)] {
            let stream = stream(&records, count);
            group.throughput(Throughput::Elements(count * shape.decisions as u64));
            group.bench_with_input(BenchmarkId::new(name, length), &stream, |bencher, stream| {
                bencher.iter(|| {
                    let resume = Resume { chunk: 0, complete_through_us: i64::MIN };
                    let mut fold = PartitionFold::new(1, 0, resume, FoldLimits::default());
                    for record in stream {
                        black_box(fold.fold(record));
                    }
                    fold.next_offset()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, fold);
criterion_main!(benches);
