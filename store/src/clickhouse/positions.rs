//! How far each partition of the log is folded, by what is stored: offsets travel with the data.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use serde::Deserialize;

use super::client::Client;
use super::rewrites::Covered;
use crate::{Position, StoreError};

/// One partition of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Known {
    partition: u32,
    epoch: u64,
    chunk: u64,
    next_offset: u64,
    complete_through_us: i64,
    reached_us: i64,
    since_us: i64,
}

/// All partitions of all epochs.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    known: Vec<Known>,
    /// The latest watermark ever told.
    reached_us: Option<i64>,
}

/// What rows are written to.
pub(super) const INSERT: &str = "INSERT INTO `positions` \
    (`partition`, `epoch`, `chunk`, `next_offset`, `complete_through_us`, `reached_us`) FORMAT ArrowStream";

impl Positions {
    /// Takes in what is stored.
    pub(super) async fn load(&mut self, client: &Client) -> Result<(), StoreError> {
        let sql = "SELECT `partition`, `epoch`, max(`chunk`) AS `chunk`, max(`next_offset`) AS `next_offset`, \
            max(`complete_through_us`) AS `complete_through_us`, max(`reached_us`) AS `reached_us`, \
            min(`since_us`) AS `since_us` FROM `positions` GROUP BY `partition`, `epoch`";
        for stored in client.records::<Known>(sql).await? {
            self.merge(stored);
        }
        self.reach();
        Ok(())
    }

    /// Takes in what another knows.
    pub(super) fn join(&mut self, other: &Self) {
        other.known.iter().for_each(|known| self.merge(*known));
        self.reached_us = self.reached_us.max(other.reached_us);
        self.reach();
    }

    /// Takes in positions that were stored by this store.
    pub(super) fn advance(&mut self, positions: &[Position]) {
        for position in positions {
            let of_partition = self.known.iter().filter(|known| known.partition == position.partition);
            self.merge(Known {
                partition: position.partition,
                epoch: position.epoch,
                chunk: position.chunk,
                next_offset: position.next_offset,
                complete_through_us: position.complete_through_us,
                reached_us: i64::MIN,
                // Of an epoch not seen before: later than all others, until the stored time is read.
                since_us: of_partition.map(|known| known.since_us).max().map_or(0, |us| us.saturating_add(1)),
            });
        }
        self.reach();
    }

    fn merge(&mut self, other: Known) {
        let same = |known: &&mut Known| (known.partition, known.epoch) == (other.partition, other.epoch);
        match self.known.iter_mut().find(same) {
            Some(known) => {
                known.chunk = known.chunk.max(other.chunk);
                known.next_offset = known.next_offset.max(other.next_offset);
                known.complete_through_us = known.complete_through_us.max(other.complete_through_us);
                known.reached_us = known.reached_us.max(other.reached_us);
                known.since_us = known.since_us.min(other.since_us);
            }
            None => self.known.push(other),
        }
    }

    fn reach(&mut self) {
        let told = self.known.iter().map(|known| known.reached_us).max().filter(|us| *us != i64::MIN);
        let reached = self.live().map(|known| known.complete_through_us).min().filter(|us| *us != i64::MIN);
        self.reached_us = self.reached_us.max(told).max(reached);
    }

    /// The newest epoch of each partition: the log of those before is gone.
    fn live(&self) -> impl Iterator<Item = &Known> {
        let newest = |known: &&Known| {
            let others = self.known.iter().filter(|other| other.partition == known.partition);
            others.map(|other| (other.since_us, other.epoch)).max() == Some((known.since_us, known.epoch))
        };
        self.known.iter().filter(newest)
    }

    /// Every event before this is stored, microseconds.
    pub(super) const fn complete_through_us(&self) -> Option<i64> {
        self.reached_us
    }

    /// Where to fold from.
    pub(super) fn resume(&self) -> Vec<Position> {
        let position = |known: &Known| Position {
            epoch: known.epoch,
            partition: known.partition,
            chunk: known.chunk,
            next_offset: known.next_offset,
            complete_through_us: known.complete_through_us,
        };
        let mut positions: Vec<Position> = self.live().map(position).collect();
        positions.sort_by_key(|position| position.partition);
        positions
    }

    /// The chunks whose cells are all stored with their last values.
    pub(super) fn covered(&self) -> Vec<Covered> {
        let live: Vec<(u32, u64)> = self.live().map(|known| (known.partition, known.epoch)).collect();
        let of = |known: &Known| Covered {
            partition: known.partition,
            epoch: known.epoch,
            chunk: if live.contains(&(known.partition, known.epoch)) { known.chunk } else { u64::MAX },
        };
        self.known.iter().map(of).collect()
    }

    /// The chunks whose last values are stored, also of epochs that are gone.
    pub(super) fn told(&self) -> Vec<Covered> {
        let of = |known: &Known| Covered { partition: known.partition, epoch: known.epoch, chunk: known.chunk };
        self.known.iter().map(of).collect()
    }

    /// Rows of `positions`.
    pub(super) fn rows(&self, positions: &[Position]) -> RecordBatch {
        let reached_us = self.reached_us.unwrap_or(i64::MIN);
        let u64s = |of: fn(&Position) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(positions.iter().map(of)))
        };
        let partitions = UInt32Array::from_iter_values(positions.iter().map(|position| position.partition));
        let complete = Int64Array::from_iter_values(positions.iter().map(|position| position.complete_through_us));
        let columns: [(&str, ArrayRef); 6] = [
            ("partition", Arc::new(partitions)),
            ("epoch", u64s(|position| position.epoch)),
            ("chunk", u64s(|position| position.chunk)),
            ("next_offset", u64s(|position| position.next_offset)),
            ("complete_through_us", Arc::new(complete)),
            ("reached_us", Arc::new(Int64Array::from_value(reached_us, positions.len()))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns are equally long")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: u64, chunk: u64, complete_through_us: i64) -> Position {
        Position { epoch, partition: 0, chunk, next_offset: chunk, complete_through_us }
    }

    #[test]
    fn never_go_backwards_and_end_older_epochs() {
        let mut positions = Positions::default();
        positions.advance(&[Position { next_offset: 15, ..position(7, 10, i64::MIN) }]);
        assert_eq!(
            (positions.resume()[0].chunk, positions.resume()[0].next_offset),
            (10, 15),
            "part of a chunk is stored"
        );
        assert_eq!(positions.complete_through_us(), None);
        for stale in [position(7, 30, 500), position(7, 20, 400)] {
            positions.advance(&[stale]);
            assert_eq!(positions.resume()[0].chunk, 30);
            assert_eq!(positions.complete_through_us(), Some(500));
        }
        positions.advance(&[position(3, 0, 100)]);
        positions.advance(&[position(7, 40, 900)]);
        assert_eq!(positions.resume().iter().map(|p| (p.epoch, p.chunk)).collect::<Vec<_>>(), [(3, 0)]);
        let covered = |partition, epoch, chunk| Covered { partition, epoch, chunk };
        assert_eq!(positions.covered(), [covered(0, 7, u64::MAX), covered(0, 3, 0)]);
        assert_eq!(positions.complete_through_us(), Some(500));
    }
}
