//! One partition of the log being folded: where it starts, and reading on.

use std::ops::Range;

use flagmint_log::{DecisionLog, LogError, Record};
use flagmint_store::Position;

use super::RunError;
use crate::fold::{DeadLetter, FoldLimits, PartitionFold, Resume, Verdict};
use crate::limits::{INLINE_BYTES, PRIME_US, READ_BYTES, RETRY_WAIT};

/// A partition and its fold.
#[derive(Debug)]
pub(super) struct Partition {
    pub number: u32,
    /// Away only while a blocking thread works on it.
    fold: Option<Box<PartitionFold>>,
    pub is_stopped: bool,
}

/// What one reading brought.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub records: u64,
    pub dead_letters: Vec<DeadLetter>,
}

impl Partition {
    /// Finds out where the fold of a partition starts and reads what precedes that.
    pub async fn open<L: DecisionLog>(
        log: &L,
        number: u32,
        stored: Option<Position>,
        limits: FoldLimits,
    ) -> Result<Self, RunError> {
        let bounds = log.bounds(number).await?;
        let resume = resume_at(number, stored, &bounds)?;
        let mut distance = limits.duplicate_window_records as u64;
        let fold = loop {
            let from = prime_from(log, number, &bounds, resume.chunk, distance).await?;
            let from = from.saturating_sub(limits.duplicate_window_records as u64).max(bounds.start);
            let mut fold = PartitionFold::new(log.epoch(), number, resume, limits);
            let primed = prime(log, &mut fold, number, from..resume.chunk).await?;
            if from == bounds.start || primed >= limits.duplicate_window_records as u64 {
                break fold;
            }
            // Offsets were skipped: the window's records lie further back.
            distance = 2 * (resume.chunk - from);
        };
        Ok(Self { number, fold: Some(Box::new(fold)), is_stopped: false })
    }

    pub fn fold(&self) -> &PartitionFold {
        self.fold.as_ref().expect("it is back whenever nobody awaits a step")
    }

    pub fn fold_mut(&mut self) -> &mut PartitionFold {
        self.fold.as_mut().expect("it is back whenever nobody awaits a step")
    }

    /// Reads once and folds what came.
    pub async fn step<L: DecisionLog>(&mut self, log: &L) -> Result<Step, RunError> {
        if self.is_stopped {
            return Ok(Step::default());
        }
        let records = match log.read(self.number, self.fold().next_offset(), READ_BYTES).await {
            Ok(records) => records,
            Err(LogError::Retry(reason)) => {
                tracing::warn!(partition = self.number, reason, "the log cannot be read now; it is tried again");
                tokio::time::sleep(RETRY_WAIT.0).await;
                return Ok(Step::default());
            }
            Err(error) => return Err(error.into()),
        };
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        let mut fold = self.fold.take().expect("it is back whenever nobody awaits a step");
        let work = move || {
            let step = fold_all(&mut fold, &records);
            (fold, step)
        };
        let (fold, step) = if bytes < INLINE_BYTES {
            work()
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|error| RunError::Fold(error.to_string()))?
        };
        if fold.is_poisoned() {
            self.is_stopped = true;
            metrics::gauge!("flagmint_aggregator_stopped_partitions").increment(1.0);
            tracing::error!(
                partition = self.number,
                offset = fold.next_offset(),
                "too many unreadable records: partition stopped"
            );
        }
        self.fold = Some(fold);
        Ok(step)
    }
}

/// Folds records in order until there are no more or the fold is poisoned.
fn fold_all(fold: &mut PartitionFold, records: &[Record]) -> Step {
    let mut step = Step::default();
    for record in records {
        match fold.fold(record) {
            Verdict::Folded | Verdict::Old => {}
            Verdict::Duplicate => metrics::counter!("flagmint_aggregator_duplicate_records_total").increment(1),
            Verdict::Parked(letter) => step.dead_letters.push(*letter),
        }
        step.records += 1;
        if fold.is_poisoned() {
            break;
        }
    }
    step
}

fn resume_at(number: u32, stored: Option<Position>, bounds: &Range<u64>) -> Result<Resume, RunError> {
    let start = Resume { chunk: bounds.start, complete_through_us: i64::MIN };
    let Some(position) = stored else { return Ok(start) };
    if position.chunk > bounds.end {
        return Err(RunError::Ahead { partition: number, stored: position.chunk, end: bounds.end });
    }
    if position.chunk < bounds.start {
        metrics::counter!("flagmint_aggregator_trimmed_records_total").increment(bounds.start - position.chunk);
        tracing::error!(
            partition = number,
            from = position.chunk,
            to = bounds.start,
            "the log was trimmed before its records were folded: they are missing from all counts"
        );
    }
    Ok(Resume { chunk: position.chunk.max(bounds.start), complete_through_us: position.complete_through_us })
}

/// How far before `chunk` the reading starts: at least `distance` offsets and [`PRIME_US`] of append time.
async fn prime_from<L: DecisionLog>(
    log: &L,
    number: u32,
    bounds: &Range<u64>,
    chunk: u64,
    mut distance: u64,
) -> Result<u64, LogError> {
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
        let records = log.read(number, at, READ_BYTES).await?;
        let Some(last) = records.last() else { break };
        at = last.offset + 1;
        for record in records.iter().filter(|record| record.offset < range.end) {
            fold.prime(record);
            primed += 1;
        }
    }
    Ok(primed)
}
