//! One partition of the log being folded: reading on, and how far that is.

use std::time::Duration;

use flagmint_log::{DecisionLog, LogError, Record, wall_clock_us};
use flagmint_store::Position;
use tokio::time::Instant;

use super::RunError;
use super::lag::Meter;
use super::status::PartitionStatus;
use crate::fold::{DeadLetter, PartitionFold, Resume, Verdict};
use crate::limits::{INLINE_BYTES, RETRY_WAIT};

/// A partition and its fold.
pub(super) struct Partition {
    pub number: u32,
    /// Away only while a blocking thread works on it.
    fold: Option<Box<PartitionFold>>,
    pub is_stopped: bool,
    /// The log could not be read: when to try again, and how long to wait if that fails, too.
    retry: Option<(Instant, Duration)>,
    /// What the store has: up to here, in chunks before the open one, and the watermark.
    stored: Position,
    last_append_us: i64,
    gauges: Gauges,
}

struct Gauges {
    lag_records: metrics::Gauge,
    lag_seconds: metrics::Gauge,
    replay_records: metrics::Gauge,
}

/// What one reading brought.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub records: u64,
    pub dead_letters: Vec<DeadLetter>,
    last_append_us: i64,
}

impl Folded {
    /// How long ago the last of them was appended.
    pub fn age(&self) -> Duration {
        let age_us = if self.records == 0 { 0 } else { wall_clock_us().saturating_sub(self.last_append_us) };
        Duration::from_micros(u64::try_from(age_us).unwrap_or_default())
    }
}

/// What came of reading.
#[derive(Debug)]
pub(super) enum Reading {
    Folded(Folded),
    /// The log cannot be read now.
    Later(String),
    /// The log does not have the offset that comes next.
    Gone(String),
}

impl Partition {
    /// A partition whose fold stands at `resume` and knows what precedes that.
    pub fn new(fold: PartitionFold, number: u32, epoch: u64, resume: Resume) -> Self {
        let Resume { chunk, complete_through_us } = resume;
        Self {
            number,
            fold: Some(Box::new(fold)),
            is_stopped: false,
            retry: None,
            stored: Position { epoch, partition: number, chunk, next_offset: chunk, complete_through_us },
            last_append_us: i64::MAX,
            gauges: Gauges::new(number),
        }
    }

    pub fn fold(&self) -> &PartitionFold {
        self.fold.as_ref().expect("it is back whenever nobody awaits a step")
    }

    pub fn fold_mut(&mut self) -> &mut PartitionFold {
        self.fold.as_mut().expect("it is back whenever nobody awaits a step")
    }

    /// Whether it is to be read now.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.is_stopped && self.retry.is_none_or(|(at, _)| at <= now)
    }

    pub fn retry_at(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    /// Reads once and folds what came.
    pub async fn step<L: DecisionLog>(&mut self, log: &L, max_bytes: usize) -> Result<Reading, RunError> {
        let records = match log.read(self.number, self.fold().next_offset(), max_bytes).await {
            Ok(records) => records,
            Err(LogError::Retry(reason)) => {
                tracing::warn!(partition = self.number, reason, "the log cannot be read now; it is tried again");
                let wait = self.retry.map_or(RETRY_WAIT.0, |(_, wait)| wait);
                self.retry = Some((Instant::now() + wait, (wait * 2).min(RETRY_WAIT.1)));
                return Ok(Reading::Later(reason));
            }
            Err(LogError::Refuse(reason)) => return Ok(Reading::Gone(reason)),
            Err(error) => return Err(error.into()),
        };
        self.retry = None;
        if records.is_empty() {
            return Ok(Reading::Folded(Folded::default()));
        }
        let folded = self.fold_records(records).await?;
        self.last_append_us = folded.last_append_us;
        if self.fold().is_poisoned() {
            self.is_stopped = true;
            metrics::gauge!("flagmint_aggregator_stopped_partitions").increment(1.0);
            let offset = self.fold().next_offset();
            tracing::error!(partition = self.number, offset, "too many unreadable records: partition stopped");
        }
        Ok(Reading::Folded(folded))
    }

    async fn fold_records(&mut self, records: Vec<Record>) -> Result<Folded, RunError> {
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        metrics::counter!("flagmint_aggregator_read_bytes_total").increment(bytes as u64);
        let mut fold = self.fold.take().expect("it is back whenever nobody awaits a step");
        let work = move || {
            let folded = fold_all(&mut fold, &records);
            (fold, folded)
        };
        let (fold, folded) = if bytes < INLINE_BYTES {
            work()
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|error| RunError::Fold(error.to_string()))?
        };
        self.fold = Some(fold);
        Ok(folded)
    }

    /// Takes note of what the store has; whether chunks are complete in it that were not before.
    pub fn acknowledge(&mut self, position: &Position) -> bool {
        let has_completed = position.chunk > self.stored.chunk;
        self.stored.chunk = self.stored.chunk.max(position.chunk);
        self.stored.next_offset = self.stored.next_offset.max(position.next_offset);
        self.stored.complete_through_us = self.stored.complete_through_us.max(position.complete_through_us);
        has_completed
    }

    /// Where it stands, told to the metrics, too.
    pub fn status<L: DecisionLog>(&self, lag: &Meter<L>) -> PartitionStatus {
        let lag_records = lag.records_behind(self.number, self.fold().next_offset());
        let lag_us = if lag_records == 0 { 0 } else { wall_clock_us().saturating_sub(self.last_append_us).max(0) };
        self.gauges.lag_records.set(lag_records as f64);
        self.gauges.lag_seconds.set(lag_us as f64 / 1e6);
        self.gauges.replay_records.set(self.stored.next_offset.saturating_sub(self.stored.chunk) as f64);
        PartitionStatus {
            partition: self.number,
            emitted_offset: self.stored.next_offset,
            lag_records,
            complete_through_us: self.stored.complete_through_us,
            is_stopped: self.is_stopped,
        }
    }

    /// It is not folded here any more: what its gauges say would mislead.
    pub fn forget_metrics(&self) {
        for gauge in [&self.gauges.lag_records, &self.gauges.lag_seconds, &self.gauges.replay_records] {
            gauge.set(0.0);
        }
        if self.is_stopped {
            metrics::gauge!("flagmint_aggregator_stopped_partitions").decrement(1.0);
        }
    }
}

impl Gauges {
    fn new(partition: u32) -> Self {
        let partition = partition.to_string();
        Self {
            lag_records: metrics::gauge!("flagmint_aggregator_lag_records", "partition" => partition.clone()),
            lag_seconds: metrics::gauge!("flagmint_aggregator_lag_seconds", "partition" => partition.clone()),
            replay_records: metrics::gauge!("flagmint_aggregator_replay_records", "partition" => partition),
        }
    }
}

/// Folds records in order until there are no more or the fold is poisoned.
fn fold_all(fold: &mut PartitionFold, records: &[Record]) -> Folded {
    let mut folded = Folded::default();
    for record in records {
        match fold.fold(record) {
            Verdict::Folded | Verdict::Old => {}
            Verdict::Duplicate => metrics::counter!("flagmint_aggregator_duplicate_records_total").increment(1),
            Verdict::Parked(letter) => folded.dead_letters.push(*letter),
        }
        folded.records += 1;
        folded.last_append_us = record.append_time_us;
        // Where requests are answered on the same core, they wait for one record at most, not for all that was read.
        std::thread::yield_now();
        if fold.is_poisoned() {
            break;
        }
    }
    folded
}
