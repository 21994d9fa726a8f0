//! The one thread that writes: collects records into groups and commits each group with one fdatasync per touched partition.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::options::Clock;
use super::partition::End;
use super::partition_writer::PartitionWriter;
use super::{Directory, Options, frame};
use crate::{Append, LogError};

/// Bytes of the queue a record holds until it is answered.
#[derive(Debug)]
pub(super) struct Claim {
    pub bytes: usize,
    pub queued_bytes: Arc<AtomicUsize>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.queued_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Request {
    pub append: Append,
    pub reply: oneshot::Sender<Result<u64, LogError>>,
    pub claim: Claim,
}

impl Request {
    /// Tells the caller; it may no longer be interested.
    pub fn answer(self, result: Result<u64, LogError>) {
        drop(self.claim);
        let _gone = self.reply.send(result);
    }
}

/// The state of the writer thread.
pub(super) struct Writer {
    requests: Receiver<Request>,
    partitions: Vec<PartitionWriter>,
    directory: Directory,
    clock: Clock,
    linger: Duration,
    group_bytes: usize,
    failure: Arc<OnceLock<LogError>>,
}

impl Writer {
    pub fn new(
        options: &Options,
        requests: Receiver<Request>,
        partitions: Vec<PartitionWriter>,
        directory: Directory,
        failure: Arc<OnceLock<LogError>>,
    ) -> Self {
        let (clock, linger, group_bytes) = (options.clock.clone(), options.group_linger, options.group_bytes);
        Self { requests, partitions, directory, clock, linger, group_bytes, failure }
    }

    /// Works until the log is dropped, then notes the orderly close.
    pub fn run(mut self) {
        while let Some(group) = self.collect() {
            self.commit(group);
        }
        if self.failure.get().is_some() {
            return;
        }
        let ends: Vec<u64> = self.partitions.iter().map(|writer| writer.partition().bounds().end).collect();
        if let Err(error) = self.directory.mark_closed(&ends) {
            tracing::warn!(%error, "cannot note the orderly close; the next start scans for a torn tail");
        }
    }

    /// The next group, or `None` when the log is dropped and all is written.
    fn collect(&self) -> Option<Vec<Request>> {
        let first = self.requests.recv().ok()?;
        let deadline = Instant::now() + self.linger;
        let mut bytes = first.claim.bytes;
        let mut group = vec![first];
        while bytes < self.group_bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.requests.recv_timeout(left) {
                Ok(request) => {
                    bytes += request.claim.bytes;
                    group.push(request);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Some(group)
    }

    /// Tells everybody who waits that the log has failed.
    fn wake_watchers(&self) {
        let fail = |end: &mut End| end.failed = true;
        self.partitions.iter().for_each(|writer| writer.partition().end.send_modify(fail));
    }

    fn commit(&mut self, group: Vec<Request>) {
        let started = Instant::now();
        let now_us = (self.clock)();
        let records = group.len();
        let bytes: usize = group.iter().map(|request| request.claim.bytes).sum();
        let mut by_partition: Vec<Vec<Request>> = self.partitions.iter().map(|_| Vec::new()).collect();
        for request in group {
            by_partition[request.append.partition as usize].push(request);
        }
        for (writer, requests) in self.partitions.iter_mut().zip(by_partition) {
            if let Some(failure) = self.failure.get() {
                requests.into_iter().for_each(|request| request.answer(Err(failure.clone())));
            } else if !requests.is_empty()
                && let Err(failure) = writer.commit(requests, now_us)
            {
                tracing::error!(%failure, "the log takes no more records");
                self.failure.get_or_init(|| failure);
            }
        }
        if self.failure.get().is_some() {
            self.wake_watchers();
        }
        metrics::counter!("flagmint_log_group_records_total").increment(records as u64);
        metrics::counter!("flagmint_log_group_bytes_total").increment(bytes as u64);
        metrics::histogram!("flagmint_log_group_commit_seconds").record(started.elapsed());
    }
}

impl Drop for Writer {
    /// A bug that ends this thread must not leave anybody waiting for records that cannot come.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failure
                .get_or_init(|| LogError::Fatal("the writer thread panicked: this is a bug, start again".to_owned()));
            self.wake_watchers();
        }
    }
}

/// Bytes of the queue and of a group that a record counts for.
pub(super) fn weight(append: &Append) -> usize {
    frame::frame_bytes(&append.header, &append.payload)
}
