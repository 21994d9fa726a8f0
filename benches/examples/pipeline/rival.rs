//! The events as ClickHouse's Kafka engine reads them: texts for everything, as applications log them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder, UInt32Array};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::StreamWriter;
use flagmint_log::{KafkaLog, KafkaOptions};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use flagmint_benches::events::{Event, Events, PARTITIONS};

fn organization(event: &Event) -> String {
    format!("org-{:04}", event.environment / 8)
}

fn project(event: &Event) -> String {
    format!("project-{:02}", event.environment / 4)
}

fn environment(event: &Event) -> String {
    let kind = ["production", "staging", "preview", "development"][event.environment as usize % 4];
    format!("{kind}-{:02}", event.environment)
}

fn flag(event: &Event) -> String {
    format!("feature-flag-{:03}", event.flag)
}

fn variation(event: &Event) -> String {
    format!("treatment-{}", event.variation)
}

fn user(event: &Event) -> String {
    format!("user-{:08}", event.user)
}

/// A JSON object a line.
pub fn json(events: &[Event]) -> Vec<u8> {
    let mut out = String::with_capacity(events.len() * 256);
    for event in events {
        let Event { time_us, latency_us, .. } = event;
        write!(
            out,
            r#"{{"timestamp":{},"organization":"{}","project":"{}","environment":"{}","flag":"{}","variation":"{}","reason":"SPLIT","targeting_key":"{}","latency_us":{latency_us},"sdk":"flagmint-node/3.2.1"}}"#,
            time_us / 1000,
            organization(event),
            project(event),
            environment(event),
            flag(event),
            variation(event),
            user(event),
        )
        .expect("a string grows");
        out.push('\n');
    }
    out.into_bytes()
}

/// An Arrow stream, with dictionaries for what repeats.
pub fn arrow(events: &[Event]) -> Vec<u8> {
    let dictionary = |text: &dyn Fn(&Event) -> String| -> ArrayRef {
        let mut column = StringDictionaryBuilder::<Int32Type>::new();
        events.iter().for_each(|event| column.append_value(text(event)));
        Arc::new(column.finish())
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("timestamp", Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.time_us / 1000)))),
        ("organization", dictionary(&organization)),
        ("project", dictionary(&project)),
        ("environment", dictionary(&environment)),
        ("flag", dictionary(&flag)),
        ("variation", dictionary(&variation)),
        ("reason", dictionary(&|_| "SPLIT".to_owned())),
        ("targeting_key", Arc::new(StringArray::from_iter_values(events.iter().map(user)))),
        ("latency_us", Arc::new(UInt32Array::from_iter_values(events.iter().map(|event| event.latency_us)))),
        ("sdk", dictionary(&|_| "flagmint-node/3.2.1".to_owned())),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a vector grows");
    writer.write(&batch).expect("a vector grows");
    writer.into_inner().expect("a vector grows")
}

/// Appends all events, `per_record` of them a record, spread evenly over the topic's partitions; the records' bytes before Kafka compresses them.
pub async fn fill(
    brokers: &str,
    topic: &str,
    events: Events,
    per_record: usize,
    encode: fn(&[Event]) -> Vec<u8>,
) -> usize {
    let options = KafkaOptions { partitions: PARTITIONS, ..KafkaOptions::new(brokers, topic) };
    drop(KafkaLog::open(options).await.expect("the topic is made"));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "lz4")
        .set("linger.ms", "50")
        .set("batch.size", "262144")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    // So many in a row go to one partition that its batches fill.
    let run = (500 / per_record).max(1);
    let (mut records, mut bytes, mut pending) = (0, 0, Vec::with_capacity(per_record));
    let mut send = |pending: &[Event]| {
        let payload = encode(pending);
        let partition = (records / run % PARTITIONS as usize) as i32;
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&payload).partition(partition);
        while let Err((error, refused)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "produced");
            producer.poll(Duration::from_millis(5));
            record = refused;
        }
        records += 1;
        if records % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
        bytes += payload.len();
    };
    for event in events {
        pending.push(event);
        if pending.len() == per_record {
            send(&pending);
            pending.clear();
        }
    }
    if !pending.is_empty() {
        send(&pending);
    }
    producer.flush(Duration::from_secs(120)).expect("all records are appended");
    bytes
}
