//! Appending: one idempotent producer, made again when it fails, with what was not confirmed resent in the order of the calls.
//!
//! A record stays with us until the brokers confirm it. The client library retries by itself, for ever, and keeps the order; what
//! it cannot mend (a fatal error, a topic that went) ends that producer. The next one first gets everything that is not
//! confirmed, in order, before anything new. So a caller sees a confirmed offset, or a record that waits; a record
//! that was written and whose confirmation was lost is written again, and readers recognise it by producer and sequence.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;

use super::HEADER;
use super::client::{Context, offset};
use super::options::KafkaOptions;
use crate::{Append, LogError, limits};

/// How long the thread waits for confirmations before it looks whether it should end. Not whole milliseconds: the client library waits for as many
/// whole ones as are left and asks again and again in what is left of the last one, 2 % of a core if that is all of it.
const POLL: Duration = Duration::from_micros(50_100);

/// What callers hold on to.
#[derive(Debug)]
pub(super) struct KafkaProducer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: KafkaOptions,
    /// The first offset beyond those confirmed, by partition: told to readers, who then need not ask.
    on_confirmed: Box<dyn Fn(u32, u64) + Send + Sync>,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("topic", &self.options.topic).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// None while it is being made again: appends then only wait here.
    producer: Option<Arc<BaseProducer<Deliveries>>>,
    /// Why the current producer must be replaced.
    failure: Option<String>,
    /// Not confirmed, in the order of the calls.
    waiting: BTreeMap<usize, Waiting>,
    waiting_bytes: usize,
    next_ticket: usize,
    is_closing: bool,
}

struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<u64, LogError>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.append.header.len() + self.append.payload.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a record to the producer. What it does not take makes it fail, and stays waiting.
    fn produce(&self, producer: &BaseProducer<Deliveries>, ticket: usize, append: &Append) -> Result<(), KafkaError> {
        let headers =
            OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(&append.header[..]) });
        let record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.options.topic, ticket)
            .partition(i32::try_from(append.partition).expect("checked against the topic's partitions"))
            .headers(headers)
            .payload(&append.payload[..]);
        let record = match append.header.get(self.options.key.clone()) {
            Some(key) if !key.is_empty() => record.key(key),
            _ => record,
        };
        producer.send(record).map_err(|(error, _record)| error)
    }
}

/// Takes the confirmations of one producer.
struct Deliveries {
    context: Context,
    shared: Arc<Shared>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal)) {
            self.shared.lock().failure.get_or_insert_with(|| reason.to_owned());
        }
        self.context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let mut state = self.shared.lock();
        let reply = match result {
            Ok(message) => Ok(offset(message.offset())),
            Err((error, _message)) => match error.rdkafka_error_code() {
                Some(code @ (RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)) => {
                    state.failure.get_or_insert_with(|| code.to_string());
                    Err(LogError::Refuse(format!(
                        "Kafka does not take this record: {code}; check the topic's max.message.bytes"
                    )))
                }
                // It stays, for the next producer.
                _ => {
                    state.failure.get_or_insert_with(|| error.to_string());
                    return;
                }
            },
        };
        let Some(waiting) = state.waiting.remove(&ticket) else { return };
        state.waiting_bytes -= waiting.bytes();
        let is_idle = state.waiting.is_empty();
        drop(state);
        if is_idle {
            self.shared.changed.notify_all();
        }
        if let Ok(offset) = reply {
            (self.shared.on_confirmed)(waiting.append.partition, offset + 1);
        }
        // Nobody may be waiting any more; the record is durable all the same.
        let _ = waiting.reply.send(reply);
    }
}

impl KafkaProducer {
    /// Starts the producer's thread.
    pub(super) fn start(
        options: KafkaOptions,
        on_confirmed: Box<dyn Fn(u32, u64) + Send + Sync>,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(Shared { options, on_confirmed, state: Mutex::default(), changed: Condvar::new() });
        let first = connect(&shared)?;
        shared.lock().producer = Some(first.clone());
        let thread = std::thread::Builder::new()
            .name("kafka-produce".to_owned())
            .spawn({
                let shared = shared.clone();
                move || run(&shared, first)
            })
            .map_err(|error| LogError::Retry(format!("cannot start the producer's thread: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes a record in; its place among the records of this caller is fixed by that.
    pub(super) fn append(&self, append: Append) -> Result<oneshot::Receiver<Result<u64, LogError>>, LogError> {
        let mut state = self.shared.lock();
        let (reply, receipt) = oneshot::channel();
        let waiting = Waiting { append, reply };
        if state.waiting.len() >= limits::QUEUE_RECORDS {
            return Err(queue_full("records"));
        }
        if state.waiting_bytes + waiting.bytes() > limits::QUEUE_BYTES && !state.waiting.is_empty() {
            return Err(queue_full("bytes"));
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting_bytes += waiting.bytes();
        // Under the lock, so that the producer's order is that of the tickets.
        let sent = match (&state.producer, &state.failure) {
            (Some(producer), None) => self.shared.produce(producer, ticket, &waiting.append),
            _ => Ok(()),
        };
        if let Err(error) = sent {
            state.failure.get_or_insert_with(|| error.to_string());
        }
        state.waiting.insert(ticket, waiting);
        Ok(receipt)
    }
}

fn queue_full(limit: &'static str) -> LogError {
    metrics::counter!("flagmint_log_queue_full_total", "limit" => limit).increment(1);
    LogError::Retry(format!("too much waits for the Kafka brokers already ({limit}); nothing was written"))
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the Kafka producer panicked");
        }
    }
}

fn connect(shared: &Arc<Shared>) -> Result<Arc<BaseProducer<Deliveries>>, LogError> {
    let deliveries = Deliveries { context: Context::default(), shared: shared.clone() };
    BaseProducer::from_config_and_context(&shared.options.producer(), deliveries)
        .map(Arc::new)
        .map_err(|error| LogError::Refuse(format!("the Kafka producer cannot be set up: {error}")))
}

/// Serves one producer after the other until the log is closed.
fn run(shared: &Arc<Shared>, first: Arc<BaseProducer<Deliveries>>) {
    let mut producer = first;
    let mut pause = limits::KAFKA_PRODUCER_PAUSE.0;
    loop {
        let started = Instant::now();
        let Some(failure) = serve(shared, &producer) else { break };
        metrics::counter!("flagmint_log_kafka_producers_replaced_total").increment(1);
        tracing::warn!(failure, "the Kafka producer has failed; another takes its records over");
        retire(shared, &producer);
        drop(producer);
        if started.elapsed() > limits::KAFKA_PRODUCER_PAUSE.1 {
            pause = limits::KAFKA_PRODUCER_PAUSE.0;
        }
        producer = loop {
            let state = shared.lock();
            let (state, _) = shared
                .changed
                .wait_timeout_while(state, pause, |state| !state.is_closing)
                .unwrap_or_else(PoisonError::into_inner);
            if state.is_closing {
                return;
            }
            drop(state);
            pause = (pause * 2).min(limits::KAFKA_PRODUCER_PAUSE.1);
            match connect(shared) {
                Ok(producer) => break producer,
                Err(error) => tracing::error!(%error, "the Kafka producer cannot be made again; it is tried on"),
            }
        };
        resend(shared, &producer);
    }
    retire(shared, &producer);
}

/// Serves confirmations until the producer fails (then says why) or the log is closed and nothing waits any more.
fn serve(shared: &Shared, producer: &BaseProducer<Deliveries>) -> Option<String> {
    let mut closing_since = None;
    loop {
        producer.poll(POLL);
        let state = shared.lock();
        if state.is_closing {
            let since = *closing_since.get_or_insert_with(Instant::now);
            if state.waiting.is_empty() || state.failure.is_some() || since.elapsed() > limits::KAFKA_CLOSE_TIMEOUT {
                return None;
            }
        } else if let Some(failure) = &state.failure {
            return Some(failure.clone());
        }
    }
}

/// Takes a producer out of use; afterwards nothing it was given is written any more.
fn retire(shared: &Shared, producer: &BaseProducer<Deliveries>) {
    shared.lock().producer = None;
    producer.purge(PurgeConfig::default().queue().inflight());
    if let Err(error) = producer.flush(limits::KAFKA_CLOSE_TIMEOUT) {
        tracing::warn!(%error, "a Kafka producer did not give its records back");
    }
}

/// Gives a new producer everything that waits, and lets new records in behind it.
fn resend(shared: &Shared, producer: &Arc<BaseProducer<Deliveries>>) {
    let mut state = shared.lock();
    state.failure = None;
    let mut failure = None;
    for (ticket, waiting) in &state.waiting {
        if let Err(error) = shared.produce(producer, *ticket, &waiting.append) {
            failure = Some(error.to_string());
            break;
        }
    }
    metrics::counter!("flagmint_log_kafka_records_resent_total").increment(state.waiting.len() as u64);
    state.failure = failure;
    state.producer = Some(producer.clone());
}
