//! Opens partitions: finds out where the fold of each starts and reads what precedes that, beside the folding of the others.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use flagmint_log::{DecisionLog, LogError};
use flagmint_store::{Position, RollupStore, StoreError};
use tokio::sync::OnceCell;

use super::RunError;
use super::partition::Partition;
use crate::fold::{FoldLimits, PartitionFold, Resume};
use crate::limits::{PRIME_US, READ_BYTES_MIN, RETRY_WAIT};

/// Opens partitions, for as long as it takes.
pub(super) struct Opener<L, S> {
    log: Arc<L>,
    store: Arc<S>,
    limits: FoldLimits,
    troubles: Arc<Troubles>,
}

/// What does not work while partitions are opened.
#[derive(Debug, Default)]
struct Troubles {
    log: Mutex<Option<String>>,
    store: Mutex<Option<String>>,
}

/// Partitions that are opened together.
pub(super) struct Batch<L, S> {
    log: Arc<L>,
    store: Arc<S>,
    limits: FoldLimits,
    troubles: Arc<Troubles>,
    epoch: u64,
    stored: Arc<OnceCell<Vec<Position>>>,
}

impl<L, S> Clone for Batch<L, S> {
    fn clone(&self) -> Self {
        Self {
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            limits: self.limits,
            troubles: Arc::clone(&self.troubles),
            epoch: self.epoch,
            stored: Arc::clone(&self.stored),
        }
    }
}

fn put(trouble: &Mutex<Option<String>>, reason: Option<String>) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = reason;
}

fn get(trouble: &Mutex<Option<String>>) -> Option<String> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl<L: DecisionLog, S: RollupStore> Opener<L, S> {
    pub fn new(log: Arc<L>, store: Arc<S>, limits: FoldLimits) -> Self {
        Self { log, store, limits, troubles: Arc::default() }
    }

    /// A batch that asks the store once.
    pub fn batch(&self, epoch: u64) -> Batch<L, S> {
        Batch {
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            limits: self.limits,
            troubles: Arc::clone(&self.troubles),
            epoch,
            stored: Arc::default(),
        }
    }

    pub fn log_trouble(&self) -> Option<String> {
        get(&self.troubles.log)
    }

    pub fn store_trouble(&self) -> Option<String> {
        get(&self.troubles.store)
    }
}

impl<L: DecisionLog, S: RollupStore> Batch<L, S> {
    /// Opens one partition; waits while the store or the log is away.
    pub async fn open(&self, number: u32) -> Result<Partition, RunError> {
        let mut wait = RETRY_WAIT.0;
        loop {
            let (trouble, reason) = match self.try_open(number).await {
                Ok(partition) => {
                    put(&self.troubles.log, None);
                    put(&self.troubles.store, None);
                    return Ok(partition);
                }
                Err(RunError::Store(StoreError::Retry(reason))) => (&self.troubles.store, reason),
                // Refused: trimmed while it was read.
                Err(RunError::Log(LogError::Retry(reason) | LogError::Refuse(reason))) => (&self.troubles.log, reason),
                Err(error) => return Err(error),
            };
            tracing::warn!(partition = number, reason, "the partition cannot be opened now; it is tried again");
            put(trouble, Some(reason));
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_WAIT.1);
        }
    }

    async fn try_open(&self, number: u32) -> Result<Partition, RunError> {
        let stored = self.stored.get_or_try_init(|| self.store.resume_positions()).await?;
        put(&self.troubles.store, None);
        let of_this = |position: &&Position| position.partition == number && position.epoch == self.epoch;
        open(&*self.log, (number, self.epoch), stored.iter().find(of_this).copied(), self.limits).await
    }
}

/// Finds out where the fold of a partition starts and reads what precedes that.
async fn open<L: DecisionLog>(
    log: &L,
    (number, epoch): (u32, u64),
    stored: Option<Position>,
    limits: FoldLimits,
) -> Result<Partition, RunError> {
    // After the positions, so that what they say is in the log by then.
    let bounds = log.bounds(number).await?;
    let resume = resume_at(number, stored, &bounds)?;
    let mut distance = limits.duplicate_window_records as u64;
    let fold = loop {
        let from = prime_from(log, number, &bounds, resume.chunk, distance).await?;
        let from = from.saturating_sub(limits.duplicate_window_records as u64).max(bounds.start);
        let mut fold = PartitionFold::new(epoch, number, resume, limits);
        let primed = prime(log, &mut fold, number, from..resume.chunk).await?;
        if from == bounds.start || primed >= limits.duplicate_window_records as u64 {
            break fold;
        }
        // Offsets were skipped: the window's records lie further back.
        distance = 2 * (resume.chunk - from);
    };
    let replayed = stored.map_or(0, |stored| stored.next_offset.saturating_sub(resume.chunk));
    metrics::counter!("flagmint_aggregator_replayed_records_total").increment(replayed);
    tracing::info!(partition = number, from = resume.chunk, replayed, "folding");
    Ok(Partition::new(fold, number, epoch, resume))
}

fn resume_at(number: u32, stored: Option<Position>, bounds: &Range<u64>) -> Result<Resume, RunError> {
    let start = Resume { chunk: bounds.start, complete_through_us: i64::MIN };
    let Some(position) = stored else { return Ok(start) };
    if position.chunk > bounds.end {
        return Err(RunError::Ahead { partition: number, stored: position.chunk, end: bounds.end });
    }
    if position.chunk >= bounds.start {
        return Ok(Resume { chunk: position.chunk, complete_through_us: position.complete_through_us });
    }
    // The log no longer reaches back to where the open chunk began, so that chunk's cells cannot be made again. They hold what was
    // folded up to `next_offset` (a store that does not keep open chunks says so by a `next_offset` that is the chunk's start): another
    // chunk begins there, since one that began where the log does would count the same again. This is exact but for what an emission
    // that was stored in part, or an owner that still has the chunk open, brought beyond `next_offset`: some tenths of a second.
    let from = position.next_offset.max(bounds.start);
    let missing = from - position.next_offset;
    metrics::counter!("flagmint_aggregator_trimmed_records_total").increment(missing);
    tracing::error!(
        partition = number,
        chunk = position.chunk,
        folded = position.next_offset,
        from,
        missing,
        "the log was trimmed into an open chunk: keep it for longer; what is missing was never folded and is in no count"
    );
    Ok(Resume { chunk: from, complete_through_us: position.complete_through_us })
}

/// How far before `chunk` the reading starts: at least `distance` offsets and [`PRIME_US`] of append time.
async fn prime_from<L: DecisionLog>(
    log: &L,
    number: u32,
    bounds: &Range<u64>,
    chunk: u64,
    mut distance: u64,
) -> Result<u64, LogError> {
    // However long ago that was, there is nothing before it; and each look at a time turns the reading to another place.
    if chunk.saturating_sub(distance) <= bounds.start {
        return Ok(bounds.start);
    }
    // The append time of the record before the chunk is no later than that of its first, which may not be there yet.
    let before = chunk.saturating_sub(1).max(bounds.start);
    let Some(horizon_us) = append_time(log, number, before).await?.map(|time_us| time_us.saturating_sub(PRIME_US))
    else {
        return Ok(bounds.start);
    };
    loop {
        let from = chunk.saturating_sub(distance).max(bounds.start);
        if from == bounds.start || append_time(log, number, from).await?.is_some_and(|time_us| time_us < horizon_us) {
            return Ok(from);
        }
        distance = distance.saturating_mul(2);
    }
}

async fn append_time<L: DecisionLog>(log: &L, number: u32, offset: u64) -> Result<Option<i64>, LogError> {
    Ok(log.read(number, offset, 1).await?.first().map(|record| record.append_time_us))
}

/// Shows the fold the records of a range; returns how many there were.
async fn prime<L: DecisionLog>(
    log: &L,
    fold: &mut PartitionFold,
    number: u32,
    range: Range<u64>,
) -> Result<u64, LogError> {
    let (mut at, mut primed) = (range.start, 0);
    while at < range.end {
        let records = log.read(number, at, READ_BYTES_MIN).await?;
        let Some(last) = records.last() else { break };
        at = last.offset + 1;
        for record in records.iter().filter(|record| record.offset < range.end) {
            fold.prime(record);
            primed += 1;
        }
    }
    Ok(primed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_where_nothing_is_missing_and_nothing_counts_twice() {
        let position =
            |chunk, next_offset| Position { epoch: 1, partition: 0, chunk, next_offset, complete_through_us: 7 };
        let check = |stored: Option<Position>, bounds: Range<u64>, expected: u64| {
            let resume = resume_at(0, stored, &bounds).unwrap();
            assert_eq!(resume.chunk, expected, "{stored:?} in a log of {bounds:?}");
            assert_eq!(resume.complete_through_us, if stored.is_some() { 7 } else { i64::MIN });
        };
        check(None, 0..90, 0);
        check(None, 30..90, 30);
        check(Some(position(40, 60)), 0..90, 40);
        check(Some(position(40, 60)), 40..90, 40);
        // Trimmed into the open chunk: what the store has of it is not folded again.
        check(Some(position(40, 60)), 50..90, 60);
        check(Some(position(40, 60)), 60..90, 60);
        // Beyond it: some was never folded.
        check(Some(position(40, 60)), 70..90, 70);
        // A store that lost the open chunk's cells with the process.
        check(Some(position(40, 40)), 50..90, 50);
        let ahead = resume_at(0, Some(position(91, 95)), &(0..90));
        assert!(matches!(ahead, Err(RunError::Ahead { stored: 91, end: 90, .. })));
    }
}
