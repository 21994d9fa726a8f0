//! How a log in Kafka is set up, and what of that goes to the client library.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::{LogError, limits};

/// Properties that this crate's promises rest on; a pass-through value is refused, with what to do instead.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set the brokers"),
    ("metadata.broker.list", "set the brokers"),
    ("group.id", "set the group"),
    ("group.instance.id", "set the instance"),
    ("session.timeout.ms", "set the session timeout"),
    ("enable.idempotence", "records would be lost or repeated"),
    ("enable.gapless.guarantee", "records would change their order"),
    ("acks", "a record must be on all in-sync replicas before it counts"),
    ("request.required.acks", "a record must be on all in-sync replicas before it counts"),
    ("message.timeout.ms", "records would be given up while a broker is away"),
    ("delivery.timeout.ms", "records would be given up while a broker is away"),
    ("retries", "records would be given up while a broker is away"),
    ("message.send.max.retries", "records would be given up while a broker is away"),
    ("transactional.id", "records are not written in transactions"),
    ("auto.offset.reset", "a reader must not jump"),
    ("enable.auto.commit", "only starts of chunks may be committed"),
    ("enable.auto.offset.store", "only starts of chunks may be committed"),
    ("partition.assignment.strategy", "partitions are handed over cooperatively"),
];

/// How to open a [`KafkaLog`](super::KafkaLog).
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Where to find the first brokers: `host:port,host:port`.
    pub brokers: String,
    /// Topic of the decisions; created if it does not exist.
    pub topic: String,
    /// Partitions a new topic gets; an existing one with fewer is refused, one with more is used as it is.
    pub partitions: u32,
    /// Replicas of each partition of a new topic; the brokers' default if none.
    pub replicas: Option<u16>,
    /// How long a new topic keeps its records.
    pub retention: Duration,
    /// The consumer group of this log's readers.
    pub group: String,
    /// A name that this process has in the group whenever it is started, unique among its members: it then takes up its partitions
    /// again after a restart without the others noticing. None: each start is a new member.
    pub instance: Option<String>,
    /// How long a member of the group may be silent before its partitions go to others.
    pub session_timeout: Duration,
    /// Raised by an operator to start a new epoch of the log on the same topic.
    pub epoch_bump: u32,
    /// The bytes of a batch header that become the key of the record, for other consumers' sake; headers that are shorter have no key.
    pub key: Range<usize>,
    /// Raw librdkafka properties, such as `security.protocol` and `sasl.password`, for all clients.
    pub properties: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// The given topic at the given brokers, with what [`limits`] says.
    #[must_use]
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic: topic.into(),
            partitions: limits::KAFKA_PARTITIONS,
            replicas: None,
            retention: limits::KAFKA_RETENTION,
            group: "flagmint-aggregator".to_owned(),
            instance: None,
            session_timeout: limits::KAFKA_SESSION_TIMEOUT,
            epoch_bump: 0,
            key: 0..0,
            properties: BTreeMap::new(),
        }
    }

    /// Whether the options make sense by themselves.
    pub(super) fn validate(&self) -> Result<(), LogError> {
        let refuse = |text: String| Err(LogError::Refuse(text));
        if self.brokers.trim().is_empty() {
            return refuse("no Kafka brokers are given: host:port,host:port".to_owned());
        }
        if self.partitions == 0 {
            return refuse("a topic needs at least one partition".to_owned());
        }
        if self.retention < limits::KAFKA_RETENTION_MIN {
            return refuse(format!(
                "a retention of {:?} is shorter than an open chunk may last: at least {:?}",
                self.retention,
                limits::KAFKA_RETENTION_MIN
            ));
        }
        for (name, why) in RESERVED {
            if self.properties.contains_key(*name) {
                return refuse(format!("the Kafka property {name} cannot be passed through: {why}"));
            }
        }
        // The library checks names and values.
        self.client().create_native_config().map(|_native| ()).map_err(|error| {
            LogError::Refuse(format!(
                "a Kafka property is not accepted: {error}; librdkafka's CONFIGURATION.md lists them"
            ))
        })
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "flagmint");
        config.set("reconnect.backoff.ms", ms(limits::KAFKA_RECONNECT_PAUSE.0));
        config.set("reconnect.backoff.max.ms", ms(limits::KAFKA_RECONNECT_PAUSE.1));
        config.set("socket.timeout.ms", ms(limits::KAFKA_REQUEST_TIMEOUT));
        config.set("message.max.bytes", message_bytes().to_string());
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// A producer that never gives a record up, never repeats one and never changes their order.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("enable.idempotence", "true");
        config.set("enable.gapless.guarantee", "true");
        config.set("acks", "all");
        config.set("message.timeout.ms", "0");
        config.set("retry.backoff.max.ms", ms(limits::KAFKA_RECONNECT_PAUSE.1));
        default(&mut config, "linger.ms", ms(limits::KAFKA_LINGER));
        default(&mut config, "compression.type", "lz4".to_owned());
        // Our own queue is bounded before this one is.
        config.set("queue.buffering.max.kbytes", (4 * limits::QUEUE_BYTES / 1024).to_string());
        config.set("queue.buffering.max.messages", (4 * limits::QUEUE_RECORDS).to_string());
        config
    }

    /// A consumer that reads where it is told to.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("fetch.wait.max.ms", ms(limits::KAFKA_FETCH_WAIT));
        config.set("fetch.error.backoff.ms", "100");
        config.set("fetch.queue.backoff.ms", "10");
        config.set("fetch.max.bytes", limits::KAFKA_FETCH_QUEUE_BYTES.to_string());
        config.set("fetch.message.max.bytes", (limits::KAFKA_FETCH_QUEUE_BYTES / 8).to_string());
        config.set("queued.max.messages.kbytes", (limits::KAFKA_FETCH_QUEUE_BYTES / 1024).to_string());
        config
    }

    /// A member of the group, which reads nothing.
    pub(super) fn member(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("session.timeout.ms", ms(self.session_timeout));
        // Who stays hears with its next heartbeat that another one has gone.
        default(&mut config, "heartbeat.interval.ms", ms(self.session_timeout / 12));
        // Its partitions are paused; what is fetched before they are is thrown away, so let it be little.
        config.set("fetch.message.max.bytes", "1024");
        config.set("queued.min.messages", "1");
        config.set("queued.max.messages.kbytes", "1");
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        config
    }

    /// A consumer that follows a whole topic from its beginning.
    pub(super) fn follower(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("auto.offset.reset", "earliest");
        config.set("enable.partition.eof", "true");
        config.set("queued.max.messages.kbytes", "1024");
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("group.id", &self.group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config
    }
}

/// Largest message, as topics and clients count it.
pub(super) fn message_bytes() -> usize {
    limits::RECORD_BYTES + limits::KAFKA_OVERHEAD_BYTES
}

/// Whole milliseconds.
pub(super) fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn default(config: &mut ClientConfig, name: &str, value: String) {
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut KafkaOptions), expected: &str) {
        let mut options = KafkaOptions::new("127.0.0.1:1", "decisions");
        change(&mut options);
        match options.validate() {
            Err(LogError::Refuse(text)) => assert!(text.contains(expected), "{text:?} should say {expected:?}"),
            other => panic!("{other:?} should have been refused for {expected:?}"),
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_option() {
        let property = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            move |options: &mut KafkaOptions| drop(options.properties.insert(name, value))
        };
        check(|options| options.brokers = " ".to_owned(), "host:port");
        check(|options| options.partitions = 0, "at least one partition");
        check(|options| options.retention = Duration::from_secs(60), "open chunk");
        check(property("acks", "1"), "acks cannot be passed through: a record must be on all");
        check(property("no.such.thing", "1"), "no.such.thing");
        check(property("security.protocol", "carrier-pigeon"), "carrier-pigeon");
        assert_eq!(KafkaOptions::new("127.0.0.1:1", "decisions").validate(), Ok(()));
    }
}
