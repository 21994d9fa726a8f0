//! How far the log is folded, per partition: in memory as emitted, in the manifest as stored.

use serde::{Deserialize, Serialize};

use super::cells::ChunkId;
use crate::Position;

/// Stands for "every chunk": the open chunk of an epoch that was succeeded by another one.
const ENDED: u64 = u64::MAX;

/// One partition of one epoch of the log. Chunks that start before `open_chunk` are final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Partition {
    partition: u32,
    epoch: u64,
    open_chunk: u64,
    complete_through_us: i64,
}

/// Where the fold stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fold {
    partitions: Vec<Partition>,
    /// The latest ever said, so that it never goes backwards.
    complete_through_us: Option<i64>,
}

impl Fold {
    /// Whether all of a chunk's cells have been emitted.
    pub(super) fn is_final(&self, id: ChunkId) -> bool {
        self.partitions
            .iter()
            .any(|known| (known.partition, known.epoch) == (id.partition, id.epoch) && id.chunk < known.open_chunk)
    }

    /// Moves on; never backwards, whatever a stale emission says. A new epoch of a partition ends the one before:
    /// its log is gone, so its open chunk gets no more cells.
    pub(super) fn advance(&mut self, position: &Position) {
        let same = |known: &&mut Partition| (known.partition, known.epoch) == (position.partition, position.epoch);
        match self.partitions.iter_mut().find(same) {
            Some(known) if known.open_chunk == ENDED => return,
            Some(known) => {
                known.open_chunk = known.open_chunk.max(position.chunk);
                known.complete_through_us = known.complete_through_us.max(position.complete_through_us);
            }
            None => {
                let before = self.partitions.iter_mut().filter(|known| known.partition == position.partition);
                before.for_each(|known| known.open_chunk = ENDED);
                self.partitions.push(Partition {
                    partition: position.partition,
                    epoch: position.epoch,
                    open_chunk: position.chunk,
                    complete_through_us: position.complete_through_us,
                });
            }
        }
        let reached = self.live().map(|known| known.complete_through_us).min().filter(|us| *us != i64::MIN);
        self.complete_through_us = self.complete_through_us.max(reached);
    }

    /// Every event before this has been emitted, microseconds.
    pub(super) const fn complete_through_us(&self) -> Option<i64> {
        self.complete_through_us
    }

    /// Per partition, where to fold from when all final chunks are stored.
    pub(super) fn resume_positions(&self) -> Vec<Position> {
        let position = |known: &Partition| Position {
            epoch: known.epoch,
            partition: known.partition,
            chunk: known.open_chunk,
            next_offset: known.open_chunk,
            complete_through_us: known.complete_through_us,
        };
        self.live().map(position).collect()
    }

    fn live(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(|known| known.open_chunk != ENDED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: u64, chunk: u64, complete_through_us: i64) -> Position {
        Position { epoch, partition: 0, chunk, next_offset: chunk, complete_through_us }
    }

    #[test]
    fn never_goes_backwards_and_ends_older_epochs() {
        let mut fold = Fold::default();
        fold.advance(&position(7, 10, i64::MIN));
        assert_eq!(fold.complete_through_us(), None);
        for (stale, chunk) in [(position(7, 30, 500), 30), (position(7, 20, 400), 30)] {
            fold.advance(&stale);
            assert_eq!(fold.resume_positions()[0].chunk, chunk);
            assert_eq!(fold.complete_through_us(), Some(500));
        }
        fold.advance(&position(3, 0, 100));
        fold.advance(&position(7, 40, 900));
        assert_eq!(fold.resume_positions().iter().map(|p| (p.epoch, p.chunk)).collect::<Vec<_>>(), [(3, 0)]);
        assert!(fold.is_final(ChunkId { partition: 0, epoch: 7, chunk: 35 }));
        assert!(!fold.is_final(ChunkId { partition: 0, epoch: 3, chunk: 0 }));
        assert_eq!(fold.complete_through_us(), Some(500));
    }
}
