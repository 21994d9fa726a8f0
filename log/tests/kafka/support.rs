//! Topics of a test's own, and what every test here needs.

use std::time::Duration;

use bytes::Bytes;
use flagmint_log::{Append, DecisionLog, KafkaOptions, LogError, Record};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// Longest a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this under dev/servers/with-kafka"))
}

/// Where the brokers are, without TLS.
pub fn brokers() -> String {
    variable("FLAGMINT_TEST_KAFKA")
}

/// Where the brokers ask for TLS and SASL.
pub fn tls_brokers() -> String {
    variable("FLAGMINT_TEST_KAFKA_TLS")
}

/// The certificate that signed the brokers'.
pub fn ca_file() -> String {
    format!("{}/ca.pem", variable("FLAGMINT_TEST_KAFKA_DIR"))
}

/// A new topic's name.
pub fn new_topic(kind: &str) -> String {
    format!("{kind}-{:016x}", rand::random::<u64>())
}

/// Options with a topic of the test's own.
pub fn options(kind: &str) -> KafkaOptions {
    let topic = new_topic(kind);
    KafkaOptions { partitions: 3, group: format!("{topic}-group"), ..KafkaOptions::new(brokers(), topic) }
}

pub fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap()
}

/// Creates a topic with settings of its own.
pub async fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        topic = topic.set(name, value);
    }
    let created = admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
    created.into_iter().for_each(|result| drop(result.unwrap()));
}

pub async fn delete_topic(name: &str) {
    let deleted = admin().delete_topics(&[name], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().for_each(|result| drop(result.unwrap()));
}

pub fn record(partition: u32, number: u64) -> Append {
    let payload = Bytes::from(format!("record {number}"));
    Append { partition, header: Bytes::copy_from_slice(&number.to_be_bytes()), payload }
}

pub fn number(record: &Record) -> u64 {
    u64::from_be_bytes(record.header[..].try_into().unwrap())
}

/// All records of a partition.
pub async fn read_all(log: &impl DecisionLog, partition: u32) -> Vec<Record> {
    let bounds = log.bounds(partition).await.unwrap();
    let (mut all, mut next) = (Vec::new(), bounds.start);
    while next < bounds.end {
        let records = log.read(partition, next, 1 << 20).await.unwrap();
        next = records.last().map_or(bounds.end, |record| record.offset + 1);
        all.extend(records);
    }
    all
}

/// Fails unless it is the kind of error and its text has all of these words.
pub fn assert_says<T: std::fmt::Debug>(result: Result<T, LogError>, is_kind: fn(&LogError) -> bool, words: &[&str]) {
    let error = result.err().unwrap_or_else(|| panic!("should have failed with {words:?}"));
    assert!(is_kind(&error), "{error:?} is of another kind");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

pub fn is_refused(error: &LogError) -> bool {
    matches!(error, LogError::Refuse(_))
}

pub fn is_retry(error: &LogError) -> bool {
    matches!(error, LogError::Retry(_))
}
