//! Batches that cannot be read: parked with their place and reason, and judged by their share.

use std::collections::VecDeque;

use bytes::Bytes;
use flagmint_log::Record;

use crate::limits::DEAD_LETTER_BYTES;

/// A record that could not be folded. The same record gives the same dead letter whenever it is read again, so
/// (epoch, partition, offset) tells repetitions apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Log epoch.
    pub epoch: u64,
    /// Log partition.
    pub partition: u32,
    /// Offset of the record.
    pub offset: u64,
    /// When the log took it, microseconds.
    pub append_time_us: i64,
    /// Why it could not be read.
    pub reason: String,
    /// Its header as it is.
    pub header: Bytes,
    /// The first [`DEAD_LETTER_BYTES`] of its payload.
    pub payload: Bytes,
    /// Length of the whole payload in bytes.
    pub payload_bytes: usize,
}

impl DeadLetter {
    pub(super) fn new(epoch: u64, record: &Record, reason: String) -> Self {
        let cut = |bytes: &Bytes| Bytes::copy_from_slice(&bytes[..bytes.len().min(DEAD_LETTER_BYTES)]);
        Self {
            epoch,
            partition: record.partition,
            offset: record.offset,
            append_time_us: record.append_time_us,
            reason,
            // Copied: a slice would keep the whole read buffer in memory.
            header: cut(&record.header),
            payload: cut(&record.payload),
            payload_bytes: record.payload.len(),
        }
    }
}

/// Which of the last records were poison.
#[derive(Debug)]
pub(super) struct PoisonWindow {
    capacity: usize,
    allowed: usize,
    last: VecDeque<bool>,
    poison: usize,
}

impl PoisonWindow {
    /// A window over `capacity` records that allows `percent` of poison.
    pub fn new(capacity: usize, percent: usize) -> Self {
        Self { capacity, allowed: capacity * percent / 100, last: VecDeque::new(), poison: 0 }
    }

    /// Takes the next record in.
    pub fn push(&mut self, is_poison: bool) {
        if self.last.len() == self.capacity && self.last.pop_front() == Some(true) {
            self.poison -= 1;
        }
        self.last.push_back(is_poison);
        self.poison += usize::from(is_poison);
    }

    /// Whether there is more poison than allowed.
    pub fn is_exceeded(&self) -> bool {
        self.poison > self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_the_last_records_only() {
        let mut window = PoisonWindow::new(4, 50);
        let steps =
            [(true, false), (true, false), (false, false), (true, true), (false, false), (true, false), (true, true)];
        for (at, (poison, exceeded)) in steps.into_iter().enumerate() {
            window.push(poison);
            assert_eq!(window.is_exceeded(), exceeded, "record {at}");
        }
    }
}
