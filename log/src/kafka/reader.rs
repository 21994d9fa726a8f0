//! Reading: one thread that fetches all partitions somebody reads, into bounded buffers.
//!
//! A reader says where it wants to read. If that is where the buffer of its partition stands, it takes from there; otherwise the
//! fetching turns to that place. The thread waits on one channel for two things, requests of readers and the library's word
//! that records have arrived, so neither waits for the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::oneshot;

use super::buffer::Partition;
use super::client::Broker;
use super::fetcher::{Fetcher, Request};
use super::options::KafkaOptions;
use crate::{LogError, Record, limits};

/// The readers' side.
#[derive(Debug)]
pub(super) struct Reader {
    partitions: Arc<[Arc<Partition>]>,
    options: KafkaOptions,
    broker: Broker,
    /// Started by the first who reads: many only append.
    fetching: OnceLock<Result<Fetching, LogError>>,
    is_stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Fetching {
    requests: Sender<Request>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    /// Nothing is fetched yet.
    pub(super) fn new(options: KafkaOptions, partitions: u32, broker: Broker) -> Self {
        let partitions = (0..partitions).map(|number| Arc::new(Partition::new(number))).collect();
        Self { partitions, options, broker, fetching: OnceLock::new(), is_stopping: Arc::default() }
    }

    fn start(&self) -> Result<Fetching, LogError> {
        let (fetcher, requests) =
            Fetcher::new(self.options.clone(), self.partitions.clone(), self.broker.clone(), self.is_stopping.clone())?;
        let thread = std::thread::Builder::new()
            .name("kafka-fetch".to_owned())
            .spawn(move || fetcher.run())
            .map_err(|error| LogError::Retry(format!("cannot start the fetching thread: {error}")))?;
        Ok(Fetching { requests, thread })
    }

    /// A function that takes note of records which the producer knows to be durable.
    pub(super) fn on_confirmed(&self) -> Box<dyn Fn(u32, u64) + Send + Sync> {
        let partitions = self.partitions.clone();
        Box::new(move |partition, end| partitions[partition as usize].extend(end))
    }

    pub(super) fn partition(&self, number: u32) -> Result<&Arc<Partition>, LogError> {
        self.partitions.get(number as usize).ok_or_else(|| {
            LogError::Refuse(format!("there is no partition {number}, the topic has {}", self.partitions.len()))
        })
    }

    /// First kept and next offset, asked of the broker.
    pub(super) async fn bounds(&self, number: u32) -> Result<std::ops::Range<u64>, LogError> {
        let partition = self.partition(number)?;
        let bounds = self.broker.watermarks(&self.options.topic, number).await?;
        partition.extend(bounds.end);
        Ok(bounds.start..bounds.end.max(partition.known_end().unwrap_or_default()))
    }

    pub(super) async fn read(&self, number: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let partition = self.partition(number)?;
        let max_bytes = max_bytes.min(limits::READ_BYTES);
        let deadline = tokio::time::Instant::now() + limits::KAFKA_REQUEST_TIMEOUT;
        let mut known = partition.known();
        loop {
            // Marked as seen before the buffer is looked at: what arrives afterwards wakes us.
            let end = known.borrow_and_update().end;
            match self.take(partition, from, max_bytes) {
                Some(records) if !records.is_empty() || end.is_some_and(|end| end <= from) => return Ok(records),
                Some(_fetching) => {
                    if tokio::time::timeout_at(deadline, known.changed()).await.is_err() {
                        return Err(not_answering(number, from));
                    }
                }
                None => {
                    if self.turn_to(partition, from).await? {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    fn take(&self, partition: &Partition, from: u64, max_bytes: usize) -> Option<Vec<Record>> {
        let mut buffer = partition.buffer();
        buffer.used_at = Some(Instant::now());
        let taken = buffer.take(from, max_bytes);
        let has_room = buffer.wants_more();
        drop(buffer);
        if has_room {
            self.send(Request::Resume(partition.number)).ok()?;
        }
        taken
    }

    /// Makes the fetching go on at `from`; true if that is the end, so that there is nothing to wait for.
    async fn turn_to(&self, partition: &Arc<Partition>, from: u64) -> Result<bool, LogError> {
        let bounds = self.bounds(partition.number).await?;
        if !(bounds.start..=bounds.end).contains(&from) {
            return Err(LogError::Refuse(format!(
                "offset {from} of partition {} is not in the log: it holds {} to {}",
                partition.number, bounds.start, bounds.end
            )));
        }
        let (reply, done) = oneshot::channel();
        self.send(Request::Seek { partition: partition.number, from, reply })?;
        done.await.map_err(|_gone| fetcher_gone())??;
        Ok(from == bounds.end)
    }

    pub(super) async fn wait_beyond(&self, number: u32, after: u64) -> Result<(), LogError> {
        let partition = self.partition(number)?;
        let mut known = partition.known();
        loop {
            let reaches = known.borrow_and_update().end.is_some_and(|end| end > after);
            if reaches {
                return Ok(());
            }
            if !self.is_fetched_to(partition, after) {
                // Refused: the place is beyond the end, where a log made anew may stand. There is nothing, so it waits.
                match self.turn_to(partition, after).await {
                    Ok(_at_end) => continue,
                    Err(LogError::Fatal(reason)) => return Err(LogError::Fatal(reason)),
                    Err(LogError::Retry(_) | LogError::Refuse(_)) => {}
                }
            }
            if tokio::time::timeout(limits::KAFKA_STALL.0, known.changed()).await.is_err() {
                // A fetch that has stalled is the watchdog's; here only the end matters.
                match self.bounds(number).await {
                    Ok(_) | Err(LogError::Retry(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Whether the fetching will show what comes after `after`.
    fn is_fetched_to(&self, partition: &Partition, after: u64) -> bool {
        let mut buffer = partition.buffer();
        buffer.used_at = Some(Instant::now());
        buffer.is_fetched && buffer.start <= after
    }

    fn send(&self, request: Request) -> Result<(), LogError> {
        let fetching = self.fetching.get_or_init(|| self.start()).as_ref().map_err(Clone::clone)?;
        fetching.requests.send(request).map_err(|_gone| fetcher_gone())
    }
}

fn fetcher_gone() -> LogError {
    LogError::Fatal("the fetching thread has ended".to_owned())
}

fn not_answering(partition: u32, from: u64) -> LogError {
    LogError::Retry(format!("no Kafka broker brought the records of partition {partition} from offset {from} in time"))
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        let Some(Ok(fetching)) = self.fetching.take() else { return };
        // It ends at the latest with its next look at the flag.
        let _ = fetching.requests.send(Request::Wake);
        if fetching.thread.join().is_err() {
            tracing::error!("the thread that fetches from Kafka panicked");
        }
    }
}
