//! The producer of the topics beside the decisions: each message is answered once it is durable.
//!
//! The client library has one of this kind, whose thread waits whole milliseconds and so asks again and again in what is left of the last one: a hundredth of a
//! core in every process that has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use tokio::sync::oneshot;

use super::client::Context;
use super::options::{KafkaOptions, ms};
use crate::{LogError, limits};

/// How long the thread waits for confirmations before it looks whether it should end; not whole milliseconds, for the reason above.
const POLL: Duration = Duration::from_micros(100_100);

/// Sends messages until it is dropped.
pub(super) struct Sender {
    producer: Arc<BaseProducer<Deliveries>>,
    is_closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Takes the confirmations.
struct Deliveries(Context);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, reply: Self::DeliveryOpaque) {
        // Nobody may be waiting any more.
        let _ = reply.send(result.as_ref().map(|_message| ()).map_err(|(error, _message)| error.clone()));
    }
}

impl Sender {
    /// Sets the producer up and starts its thread.
    pub(super) fn start(options: &KafkaOptions) -> Result<Self, LogError> {
        let mut config = options.client();
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        // Callers decide whether to try again: a total is out of date by then, a dead letter is not.
        config.set("message.timeout.ms", ms(limits::KAFKA_REQUEST_TIMEOUT));
        config.set("linger.ms", ms(limits::KAFKA_LINGER));
        config.set("compression.type", "lz4");
        let producer = BaseProducer::from_config_and_context(&config, Deliveries(Context::default()))
            .map_err(|error| LogError::Refuse(format!("the Kafka producer cannot be set up: {error}")))?;
        let (producer, is_closing) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::Builder::new()
            .name("kafka-beside".to_owned())
            .spawn({
                let (producer, is_closing) = (producer.clone(), is_closing.clone());
                move || {
                    while !is_closing.load(Ordering::Acquire) {
                        producer.poll(POLL);
                    }
                }
            })
            .map_err(|error| LogError::Retry(format!("cannot start the thread of the Kafka producer: {error}")))?;
        Ok(Self { producer, is_closing, thread: Some(thread) })
    }

    /// Sends a message; resolves once it is durable, or will not be.
    pub(super) async fn send(&self, topic: &str, key: &[u8], value: &[u8]) -> Result<(), KafkaError> {
        let (reply, receipt) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(reply)).key(key).payload(value);
        self.producer.send(record).map_err(|(error, _record)| error)?;
        receipt.await.unwrap_or(Err(KafkaError::Canceled))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.is_closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the Kafka producer beside the log panicked");
        }
    }
}
