//! The log of the embedded mode: segment files on a local disk, one writer thread with group commit.
//!
//! | metric | counts |
//! |---|---|
//! | `flagmint_log_queue_full_total{limit}` | records pushed back because too many `records` or `bytes` wait |
//! | `flagmint_log_too_large_total` | records refused for their size |
//! | `flagmint_log_disk_full_total` | groups pushed back by a full disk |
//! | `flagmint_log_group_records_total`, `flagmint_log_group_bytes_total` | records and bytes that reached the writer |
//! | `flagmint_log_group_commit_seconds` | histogram: time to write a group and make it durable |

mod directory;
mod frame;
mod options;
mod partition;
mod partition_writer;
mod recover;
mod segment;
mod writer;

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

pub use self::options::{Clock, Options, SyncData};

use self::directory::Directory;
use self::partition::Partition;
use self::partition_writer::PartitionWriter;
use self::writer::{Claim, Request, Writer};
use crate::{Append, Assignment, DecisionLog, LogError, Record, limits};

/// A [`DecisionLog`] in a directory of the local disk, held by one process at a time.
///
/// Dropping it writes what is queued and waits for that. Durability: a record is acknowledged after `fdatasync` (the kernel's
/// promise, not ours, if the drive lies). A write torn by a power cut is cut off on the next open; nobody was told of it.
/// Damage to what was acknowledged is refused, on open for the last segment, on read for the others; only damage within the
/// very last commit group before an unclean end cannot be told from a torn write.
#[derive(Debug)]
pub struct LocalLog {
    epoch: u64,
    max_record_bytes: usize,
    queue_bytes: usize,
    queued_bytes: Arc<AtomicUsize>,
    partitions: Vec<Arc<Partition>>,
    failure: Arc<OnceLock<LogError>>,
    /// Taken by `drop` only.
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl LocalLog {
    /// Opens or creates the log, recovering from a crash if there was one. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: held by another process, other format version, other number of partitions, setting out of range.
    /// [`LogError::Fatal`]: damaged, or the disk fails. [`LogError::Retry`]: disk too full to create the log.
    pub fn open(options: Options) -> Result<Self, LogError> {
        options.validate()?;
        let directory = Directory::open(&options)?;
        let closed_ends = directory.closed_ends()?;
        let closed_end = |number: u32| closed_ends.as_ref().and_then(|ends| ends.get(number as usize).copied());
        let writers: Vec<PartitionWriter> = (0..options.partitions)
            .map(|number| PartitionWriter::open(&options, &directory, number, closed_end(number)))
            .collect::<Result<_, _>>()?;
        let partitions: Vec<Arc<Partition>> = writers.iter().map(|writer| writer.partition().clone()).collect();
        directory.mark_open()?;
        let epoch = directory.epoch;
        let failure = Arc::new(OnceLock::new());
        let (requests, receiver) = sync_channel(options.queue_records);
        let writer = Writer::new(&options, receiver, writers, directory, failure.clone());
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| LogError::Retry(format!("cannot start the writer thread: {error}")))?;
        Ok(Self {
            epoch,
            max_record_bytes: limits::RECORD_BYTES.min(segment_room(&options)),
            queue_bytes: options.queue_bytes,
            queued_bytes: Arc::default(),
            partitions,
            failure,
            requests: Some(requests),
            writer: Some(writer),
        })
    }

    /// Largest header plus payload of one record, in bytes.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        self.max_record_bytes
    }

    fn partition(&self, number: u32) -> Result<&Arc<Partition>, LogError> {
        self.partitions.get(number as usize).ok_or_else(|| {
            LogError::Refuse(format!("there is no partition {number}, the log has {}", self.partitions.len()))
        })
    }

    /// Puts a record into the writer's queue; its place among the records of this caller is fixed by that.
    fn enqueue(&self, append: Append) -> Result<oneshot::Receiver<Result<u64, LogError>>, LogError> {
        self.partition(append.partition)?;
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        let record_bytes = append.header.len() + append.payload.len();
        if record_bytes > self.max_record_bytes {
            metrics::counter!("flagmint_log_too_large_total").increment(1);
            return Err(LogError::Refuse(format!(
                "a record of {record_bytes} bytes is larger than the allowed {}",
                self.max_record_bytes
            )));
        }
        let claim = self.claim(writer::weight(&append))?;
        let (reply, receipt) = oneshot::channel();
        let queue = self.requests.as_ref().expect("taken by drop only");
        match queue.try_send(Request { append, reply, claim }) {
            Ok(()) => Ok(receipt),
            Err(TrySendError::Full(_)) => Err(queue_full("records")),
            Err(TrySendError::Disconnected(_)) => Err(writer_gone()),
        }
    }

    fn claim(&self, bytes: usize) -> Result<Claim, LogError> {
        let fits = |queued: usize| queued.checked_add(bytes).filter(|sum| *sum <= self.queue_bytes || queued == 0);
        self.queued_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_queued| queue_full("bytes"))?;
        Ok(Claim { bytes, queued_bytes: self.queued_bytes.clone() })
    }
}

fn segment_room(options: &Options) -> usize {
    usize::try_from(options.segment_bytes).expect("segments are limited to 1 GiB") - frame::HEAD_BYTES
}

fn queue_full(limit: &'static str) -> LogError {
    metrics::counter!("flagmint_log_queue_full_total", "limit" => limit).increment(1);
    LogError::Retry(format!("the writer's queue is full ({limit}): the disk is slower than the producers"))
}

fn writer_gone() -> LogError {
    LogError::Fatal("the writer thread has ended".to_owned())
}

/// Runs disk work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Err(LogError::Retry(format!("the runtime is shutting down: {cancelled}"))),
    })
}

impl DecisionLog for LocalLog {
    fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("limited by limits::PARTITIONS")
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn append(&self, append: Append) -> impl Future<Output = Result<u64, LogError>> + Send {
        let receipt = self.enqueue(append);
        async move { receipt?.await.unwrap_or_else(|_gone| Err(writer_gone())) }
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let partition = self.partition(partition)?.clone();
        if from == partition.end.borrow().offset {
            return Ok(Vec::new());
        }
        blocking(move || partition.read(from, max_bytes)).await
    }

    async fn wait_beyond(&self, partition: u32, after: u64) -> Result<(), LogError> {
        let mut end = self.partition(partition)?.end.subscribe();
        let end = *end.wait_for(|end| end.offset > after || end.failed).await.expect("the partition keeps the sender");
        if end.offset > after { Ok(()) } else { Err(self.failure.get().cloned().unwrap_or_else(writer_gone)) }
    }

    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        Ok(self.partition(partition)?.bounds())
    }

    async fn trim(&self, before_append_time_us: i64, folded: &[u64]) -> Result<u64, LogError> {
        if folded.len() != self.partitions.len() {
            return Err(LogError::Refuse(format!(
                "{} folded offsets were given, the log has {} partitions",
                folded.len(),
                self.partitions.len()
            )));
        }
        let work: Vec<_> = self.partitions.iter().cloned().zip(folded.iter().copied()).collect();
        let trim = move || work.iter().map(|(partition, folded)| partition.trim(before_append_time_us, *folded)).sum();
        blocking(trim).await
    }

    fn assignment(&self) -> watch::Receiver<Assignment> {
        Assignment::all(self.partitions())
    }

    /// Nothing: the store's positions say what may be trimmed.
    fn commit(&self, _partition: u32, _chunk_start: u64) {}
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread of the log panicked");
        }
    }
}
