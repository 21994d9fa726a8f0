//! The two topics beside the decisions: usage totals, of which the newest of each key stays, and records that could not be read.
//!
//! Keys and values are opaque here. Both are named after the decisions' topic: `…-usage` and `…-dead-letters`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client::{Broker, Context};
use super::options::KafkaOptions;
use super::sender::Sender;
use super::topic::Topic;
use crate::{LogError, limits};

/// How long one poll of a follower waits before it looks whether anybody still listens.
const POLL: Duration = Duration::from_millis(100);

/// Writes usage totals and dead letters, and follows usage totals. Cheap to clone.
#[derive(Clone)]
pub struct SideTopics {
    options: KafkaOptions,
    broker: Broker,
    sender: Arc<Sender>,
    usage: Topic,
    usage_partitions: u32,
    dead_letters: Topic,
}

impl std::fmt::Debug for SideTopics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideTopics").field("topic", &self.options.topic).finish_non_exhaustive()
    }
}

/// What a follower of the usage totals hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageEvent {
    /// The newest total of a key so far.
    Total {
        /// Whose total it is.
        key: Bytes,
        /// The total.
        total: Bytes,
    },
    /// All totals that were there when the following began have been told. Said once.
    CaughtUp,
}

impl SideTopics {
    /// Connects, creates the topics unless they are there, and checks their settings.
    ///
    /// # Errors
    /// As [`KafkaLog::open`](super::KafkaLog::open).
    pub async fn open(options: KafkaOptions) -> Result<Self, LogError> {
        options.validate()?;
        let broker = Broker::connect(&options, limits::KAFKA_CONNECT_TIMEOUT).await?;
        let (usage, dead_letters) = (Topic::usage(&options), Topic::dead_letters(&options));
        let usage_partitions = usage.ensure(&broker, &options).await?;
        dead_letters.ensure(&broker, &options).await?;
        let sender = Arc::new(Sender::start(&options)?);
        Ok(Self { options, broker, sender, usage, usage_partitions, dead_letters })
    }

    /// Publishes totals by key, each replacing the one before; resolves once all are durable.
    ///
    /// # Errors
    /// [`LogError::Retry`]: some may not be there; publish the totals as they are by then. [`LogError::Refuse`]: too large or not allowed.
    pub async fn publish_usage(&self, totals: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), LogError> {
        let totals: Vec<(Bytes, Bytes)> = totals.into_iter().collect();
        let sent = totals.iter().map(|(key, total)| self.send(&self.usage, key, total));
        join_all(sent).await.into_iter().collect()
    }

    /// Publishes a record that could not be read; resolves once it is durable. A repetition does no harm if its key is the same.
    ///
    /// # Errors
    /// [`LogError::Retry`]: it may not be there. [`LogError::Refuse`]: too large or not allowed.
    pub async fn publish_dead_letter(&self, key: &[u8], letter: &[u8]) -> Result<(), LogError> {
        self.send(&self.dead_letters, key, letter).await
    }

    async fn send(&self, topic: &Topic, key: &[u8], value: &[u8]) -> Result<(), LogError> {
        self.sender.send(&topic.name, key, value).await.map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => LogError::Refuse(format!(
                "a record of {} bytes is too large for the Kafka topic {}",
                value.len(),
                topic.name
            )),
            _ => self.broker.explain(&error),
        })
    }

    /// Tells all usage totals from the beginning of the topic on, and goes on until the receiver is dropped. A reader that is slow
    /// holds the topic back, not memory.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: the consumer cannot be set up. [`LogError::Retry`]: no thread.
    pub fn follow_usage(&self) -> Result<mpsc::Receiver<UsageEvent>, LogError> {
        let consumer: BaseConsumer<Context> =
            BaseConsumer::from_config_and_context(&self.options.follower(), Context::default())
                .map_err(|error| LogError::Refuse(format!("the Kafka consumer cannot be set up: {error}")))?;
        let partitions = i32::try_from(self.usage_partitions).unwrap_or(i32::MAX);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(&self.usage.name, partition, Offset::Beginning)
                .map_err(|error| LogError::Refuse(format!("cannot follow {}: {error}", self.usage.name)))?;
        }
        consumer.assign(&list).map_err(|error| self.broker.explain(&error))?;
        let (events, receiver) = mpsc::channel(limits::KAFKA_USAGE_EVENTS);
        std::thread::Builder::new()
            .name("kafka-usage".to_owned())
            .spawn(move || follow(&consumer, partitions, &events))
            .map_err(|error| LogError::Retry(format!("cannot start the thread that follows usage: {error}")))?;
        Ok(receiver)
    }
}

fn follow(consumer: &BaseConsumer<Context>, partitions: i32, events: &mpsc::Sender<UsageEvent>) {
    let mut behind: std::collections::BTreeSet<i32> = (0..partitions).collect();
    let mut last_error = None;
    while !events.is_closed() {
        let event = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(message)) => {
                let (key, total) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                UsageEvent::Total { key: Bytes::copy_from_slice(key), total: Bytes::copy_from_slice(total) }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if !behind.remove(&partition) || !behind.is_empty() {
                    continue;
                }
                UsageEvent::CaughtUp
            }
            Some(Err(error)) => {
                if last_error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "following the usage totals fails; it is tried on");
                }
                last_error = Some(error);
                continue;
            }
        };
        if events.blocking_send(event).is_err() {
            return;
        }
    }
}
