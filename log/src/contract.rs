//! The contract of a decision log, shaped so that Apache Kafka and local segments can both keep it.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::watch;

use crate::LogError;

/// One record as read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Partition the record lives in, `0..partitions()`.
    pub partition: u32,
    /// Position in the partition. Strictly increasing; a backend may skip offsets (Kafka's control records), so count
    /// records, never differences of offsets.
    pub offset: u64,
    /// When the log took the record, in microseconds since the Unix epoch; the same whenever the record is read. Never decreases
    /// within a partition, even if the clock is set back; only where a partition's leaders have clocks of their own (Kafka), it may
    /// step back by their difference when the leader changes.
    pub append_time_us: i64,
    /// Batch header, opaque to the log.
    pub header: Bytes,
    /// Batch body, opaque to the log.
    pub payload: Bytes,
}

/// One record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Partition to append to, `0..partitions()`.
    pub partition: u32,
    /// Batch header, opaque to the log.
    pub header: Bytes,
    /// Batch body, opaque to the log.
    pub payload: Bytes,
}

/// The partitions that this process is to fold now, out of all those that share the work.
///
/// It says who should work, not who may: while owners change, two may hold a partition or one may not yet know that it lost it. Whoever
/// folds must come to the same result then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Grows with each change.
    pub generation: u64,
    /// Ascending.
    pub partitions: Vec<u32>,
}

impl Assignment {
    /// What a log says that belongs to one process: all partitions, for ever.
    #[must_use]
    pub fn all(partitions: u32) -> watch::Receiver<Self> {
        watch::Sender::new(Self { generation: 1, partitions: (0..partitions).collect() }).subscribe()
    }
}

/// A partitioned, ordered, durable log of opaque batches.
///
/// A record becomes visible to `read`, `bounds` and `wait_beyond` only once it is durable: what a reader has seen is
/// never taken back by a crash.
pub trait DecisionLog: Send + Sync + 'static {
    /// Number of partitions, fixed for the life of the log.
    fn partitions(&self) -> u32;

    /// Identifies this incarnation of the log. Two records with equal epoch, partition and offset are the same record;
    /// a log that was created anew has another epoch. Where that can happen under a running process (a topic deleted and made again),
    /// reading fails for good from then on ([`LogError::Fatal`]), and who opens the log again is told the new epoch; appending goes on.
    fn epoch(&self) -> u64;

    /// Appends one record; resolves with its offset once it is durable.
    ///
    /// The record takes its place when `append` is called, not when the future is first polled: records of one caller
    /// keep the order of the calls even if many are in flight. A dropped future does not withdraw its record.
    ///
    /// # Errors
    /// [`LogError::Retry`]: not taken (queue full, disk full), and nothing was written; or, only when the log is being closed, not
    /// confirmed in time, and it may have been written. Offer it again, under the same header, before any later record of that
    /// partition: readers recognise a copy by its header. While a backend is away, records wait rather than fail, so that none
    /// overtakes another; whatever a backend repeats by itself keeps the order of the calls at each record's first place.
    /// [`LogError::Refuse`]: never acceptable (too large, no such partition).
    /// [`LogError::Fatal`]: the log can take no more; whether this record is durable is unknown.
    fn append(&self, append: Append) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// Records of one partition from offset `from` on, in order. Never waits for new records: empty exactly when `from` is the end (of
    /// other processes' records a moment ago, where the end is learnt over a network).
    ///
    /// At most `max_bytes` (counting headers, payloads and framing), but at least one record if there is one, so that a
    /// reader always advances. It may return fewer than would fit; read again from the last offset + 1.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: no such partition, or `from` outside [`bounds`](Self::bounds) (already trimmed, or beyond the end).
    /// [`LogError::Fatal`]: stored bytes are damaged; the message names file, position and remedy.
    fn read(
        &self,
        partition: u32,
        from: u64,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Record>, LogError>> + Send;

    /// Completes when the partition's end offset is greater than `after`, i.e. when `read(partition, after, …)` has something.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: no such partition. [`LogError::Fatal`]: the log failed while waiting.
    fn wait_beyond(&self, partition: u32, after: u64) -> impl Future<Output = Result<(), LogError>> + Send;

    /// First kept offset and the next offset to be written; empty range for an empty partition.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: no such partition. [`LogError::Retry`]: the backend did not answer.
    fn bounds(&self, partition: u32) -> impl Future<Output = Result<Range<u64>, LogError>> + Send;

    /// Removes what is old, unless the backend's own retention does (Kafka's; then it does nothing): whole segments whose records were all appended before `before_append_time_us` (microseconds since the
    /// Unix epoch) **and** lie below `folded[partition]`, the first offset of that partition that may still be needed.
    /// Returns the number of segments removed.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: `folded` has not one entry per partition. [`LogError::Retry`]: a file could not be removed now.
    fn trim(&self, before_append_time_us: i64, folded: &[u64]) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// The partitions that this process is to fold. A log that several processes read enters this one among them at the first call; until
    /// it is told its share, the share is empty. Once the sender is gone, the assignment stays as it is.
    fn assignment(&self) -> watch::Receiver<Assignment>;

    /// Notes for tools and alarms that a fold of `partition` would start at `chunk_start`: everything before it is in the store.
    ///
    /// Never waits, may be late or lost, and nothing is ever resumed from it: positions travel with the cells. Of a partition that is
    /// not this process's it means nothing.
    fn commit(&self, partition: u32, chunk_start: u64);
}
