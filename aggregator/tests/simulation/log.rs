//! The simulated log: partitions of records with append times that never fall and offsets that may skip, and an epoch that changes
//! when the topic is made anew.

use bytes::Bytes;
use flagmint_log::Record;
use flagmint_schemas::batch::BatchHeader;
use rand::Rng;
use rand::rngs::StdRng;

pub const PARTITIONS: u32 = 2;

#[derive(Default)]
pub struct Partition {
    pub records: Vec<Record>,
    next_offset: u64,
}

pub struct Log {
    pub epoch: u64,
    pub partitions: Vec<Partition>,
}

impl Log {
    pub fn new() -> Self {
        Self { epoch: 1, partitions: (0..PARTITIONS).map(|_| Partition::default()).collect() }
    }

    /// Appends a record; returns its place among the partition's records.
    pub fn append(&mut self, random: &mut StdRng, now_us: i64, partition: u32, header: Bytes, payload: Bytes) -> usize {
        let log = &mut self.partitions[partition as usize];
        // As Kafka's control records do.
        if random.random_ratio(1, 10) {
            log.next_offset += 1;
        }
        let append_time_us = log.records.last().map_or(now_us, |last| last.append_time_us.max(now_us));
        log.records.push(Record { partition, offset: log.next_offset, append_time_us, header, payload });
        log.next_offset += 1;
        log.records.len() - 1
    }

    /// Records from an offset on, at most so many.
    pub fn read(&self, partition: u32, from: u64, most: usize) -> &[Record] {
        let records = &self.partitions[partition as usize].records;
        let start = records.partition_point(|record| record.offset < from);
        &records[start..records.len().min(start + most)]
    }

    /// Deletes the topic and makes it again.
    pub fn recreate(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::new() };
    }
}

/// Bytes of a header.
pub fn encoded(header: &BatchHeader) -> Bytes {
    Bytes::copy_from_slice(&header.encode())
}
