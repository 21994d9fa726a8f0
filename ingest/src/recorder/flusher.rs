//! The thread that empties the buffers every tick: swaps them, builds and encodes batches, queues them per partition. Buffers that fill
//! up before that are encoded at once, while they are in the caches, and wait for the tick.
//!
//! A thread of its own, so that neither a busy runtime nor a slow log delays it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flagmint_schemas::batch::BatchHeader;
use flagmint_schemas::ids::EnvironmentId;
use flagmint_schemas::limits::HEARTBEAT_INTERVAL_US;

use super::Shared;
use super::assemble::{Assembled, Assembler, Scratch};
use super::environment::EnvironmentState;
use super::payloads::Payloads;
use super::queue::{Item, Queue};
use crate::limits;

const HEARTBEAT_INTERVAL: Duration = Duration::from_micros(HEARTBEAT_INTERVAL_US.unsigned_abs());

/// The flusher's own state.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    queues: Vec<Arc<Queue>>,
    producer: u128,
    partitions: Vec<Partition>,
    scratch: Scratch,
    payloads: Payloads,
    /// Encoded since the last flush, by partition.
    pending: Vec<Vec<Item>>,
    /// Batches of each environment among them.
    batches: HashMap<EnvironmentId, usize>,
}

/// What the flusher knows of a partition.
#[derive(Clone, Copy)]
struct Partition {
    /// The watermark of the last flush, which holds once all of it is in the log.
    watermark_us: i64,
    /// The watermark told last.
    told_us: i64,
    /// When something was last queued.
    queued_at: Option<Instant>,
}

impl Flusher {
    pub(super) fn new(shared: Arc<Shared>, queues: Vec<Arc<Queue>>, producer: u128) -> Self {
        let partitions = vec![Partition { watermark_us: i64::MIN, told_us: i64::MIN, queued_at: None }; queues.len()];
        let pending = vec![Vec::new(); queues.len()];
        let (scratch, payloads) = (Scratch::default(), Payloads::default());
        Self { shared, queues, producer, partitions, scratch, payloads, pending, batches: HashMap::new() }
    }

    /// Flushes until the recorder is closed, then once more, and says goodbye in every partition.
    pub(super) fn run(mut self) {
        while !self.shared.is_closed() {
            let next = Instant::now() + limits::FLUSH_TICK;
            self.flush(false);
            while let Some(rest) = self.rest(next) {
                std::thread::park_timeout(rest);
                if self.rest(next).is_some() {
                    self.gather(&self.shared.environments(), limits::WAKE_DECISIONS);
                }
            }
        }
        self.flush(true);
        self.queues.iter().for_each(|queue| queue.close());
    }

    /// How long it is until `next`, unless there is nothing to wait for any more.
    fn rest(&self, next: Instant) -> Option<Duration> {
        let rest = next.saturating_duration_since(Instant::now());
        (!rest.is_zero() && !self.shared.is_closed()).then_some(rest)
    }

    fn flush(&mut self, is_last: bool) {
        // First the watermark, then the buffers: what was complete before the watermark was taken is in the buffers.
        let watermark_us = self.shared.epochs.advance();
        self.gather(&self.shared.environments_in_use(), 0);
        for partition in 0..self.queues.len() {
            let items = std::mem::take(&mut self.pending[partition]);
            let state = &self.partitions[partition];
            let is_idle = state.queued_at.is_none_or(|at| at.elapsed() >= HEARTBEAT_INTERVAL);
            let is_heartbeat_due = items.is_empty() && (is_idle || state.told_us < state.watermark_us);
            self.queue(partition, items, watermark_us);
            if is_heartbeat_due || is_last {
                let header = BatchHeader { closing: is_last, ..BatchHeader::heartbeat(self.producer) };
                let heartbeat = Item { header, payload: Bytes::new(), ends_flush: false, queued_at: None };
                self.queue(partition, vec![heartbeat], watermark_us);
            }
        }
        self.batches.clear();
        self.shared.report();
    }

    /// Encodes what is in buffers with at least so many decisions.
    fn gather(&mut self, environments: &[Arc<EnvironmentState>], decisions_min: usize) {
        for environment in environments {
            let items = self.take(environment, decisions_min);
            if items.is_empty() {
                continue;
            }
            let before = self.batches.entry(environment.identity.environment).or_default();
            for item in items {
                self.pending[place(environment.partition, *before, self.queues.len())].push(item);
                *before += 1;
            }
        }
    }

    /// The encoded batches of one environment.
    fn take(&mut self, environment: &EnvironmentState, decisions_min: usize) -> Vec<Item> {
        let filled = self.shared.take_buffers(environment, decisions_min);
        if filled.is_empty() {
            return Vec::new();
        }
        // Callers are read after the buffers were taken, so each id in them is known.
        let callers = environment.callers();
        let (producer, payloads, mut items) = (self.producer, &self.payloads, Vec::new());
        let emit = |batch: &Assembled<'_>| {
            items.push(encode(producer, environment, batch, payloads));
            // Where requests are answered on the same core, they wait for one batch at most, not for a whole flush.
            std::thread::yield_now();
        };
        let mut assembler = Assembler::new(&callers, &environment.outcomes, &mut self.scratch, emit);
        let mut buffers: Vec<_> = filled.into_iter().map(|shard| environment.spare(shard)).collect();
        if let Some((first, others)) = buffers.split_first_mut() {
            // Shards of little traffic are one batch, not one each.
            for other in others {
                if !first.absorb(other) {
                    assembler.add(other);
                }
            }
            assembler.add(first);
        }
        buffers.iter_mut().for_each(|buffer| buffer.clear());
        let unknown_decisions = assembler.unknown_decisions();
        if unknown_decisions > 0 {
            tracing::error!(
                unknown_decisions,
                "decisions refer to outcomes of another configuration; they are refused"
            );
            self.shared.refuse_taken(environment.identity.environment, unknown_decisions);
        }
        items
    }

    /// Queues one flush of one partition. Its records are appended at once, in whatever order the log takes them, and all of them after
    /// those of the flush before: so they carry the watermark of that one, and their own only if there is a single record.
    fn queue(&mut self, partition: usize, items: Vec<Item>, watermark_us: i64) {
        let state = &mut self.partitions[partition];
        let Some(last) = items.len().checked_sub(1) else { return };
        state.queued_at = Some(Instant::now());
        state.told_us = if last == 0 { watermark_us } else { state.watermark_us };
        for (index, mut item) in items.into_iter().enumerate() {
            item.ends_flush = index == last;
            item.header.low_watermark_us = state.told_us;
            let header = item.header;
            if self.queues[partition].push(item, &self.shared.space).is_err() {
                self.shared.refuse_taken(header.environment, u64::from(header.decisions));
            }
        }
        state.watermark_us = watermark_us;
    }
}

fn encode(producer: u128, environment: &EnvironmentState, batch: &Assembled<'_>, payloads: &Payloads) -> Item {
    let identity = environment.identity;
    let codec = batch.codec();
    let times = || batch.calls.iter().map(|call| call.event_time_us);
    let header = BatchHeader {
        codec,
        organization: identity.organization,
        project: identity.project,
        environment: identity.environment,
        decisions: batch.decisions.len() as u32,
        calls: batch.calls.len() as u32,
        event_time_min_us: times().min().unwrap_or_default(),
        event_time_max_us: times().max().unwrap_or_default(),
        pseudonym_key: environment.pseudonym_key(),
        ..BatchHeader::heartbeat(producer)
    };
    let mut payload = payloads.take();
    batch.encode_to(codec, &mut payload);
    Item { header, payload: payloads.seal(payload), ends_flush: false, queued_at: None }
}

/// The partition of an environment's `batch`th batch in one flush: its own, and the ones after it when a flush is more than one
/// partition should take. Whatever partitions an environment's batches are in, their cells add up to the same totals, and each
/// partition's watermark holds for what was put there.
fn place(own: u32, batch: usize, partitions: usize) -> usize {
    (own as usize + batch / limits::FLUSH_BATCHES_PER_PARTITION) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_environment_goes_on_in_the_next_partitions() {
        const EACH: usize = limits::FLUSH_BATCHES_PER_PARTITION;
        let cases = [
            ((2, 0, 5), 2),
            ((2, EACH - 1, 5), 2),
            ((2, EACH, 5), 3),
            ((4, EACH, 5), 0),
            ((4, 3 * EACH + 1, 5), 2),
            ((0, 9 * EACH, 1), 0),
        ];
        for ((own, batch, partitions), expected) in cases {
            assert_eq!(place(own, batch, partitions), expected, "batch {batch} of partition {own} of {partitions}");
        }
    }
}
