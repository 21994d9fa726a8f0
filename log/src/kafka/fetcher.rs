//! The thread that polls the consumer: fetches, sorts into partitions, pauses what is full, and replaces a consumer that stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::HEADER;
use super::buffer::Partition;
use super::client::{Broker, Context, offset};
use super::options::KafkaOptions;
use crate::{LogError, Record, limits};

/// How often the thread looks after partitions when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// Records taken off the library's queue before requests are looked at.
const POLL_RECORDS: usize = 256;

/// How often a seek is tried on a partition whose fetching just begins, and the pause between.
const SEEK_TRIES: (u32, Duration) = (2000, Duration::from_millis(1));

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Fetch on from an offset.
    Seek { partition: u32, from: u64, reply: oneshot::Sender<Result<(), LogError>> },
    /// A full buffer was read to its half.
    Resume(u32),
    /// Records have arrived, or the log is being closed.
    Wake,
}

impl ConsumerContext for Context {}

/// The thread's state.
pub(super) struct Fetcher {
    options: KafkaOptions,
    partitions: Arc<[Arc<Partition>]>,
    broker: Broker,
    requests: Receiver<Request>,
    sender: Sender<Request>,
    /// A wake-up is on its way already.
    is_woken: Arc<AtomicBool>,
    is_stopping: Arc<AtomicBool>,
    consumer: BaseConsumer<Context>,
    looked_after: Instant,
    last_error: Option<KafkaError>,
}

impl Fetcher {
    pub(super) fn new(
        options: KafkaOptions,
        partitions: Arc<[Arc<Partition>]>,
        broker: Broker,
        is_stopping: Arc<AtomicBool>,
    ) -> Result<(Self, Sender<Request>), LogError> {
        let (sender, requests) = channel();
        let is_woken = Arc::new(AtomicBool::new(false));
        let consumer = connect(&options, &sender, &is_woken)?;
        let fetcher = Self {
            options,
            partitions,
            broker,
            requests,
            sender: sender.clone(),
            is_woken,
            is_stopping,
            consumer,
            looked_after: Instant::now(),
            last_error: None,
        };
        Ok((fetcher, sender))
    }

    /// Serves until the log is closed.
    pub(super) fn run(mut self) {
        let mut is_busy = false;
        while !self.is_stopping.load(Ordering::Acquire) {
            let wait = if is_busy { Duration::ZERO } else { TICK };
            match self.requests.recv_timeout(wait) {
                Ok(request) => self.serve(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(request) = self.requests.try_recv() {
                self.serve(request);
            }
            is_busy = self.poll();
            if self.looked_after.elapsed() >= TICK {
                self.looked_after = Instant::now();
                self.look_after();
            }
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Wake => self.is_woken.store(false, Ordering::Release),
            Request::Resume(partition) => self.resume(partition),
            Request::Seek { partition, from, reply } => {
                // The reader may have gone.
                let _ = reply.send(self.seek(partition, from));
            }
        }
    }

    /// Takes records off the queue; whether there may be more.
    fn poll(&mut self) -> bool {
        let share_bytes = self.share_bytes();
        for _ in 0..POLL_RECORDS {
            match self.consumer.poll(Duration::ZERO) {
                None => return false,
                Some(Ok(message)) => {
                    let Some(partition) = self.partitions.get(message.partition().unsigned_abs() as usize) else {
                        continue;
                    };
                    partition.push(record(partition.number, &message));
                    let is_full = partition.buffer().bytes >= share_bytes;
                    if is_full {
                        self.pause(partition);
                    }
                }
                Some(Err(error)) => self.note(error),
            }
        }
        true
    }

    /// Bytes that one partition may hold.
    fn share_bytes(&self) -> usize {
        let fetched = self.partitions.iter().filter(|partition| partition.buffer().is_fetched).count();
        limits::KAFKA_READ_AHEAD_BYTES / fetched.max(1)
    }

    fn pause(&self, partition: &Partition) {
        let mut buffer = partition.buffer();
        if buffer.paused_at_bytes.is_none() {
            buffer.paused_at_bytes = Some(buffer.bytes);
            metrics::counter!("flagmint_log_kafka_pauses_total").increment(1);
            self.report(self.consumer.pause(&self.list(partition.number, Offset::Invalid)));
        }
    }

    fn resume(&self, partition: u32) {
        let Some(partition) = self.partitions.get(partition as usize) else { return };
        let mut buffer = partition.buffer();
        if buffer.wants_more() {
            buffer.paused_at_bytes = None;
            buffer.moved_at = Some(Instant::now());
            self.report(self.consumer.resume(&self.list(partition.number, Offset::Invalid)));
        }
    }

    fn seek(&self, number: u32, from: u64) -> Result<(), LogError> {
        let partition = &self.partitions[number as usize];
        let was_fetched = partition.buffer().is_fetched;
        let at = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        if was_fetched { self.turn(number, at) } else { self.consumer.incremental_assign(&self.list(number, at)) }
            .map_err(|error| LogError::Retry(format!("cannot fetch partition {number} from offset {from}: {error}")))?;
        let was_paused = partition.buffer().paused_at_bytes.is_some();
        // No record of the place before is left in the library's queue once it has turned, so all that arrives belongs here.
        partition.buffer().restart(from);
        if was_paused {
            self.report(self.consumer.resume(&self.list(number, Offset::Invalid)));
        }
        Ok(())
    }

    /// Turns a partition that is fetched to another place. One whose fetching has only just begun says "state" for some
    /// microseconds.
    fn turn(&self, number: u32, at: Offset) -> Result<(), KafkaError> {
        let mut tries = 0;
        loop {
            let list = self.consumer.seek_partitions(self.list(number, at), limits::KAFKA_REQUEST_TIMEOUT)?;
            let result = list.elements().first().map_or(Ok(()), |element| element.error());
            tries += 1;
            match result {
                Err(error) if tries < SEEK_TRIES.0 && is_starting(&error) => std::thread::sleep(SEEK_TRIES.1),
                result => return result,
            }
        }
    }

    fn note(&mut self, error: KafkaError) {
        let code = error.rdkafka_error_code();
        metrics::counter!("flagmint_log_kafka_fetch_errors_total").increment(1);
        if code == Some(RDKafkaErrorCode::AutoOffsetReset) || code == Some(RDKafkaErrorCode::OffsetOutOfRange) {
            // Which partition it was is not told. Readers ask for the bounds when they find theirs is not fetched.
            tracing::warn!(%error, "the log does not reach back to where a partition was to be read");
            self.forget_all();
        } else if self.last_error.as_ref() != Some(&error) {
            tracing::warn!(%error, "fetching from Kafka fails; it is tried on");
        }
        self.last_error = Some(error);
    }

    fn forget_all(&self) {
        for partition in self.partitions.iter() {
            self.forget(partition);
        }
    }

    /// Fetches a partition no longer.
    fn forget(&self, partition: &Partition) {
        let mut buffer = partition.buffer();
        if buffer.is_fetched {
            *buffer = Default::default();
            self.report(self.consumer.incremental_unassign(&self.list(partition.number, Offset::Invalid)));
        }
    }

    /// Once a second: gives up what nobody reads, and replaces a consumer that does not bring what is there.
    fn look_after(&mut self) {
        let mut is_stalled = false;
        for partition in self.partitions.iter() {
            let buffer = partition.buffer();
            let is_idle = buffer.is_fetched && buffer.used_at.is_none_or(|at| at.elapsed() > limits::KAFKA_IDLE);
            let lags = partition.known_end().is_some_and(|end| end > buffer.next);
            is_stalled |= buffer.is_fetched
                && buffer.paused_at_bytes.is_none()
                && lags
                && buffer.moved_at.is_some_and(|at| at.elapsed() > limits::KAFKA_STALL.1);
            drop(buffer);
            if is_idle {
                self.forget(partition);
            }
        }
        // While no broker answers, another consumer would do no better.
        if is_stalled && self.broker.is_answering() {
            self.replace();
        }
    }

    /// The watchdog: another consumer goes on where this one stands.
    fn replace(&mut self) {
        metrics::counter!("flagmint_log_kafka_consumers_replaced_total").increment(1);
        tracing::warn!("fetching from Kafka has stalled; another consumer takes over");
        match connect(&self.options, &self.sender, &self.is_woken) {
            Ok(consumer) => self.consumer = consumer,
            Err(error) => return tracing::error!(%error, "the consumer cannot be made again"),
        }
        for partition in self.partitions.iter() {
            let mut buffer = partition.buffer();
            if buffer.is_fetched {
                buffer.paused_at_bytes = None;
                buffer.moved_at = Some(Instant::now());
                let at = Offset::Offset(i64::try_from(buffer.next).unwrap_or(i64::MAX));
                self.report(self.consumer.incremental_assign(&self.list(partition.number, at)));
            }
        }
    }

    fn list(&self, partition: u32, at: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(partition).expect("counted by Kafka as i32");
        list.add_partition_offset(&self.options.topic, partition, at).expect("an offset that Kafka has");
        list
    }

    fn report(&self, result: Result<(), KafkaError>) {
        if let Err(error) = result {
            tracing::warn!(%error, topic = self.options.topic, "the Kafka consumer refuses");
        }
    }
}

fn is_starting(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::State | RDKafkaErrorCode::PreviousInProgress | RDKafkaErrorCode::UnknownPartition)
    )
}

/// A consumer that tells the thread whenever records arrive.
fn connect(
    options: &KafkaOptions,
    sender: &Sender<Request>,
    is_woken: &Arc<AtomicBool>,
) -> Result<BaseConsumer<Context>, LogError> {
    let mut consumer = BaseConsumer::from_config_and_context(&options.reader(), Context::default())
        .map_err(|error| LogError::Refuse(format!("the Kafka consumer cannot be set up: {error}")))?;
    let (sender, is_woken) = (sender.clone(), is_woken.clone());
    consumer.set_nonempty_callback(move || {
        if !is_woken.swap(true, Ordering::AcqRel) {
            let _ = sender.send(Request::Wake);
        }
    });
    Ok(consumer)
}

/// A message as a record. The bytes are copied: the library's own buffer holds a whole fetch.
fn record(partition: u32, message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers();
    let header = headers.and_then(|headers| headers.iter().find(|header| header.key == HEADER)?.value);
    Record {
        partition,
        offset: offset(message.offset()),
        append_time_us: message.timestamp().to_millis().unwrap_or_default().saturating_mul(1000),
        header: header.map(Bytes::copy_from_slice).unwrap_or_default(),
        payload: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
    }
}
