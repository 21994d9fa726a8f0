//! Codecs: round trips, golden bytes, and damage.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 3 => "[a-zä🐦\\x00]{0,12}", 1 => "p1_[0-9a-f]{32}", 1 => "(p1|ä)_[0-9a-f]{31,32}"]
}

/// A context of which only the key is known.
fn keyed(key: &str) -> ObservedContext {
    ObservedContext { kind: "user".into(), key: ContextKey::of(key), user_hash: 0, attributes: None }
}

/// Texts as columns have them: any, or all of a kind.
fn texts() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        vec(text(), 0..40),
        vec("p1_[0-9a-f]{32}", 0..40),
        vec("[0-9a-f]{32}", 0..5),
        (text(), 0_usize..3000).prop_map(|(text, rows)| vec![text; rows]),
    ]
}

fn id() -> impl Strategy<Value = Uuid> {
    prop_oneof![1 => Just(Uuid::nil()), 9 => any::<u128>().prop_map(Uuid::from_u128)]
}

fn member<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn caller() -> impl Strategy<Value = Caller> {
    (id(), member(Transport::ALL), member(Trigger::ALL), [text(), text(), text(), text(), text()]).prop_map(
        |(key, transport, trigger, [source, sdk_name, sdk_version, platform, wrapper])| Caller {
            key: KeyId(key),
            transport,
            trigger,
            source,
            sdk_name,
            sdk_version,
            platform,
            wrapper,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let ids = [id(), id(), id(), id()];
    let codes =
        (member(Reason::ALL), proptest::option::of(member(ErrorCode::ALL)), proptest::option::of(member(Exit::ALL)));
    (ids, codes, text(), text(), any::<bool>()).prop_map(
        |([flag, variation, rule, rollout], (reason, error_code, exit), flag_key, value_json, analytics_enabled)| {
            Outcome {
                flag: FlagId(flag),
                flag_key,
                variation: VariationId(variation),
                reason,
                error_code,
                exit,
                rule: RuleId(rule),
                rollout,
                value_json,
                analytics_enabled,
            }
        },
    )
}

fn context() -> impl Strategy<Value = ObservedContext> {
    (text(), text(), any::<u64>(), text(), any::<u32>()).prop_map(
        |(kind, key, user_hash, attributes_json, attributes_omitted)| ObservedContext {
            kind: kind.into(),
            key: ContextKey::of(&key),
            user_hash,
            attributes: Attributes::told(attributes_json, attributes_omitted),
        },
    )
}

/// A call with its decisions; the indexes are still to be brought into range.
fn call() -> impl Strategy<Value = (Call, Vec<DecisionRow>)> {
    let bucket = prop_oneof![Just(DecisionRow::NO_BUCKET), 0_u8..100];
    let decision = (any::<u32>(), bucket, any::<u32>()).prop_map(|(outcome, bucket, count)| DecisionRow {
        outcome,
        bucket,
        count,
    });
    let numbers = (any::<u128>(), any::<i64>(), any::<u64>(), any::<[u32; 7]>());
    let marks = (proptest::option::of(member(ErrorCode::ALL)), any::<bool>(), any::<bool>());
    (numbers, marks, vec(decision, 0..6)).prop_map(|(numbers, (error_code, counted, has_context), decisions)| {
        let (call_id, event_time_us, config_version, small) = numbers;
        let [latency_us, evaluation_ns, caller, context, api_calls, connections, track_events] = small;
        let call = Call {
            call_id,
            event_time_us,
            latency_us,
            evaluation_ns,
            config_version,
            caller,
            context: if has_context { context } else { Call::NO_CONTEXT },
            decisions: decisions.len() as u32,
            api_calls,
            connections,
            track_events,
            error_code,
            counted,
        };
        (call, decisions)
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    (vec(caller(), 1..4), vec(outcome(), 1..5), vec(context(), 1..5), vec(call(), 0..12)).prop_map(
        |(callers, outcomes, contexts, rows)| {
            let mut batch = Batch { callers, outcomes, contexts, ..Batch::default() };
            for (mut call, decisions) in rows {
                call.caller %= batch.callers.len() as u32;
                if call.context != Call::NO_CONTEXT {
                    call.context %= batch.contexts.len() as u32;
                }
                batch.calls.push(call);
                let outcomes = batch.outcomes.len() as u32;
                batch
                    .decisions
                    .extend(decisions.iter().map(|row| DecisionRow { outcome: row.outcome % outcomes, ..*row }));
            }
            batch
        },
    )
}

fn header(batch: &Batch, codec: Codec) -> BatchHeader {
    BatchHeader {
        codec,
        schema: BatchHeader::SCHEMA,
        producer: 1,
        sequence: 2,
        organization: crate::ids::OrganizationId(Uuid::from_u128(3)),
        project: crate::ids::ProjectId(Uuid::from_u128(4)),
        environment: crate::ids::EnvironmentId(Uuid::from_u128(5)),
        decisions: batch.decisions.len() as u32,
        calls: batch.calls.len() as u32,
        event_time_min_us: batch.calls.iter().map(|call| call.event_time_us).min().unwrap_or_default(),
        event_time_max_us: batch.calls.iter().map(|call| call.event_time_us).max().unwrap_or_default(),
        low_watermark_us: 0,
        closing: false,
        pseudonym_key: 1,
    }
}

/// Decodes in every way there is, from aligned and unaligned bytes; all must agree.
fn decode(header: &BatchHeader, payload: &[u8]) -> Result<Batch, CodecError> {
    let rows = Batch::decode(header, payload);
    for shift in [0, 1] {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(payload);
        let view = BatchView::decode(header, &bytes::Bytes::from(shifted).slice(shift..));
        assert_eq!(view.map(|view| view.to_batch()), rows, "shifted by {shift}");
    }
    rows
}

const CODECS: [Codec; 4] = [Codec::Arrow, Codec::Protobuf, Codec::Packed, Codec::Short];

proptest! {
    #[test]
    fn round_trips(batch in batch()) {
        for codec in CODECS {
            prop_assert_eq!(decode(&header(&batch, codec), &batch.encode(codec)), Ok(batch.clone()));
        }
    }

    #[test]
    fn columns_of_texts_round_trip(keys in texts()) {
        let contexts = keys.iter().map(|key| keyed(key)).collect();
        let batch = Batch { contexts, ..Batch::default() };
        for codec in [Codec::Packed, Codec::Short] {
            let payload = batch.encode(codec);
            // A dictionary whose entries are all alike is none: it is refused when there are more of them than bytes.
            if payload.len() >= batch.contexts.len() {
                prop_assert_eq!(decode(&header(&batch, codec), &payload), Ok(batch.clone()));
            }
        }
    }

    #[test]
    fn hashes_that_follow_from_keys_take_one_byte(
        keys in vec(prop_oneof!["p1_[0-9a-f]{32}", Just(String::new())], 1..40),
        other in proptest::option::of((any::<prop::sample::Index>(), 1_u64..)),
    ) {
        let with = |hash: fn(&ContextKey) -> u64| {
            let context = |key: &String| ObservedContext { user_hash: hash(&ContextKey::of(key)), ..keyed(key) };
            Batch { contexts: keys.iter().map(context).collect(), ..Batch::default() }
        };
        let (mut batch, without) = (with(|key| key.user_hash().unwrap()), with(|_| 0));
        if let Some((at, hash)) = other {
            batch.contexts[at.index(keys.len())].user_hash = hash;
        }
        let payload = batch.encode(Codec::Short);
        prop_assert_eq!(payload.len() == without.encode(Codec::Short).len(), other.is_none());
        prop_assert_eq!(decode(&header(&batch, Codec::Short), &payload), Ok(batch));
    }

    #[test]
    fn flipped_bytes_never_panic(batch in batch(), flips in vec((any::<prop::sample::Index>(), 1_u8..), 1..8)) {
        for codec in CODECS {
            let mut payload = batch.encode(codec);
            prop_assume!(!payload.is_empty());
            for (at, mask) in &flips {
                let at = at.index(payload.len());
                payload[at] ^= mask;
            }
            // Whatever comes out is consistent: it can be written and read again.
            let header = header(&batch, codec);
            if let Ok(damaged) = decode(&header, &payload) {
                prop_assert_eq!(decode(&header, &damaged.encode(codec)), Ok(damaged));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(payload in vec(any::<u8>(), 0..600), calls in 0_u32..3, decisions in 0_u32..3) {
        for codec in CODECS {
            let header = BatchHeader { calls, decisions, ..header(&Batch::default(), codec) };
            let _ = decode(&header, &payload);
        }
    }
}

fn golden_calls(call_id: u128) -> Vec<Call> {
    let first = Call {
        call_id,
        event_time_us: 1_790_000_000_123_456,
        latency_us: 250,
        evaluation_ns: 1_500,
        config_version: 42,
        caller: 0,
        context: 0,
        decisions: 2,
        api_calls: 1,
        connections: 3,
        track_events: 4,
        error_code: None,
        counted: true,
    };
    let second = Call {
        context: Call::NO_CONTEXT,
        decisions: 1,
        error_code: Some(ErrorCode::General),
        counted: false,
        event_time_us: -1,
        ..first
    };
    vec![first, second]
}

/// The batch of the golden files: each column differs from its default and from its neighbours.
fn golden() -> Batch {
    let id = |n: u128| Uuid::from_u128(0x0123_4567_89ab_4cde_8f01_2345_6789_ab00 + n);
    let caller = Caller {
        key: KeyId(id(1)),
        transport: Transport::Websocket,
        trigger: Trigger::Context,
        source: "SDK".into(),
        sdk_name: "flagmint-js".into(),
        sdk_version: "2.1.0".into(),
        platform: "browser".into(),
        wrapper: "react".into(),
    };
    let served = Outcome {
        flag: FlagId(id(2)),
        flag_key: "new-checkout".into(),
        variation: VariationId(id(3)),
        reason: Reason::Split,
        error_code: None,
        exit: Some(Exit::RolloutBucket),
        rule: RuleId(id(4)),
        rollout: id(5),
        value_json: "true".into(),
        analytics_enabled: true,
    };
    let failed = Outcome {
        reason: Reason::Error,
        error_code: Some(ErrorCode::TypeMismatch),
        exit: None,
        rule: RuleId::NONE,
        rollout: Uuid::nil(),
        value_json: "\"ä\"".into(),
        analytics_enabled: false,
        ..served.clone()
    };
    let context = ObservedContext {
        kind: "user".into(),
        key: ContextKey::of("p1_00112233445566778899aabbccddeeff"),
        user_hash: 0xfedc_ba98_7654_3210,
        attributes: Attributes::told(r#"{"plan":"pro"}"#, 6),
    };
    Batch {
        callers: vec![caller],
        outcomes: vec![served, failed],
        contexts: vec![context],
        calls: golden_calls(id(7).as_u128()),
        decisions: vec![
            DecisionRow { outcome: 0, bucket: 99, count: 1 },
            DecisionRow { outcome: 1, bucket: DecisionRow::NO_BUCKET, count: 10_000 },
            DecisionRow { outcome: 1, bucket: 0, count: 2 },
        ],
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Compile with `FLAGMINT_WRITE_FIXTURES=1` to write the golden files anew, only for a new schema version.
#[test]
fn golden_files_are_read_and_written() {
    for (codec, name) in [
        (Codec::Arrow, "batch-v1.arrow"),
        (Codec::Protobuf, "batch-v1.pb"),
        (Codec::Packed, "batch-v1.packed"),
        (Codec::Short, "batch-v1.short"),
    ] {
        let batch = golden();
        if option_env!("FLAGMINT_WRITE_FIXTURES").is_some() {
            std::fs::write(fixture(name), batch.encode(codec)).unwrap();
        }
        let stored = std::fs::read(fixture(name)).unwrap();
        assert_eq!(decode(&header(&batch, codec), &stored), Ok(batch.clone()), "{name}");
        assert!(batch.encode(codec) == stored, "today's bytes differ from {name}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for codec in CODECS {
        let batch = golden();
        let payload = batch.encode(codec);
        for end in 0..payload.len() {
            assert!(decode(&header(&batch, codec), &payload[..end]).is_err(), "{codec:?} cut to {end} bytes");
        }
    }
}

#[test]
fn appended_bytes_are_an_error_in_columns() {
    for codec in [Codec::Arrow, Codec::Packed, Codec::Short] {
        let batch = golden();
        let mut payload = batch.encode(codec);
        payload.extend([0; 8]);
        assert!(decode(&header(&batch, codec), &payload).is_err());
    }
}

#[test]
fn inconsistent_rows_are_errors() {
    type Damage = fn(&mut Batch);
    let cases: [(&str, Damage); 7] = [
        ("caller out of range", |batch| batch.calls[0].caller = 1),
        ("context out of range", |batch| batch.calls[0].context = 1),
        ("outcome out of range", |batch| batch.decisions[2].outcome = 2),
        ("bucket out of range", |batch| batch.decisions[2].bucket = 100),
        ("decisions of the calls do not add up", |batch| batch.calls[0].decisions = 1),
        ("number of calls differs from the header", |batch| batch.calls.truncate(1)),
        ("number of decisions differs from the header", |batch| batch.decisions.truncate(2)),
    ];
    for (rule, damage) in cases {
        for codec in CODECS {
            let mut batch = golden();
            damage(&mut batch);
            let result = decode(&header(&golden(), codec), &batch.encode(codec));
            assert_eq!(result, Err(CodecError::Inconsistent(rule)));
        }
    }
}

#[test]
fn other_versions_and_giants_are_refused() {
    let batch = golden();
    let payload = batch.encode(Codec::Arrow);
    let header = header(&batch, Codec::Arrow);
    assert_eq!(decode(&BatchHeader { schema: 2, ..header }, &payload), Err(CodecError::Schema(2)));
    let giant = vec![0; crate::limits::BATCH_BYTES_MAX + 1];
    assert_eq!(decode(&header, &giant), Err(CodecError::TooLarge(giant.len())));
}

#[test]
fn small_payloads_of_many_empty_rows_are_refused() {
    let payload = [0x2a, 0].repeat(crate::limits::PROTOBUF_ROWS_MAX + 1);
    let result = decode(&header(&Batch::default(), Codec::Protobuf), &payload);
    assert_eq!(result, Err(CodecError::Inconsistent("more rows than a protobuf batch may have")));
}

#[test]
fn small_payloads_of_many_packed_rows_are_refused() {
    let payload = |rows: [u32; 5]| {
        let mut payload: Vec<u8> = rows.iter().flat_map(|rows| rows.to_le_bytes()).collect();
        payload.resize(1000, 0);
        payload
    };
    let check = |rows, expected| {
        let result = decode(&header(&Batch::default(), Codec::Packed), &payload(rows));
        assert_eq!(result, Err(CodecError::Inconsistent(expected)), "{rows:?}");
    };
    let rows_max = crate::limits::PACKED_ROWS_MAX as u32;
    check([0, 0, 0, 0, rows_max + 1], "more rows than a batch may have");
    check([0, 0, 0, u32::MAX, 0], "more rows than a batch may have");
    check([1001, 0, 0, 0, 0], "more entries in a dictionary than bytes");
    check([0, 0, rows_max, 0, 0], "more entries in a dictionary than bytes");
}

#[test]
fn one_text_cannot_stand_for_much_memory() {
    let of = |bytes: usize, rows: usize| Batch {
        contexts: (0..rows).map(|_| keyed(&"x".repeat(bytes))).collect(),
        ..Batch::default()
    };
    let small = of(100, 10).encode(Codec::Short).len();
    assert_eq!(small, of(100, 655).encode(Codec::Short).len(), "one text for all");
    assert!(of(100, 656).encode(Codec::Short).len() > 65_600, "each by itself");
    let mut payload = of(100, 655).encode(Codec::Short);
    payload[8..12].copy_from_slice(&656_u32.to_le_bytes());
    payload.resize(2000, 0);
    let damaged = decode(&header(&Batch::default(), Codec::Short), &payload);
    assert!(
        matches!(&damaged, Err(CodecError::Malformed { reason, .. }) if reason.contains("too many for one text")),
        "{damaged:?}"
    );
}

#[test]
fn heartbeats_are_zero_bytes() {
    assert!(Batch::default().encode(Codec::Protobuf).is_empty());
    assert_eq!(decode(&header(&Batch::default(), Codec::Protobuf), &[]), Ok(Batch::default()));
}

/// An ordinary Arrow reader agrees, given the schema.
#[test]
fn arrow_payloads_are_arrow() {
    let payload = arrow::buffer::Buffer::from(golden().encode(Codec::Arrow));
    let mut decoder = arrow::ipc::reader::StreamDecoder::new();
    let schema = table::CallerColumns::schema();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), schema).unwrap();
    writer.flush().unwrap();
    let mut stream = arrow::buffer::Buffer::from(writer.get_ref().clone());
    assert!(decoder.decode(&mut stream).unwrap().is_none());
    let callers = decoder.decode(&mut payload.clone()).unwrap().expect("the first table");
    assert_eq!(callers, table::CallerColumns::from_rows(&golden().callers).record_batch());
}

/// The documentation names every field with the number, type and label of the code.
#[test]
fn the_proto_file_matches_the_code() {
    let proto = include_str!("../../proto/batch.proto");
    let code = include_str!("protobuf.rs");
    let mut documented = Vec::new();
    let mut message = "";
    for line in proto.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("message ") {
            message = name.trim_end_matches(" {");
        } else if let Some((field, tag)) =
            line.strip_suffix(';').and_then(|line| line.split_once(" = ")).filter(|_| !message.is_empty())
        {
            documented.push(format!("{message} {field} {tag}"));
        }
    }
    let mut implemented = Vec::new();
    let mut attribute: Vec<&str> = Vec::new();
    for line in code.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("struct ") {
            message = name.trim_end_matches("Message {");
        } else if let Some(inner) = line.strip_prefix("#[prost(").and_then(|line| line.strip_suffix(")]")) {
            attribute = inner.split(", ").collect();
        } else if let [kind, labels @ .., tag] = &attribute[..] {
            let (field, rust_type) = line.trim_end_matches(',').split_once(": ").unwrap();
            let kind = if *kind == "message" {
                rust_type
                    .trim_start_matches("Option<")
                    .trim_start_matches("Vec<")
                    .trim_end_matches('>')
                    .trim_end_matches("Message")
            } else {
                kind
            };
            let label = labels.first().map_or(String::new(), |label| format!("{label} "));
            implemented.push(format!(
                "{message} {label}{kind} {field} {}",
                tag.trim_start_matches("tag = ").trim_matches('"')
            ));
            attribute.clear();
        }
    }
    assert_eq!(documented, implemented);
    assert_eq!(documented.len(), 5 + 2 + 8 + 10 + 5 + 13 + 3);
}
