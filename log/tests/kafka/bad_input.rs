//! What is wrong with an address, a credential, a topic or a record is said clearly, and the rest goes on.

use std::collections::BTreeMap;

use bytes::Bytes;
use flagmint_log::{Append, DecisionLog, KafkaLog, KafkaOptions, LogError, SideTopics};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::support::*;

async fn open(options: KafkaOptions) -> Result<KafkaLog, LogError> {
    KafkaLog::open(options).await
}

#[tokio::test]
async fn nobody_listens_there() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = KafkaOptions::new(format!("127.0.0.1:{port}"), new_topic("absent"));
    let place = format!("127.0.0.1:{port}");
    assert_says(open(options).await, is_retry, &["no Kafka broker answers", &place, "Connection refused"]);
}

#[tokio::test]
async fn the_address_cannot_be_resolved() {
    let options = KafkaOptions::new("no-such-host.invalid:9092", new_topic("absent"));
    assert_says(open(options).await, is_retry, &["no Kafka broker answers at no-such-host.invalid:9092"]);
}

fn secured(properties: &[(&str, &str)]) -> KafkaOptions {
    let mut all = BTreeMap::from([
        ("security.protocol".to_owned(), "SASL_SSL".to_owned()),
        ("sasl.mechanism".to_owned(), "PLAIN".to_owned()),
        ("ssl.ca.location".to_owned(), ca_file()),
        ("sasl.username".to_owned(), "flagmint".to_owned()),
        ("sasl.password".to_owned(), "secret".to_owned()),
    ]);
    all.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    KafkaOptions { brokers: tls_brokers(), properties: all, ..options("secured") }
}

#[tokio::test]
async fn tls_and_sasl_by_properties_passed_through() {
    let log = open(secured(&[])).await.unwrap();
    let offset = log.append(record(1, 7)).await.unwrap();
    let records = log.read(1, offset, 1000).await.unwrap();
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn the_password_is_wrong() {
    let result = open(secured(&[("sasl.password", "guessed")])).await;
    assert_says(result, is_refused, &["do not accept the credentials", "sasl.password"]);
}

#[tokio::test]
async fn the_certificate_is_not_trusted() {
    let mut options = secured(&[]);
    options.properties.remove("ssl.ca.location");
    assert_says(open(options).await, is_refused, &["no TLS connection", "ssl.ca.location"]);
}

#[tokio::test]
async fn a_plain_client_on_a_tls_port() {
    let options = KafkaOptions { brokers: tls_brokers(), ..options("secured") };
    assert_says(open(options).await, is_retry, &["no Kafka broker answers", "security.protocol"]);
}

#[tokio::test]
async fn a_topic_with_too_few_partitions() {
    let options = options("few");
    open(KafkaOptions { partitions: 2, ..options.clone() }).await.unwrap();
    let words = ["it has 2 partitions, at least 3 are wanted", "kafka-topics.sh --alter", &options.topic];
    assert_says(open(options.clone()).await, is_refused, &words);
    let more = open(KafkaOptions { partitions: 1, ..options }).await.unwrap();
    assert_eq!(more.partitions(), 2, "what is there counts");
}

#[tokio::test]
async fn a_topic_with_wrong_settings() {
    let options = options("wrong");
    create_topic(&options.topic, 3, &[("retention.ms", "60000"), ("cleanup.policy", "compact")]).await;
    let words = [
        options.topic.as_str(),
        "cleanup.policy is compact, wanted is delete: kafka-configs.sh --alter",
        "message.timestamp.type is CreateTime, wanted is LogAppendTime",
        "retention.ms is 60000, wanted is at least 43200000",
        "max.message.bytes is 1048588, wanted is at least 8454144",
    ];
    assert_says(open(options.clone()).await, is_refused, &words);
    create_topic(&format!("{}-usage", options.topic), 1, &[("cleanup.policy", "delete")]).await;
    let words = ["-usage", "cleanup.policy is delete, wanted is compact"];
    assert_says(SideTopics::open(options).await, is_refused, &words);
}

#[tokio::test]
async fn a_topic_that_cannot_be_created() {
    let options = KafkaOptions { replicas: Some(9), ..options("replicas") };
    let words = ["cannot be created", "InvalidReplicationFactor", "message.timestamp.type=LogAppendTime"];
    assert_says(open(options).await, is_refused, &words);
}

/// Records that no producer of ours wrote are read as they are, so that the fold can park them; none stops the partition.
#[tokio::test]
async fn foreign_records_are_read_as_they_are() {
    let options = options("foreign");
    let log = open(options.clone()).await.unwrap();
    log.append(record(0, 1)).await.unwrap();
    for compression in ["none", "snappy", "lz4"] {
        let foreign: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("compression.type", compression)
            .set("message.max.bytes", "8454144")
            .create()
            .unwrap();
        let huge = vec![7; 7 << 20];
        for payload in [&b"no batch"[..], b"", &huge] {
            let record = FutureRecord::<[u8], [u8]>::to(&options.topic).partition(0).payload(payload);
            foreign.send(record, DEADLINE).await.unwrap();
        }
        let tombstone = FutureRecord::<[u8], [u8]>::to(&options.topic).partition(0).key(b"key");
        foreign.send(tombstone, DEADLINE).await.unwrap();
    }
    log.append(record(0, 2)).await.unwrap();
    let records = read_all(&log, 0).await;
    assert_eq!(number(records.first().unwrap()), 1);
    assert_eq!(number(records.last().unwrap()), 2);
    let foreign = &records[1..records.len() - 1];
    assert!(foreign.len() >= 12 && foreign.iter().all(|record| record.header.is_empty()));
    let sizes: Vec<usize> = foreign[..4].iter().map(|record| record.payload.len()).collect();
    assert_eq!(sizes, [8, 0, 7 << 20, 0]);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_rest_goes_on() {
    let options = options("large");
    let log = open(options.clone()).await.unwrap();
    let large = Append { partition: 0, header: Bytes::new(), payload: vec![0; 9 << 20].into() };
    assert_says(log.append(large).await, is_refused, &["a record of 9437184 bytes is larger than the allowed 8388608"]);
    assert_says(log.append(record(3, 0)).await, is_refused, &["no partition 3"]);
    log.append(record(0, 5)).await.unwrap();
    assert_eq!(read_all(&log, 0).await.iter().map(number).collect::<Vec<_>>(), [5]);
}
