//! What was fetched of one partition and not read yet, and up to where the partition is known to reach.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::Record;

/// Bytes that a record takes in a page beside header and payload, as `read` counts.
const FRAMING_BYTES: usize = 32;

/// One partition, shared by its readers and the fetching thread.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) number: u32,
    buffer: Mutex<Buffer>,
    /// Changes with every record that arrives and every end that becomes known.
    known: watch::Sender<Known>,
}

/// How far a partition is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The largest end offset seen so far; none before the first.
    pub(super) end: Option<u64>,
    /// Counts fetched records, so that a waiting reader wakes.
    pub(super) fetched: u64,
}

/// The fetched records of a partition.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Whether the partition is being fetched. If not, nothing below means anything.
    pub(super) is_fetched: bool,
    /// The bytes it held when it was paused; it goes on at half of that.
    pub(super) paused_at_bytes: Option<usize>,
    /// All records from here to `next` are in `records` or were read.
    pub(super) start: u64,
    /// What the next record to arrive has at least.
    pub(super) next: u64,
    records: VecDeque<Record>,
    pub(super) bytes: usize,
    /// When somebody last read or waited.
    pub(super) used_at: Option<Instant>,
    /// When a record last arrived or the fetching began.
    pub(super) moved_at: Option<Instant>,
}

fn size(record: &Record) -> usize {
    record.header.len() + record.payload.len() + FRAMING_BYTES
}

impl Buffer {
    /// The records of offset `from` and later, if this buffer is at that place: at most `max_bytes`, but one at least if there is any.
    pub(super) fn take(&mut self, from: u64, max_bytes: usize) -> Option<Vec<Record>> {
        if !self.is_fetched || from < self.start || from > self.next {
            return None;
        }
        while self.records.front().is_some_and(|record| record.offset < from) {
            self.pop();
        }
        let mut bytes = self.records.front().map_or(0, size);
        let mut taken: Vec<Record> = self.pop().into_iter().collect();
        while let Some(record) = self.records.front() {
            bytes += size(record);
            if bytes > max_bytes {
                break;
            }
            taken.extend(self.pop());
        }
        self.start = taken.last().map_or(from, |record| record.offset + 1);
        Some(taken)
    }

    /// Whether so much was read since it was paused that fetching should go on.
    pub(super) fn wants_more(&self) -> bool {
        self.is_fetched && self.paused_at_bytes.is_some_and(|paused_at| self.bytes <= paused_at / 2)
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes -= size(&record);
        Some(record)
    }

    /// Takes the next record in; records before the expected one are repetitions of a fetch.
    pub(super) fn push(&mut self, record: Record) -> bool {
        if !self.is_fetched || record.offset < self.next {
            return false;
        }
        self.next = record.offset + 1;
        self.moved_at = Some(Instant::now());
        self.bytes += size(&record);
        self.records.push_back(record);
        true
    }

    /// Begins anew at an offset.
    pub(super) fn restart(&mut self, from: u64) {
        *self = Self {
            is_fetched: true,
            start: from,
            next: from,
            used_at: self.used_at,
            moved_at: Some(Instant::now()),
            ..Self::default()
        };
    }
}

impl Partition {
    pub(super) fn new(number: u32) -> Self {
        Self { number, buffer: Mutex::default(), known: watch::Sender::default() }
    }

    pub(super) fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    pub(super) fn known_end(&self) -> Option<u64> {
        self.known.borrow().end
    }

    /// The partition reaches at least to here.
    pub(super) fn extend(&self, end: u64) {
        self.known.send_if_modified(|known| {
            let is_news = known.end.is_none_or(|old| end > old);
            if is_news {
                known.end = Some(end);
            }
            is_news
        });
    }

    /// Takes fetched records in; tells readers.
    pub(super) fn push(&self, record: Record) {
        let end = record.offset + 1;
        if self.buffer().push(record) {
            self.known.send_modify(|known| {
                known.end = known.end.max(Some(end));
                known.fetched += 1;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(offset: u64) -> Record {
        Record { partition: 0, offset, append_time_us: 0, header: Bytes::new(), payload: Bytes::from_static(&[0; 68]) }
    }

    fn offsets(taken: Option<Vec<Record>>) -> Option<Vec<u64>> {
        taken.map(|records| records.iter().map(|record| record.offset).collect())
    }

    #[test]
    fn serves_what_it_covers_in_pages() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.take(0, 1000), None, "nothing is fetched");
        buffer.restart(10);
        for offset in [10, 11, 14, 15, 16] {
            assert!(buffer.push(record(offset)));
        }
        assert!(!buffer.push(record(16)), "a repetition");
        assert_eq!(offsets(buffer.take(9, 1000)), None);
        assert_eq!(offsets(buffer.take(10, 250)), Some(vec![10, 11]));
        assert_eq!(offsets(buffer.take(10, 250)), None, "it has gone on");
        // 12 and 13 were skipped by the broker.
        assert_eq!(offsets(buffer.take(12, 0)), Some(vec![14]));
        assert_eq!(offsets(buffer.take(16, 1000)), Some(vec![16]));
        assert_eq!(buffer.bytes, 0);
        assert_eq!(offsets(buffer.take(17, 1000)), Some(vec![]));
        assert_eq!(offsets(buffer.take(18, 1000)), None);
    }

    #[test]
    fn the_known_end_never_falls() {
        let partition = Partition::new(0);
        let ends = [(5, Some(5)), (3, Some(5)), (9, Some(9))];
        for (end, expected) in ends {
            partition.extend(end);
            assert_eq!(partition.known_end(), expected);
        }
    }
}
