//! How far the log is ahead, asked beside the loop and seldom: a backend may need a round trip for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use flagmint_log::DecisionLog;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::limits::{LAG_INTERVAL, LAG_WAIT};

/// Knows the ends of partitions, about a second old.
pub(super) struct Meter<L> {
    log: Arc<L>,
    watched: Vec<u32>,
    ends: BTreeMap<u32, u64>,
    asked: JoinSet<Option<(u32, u64)>>,
    next: Instant,
}

impl<L: DecisionLog> Meter<L> {
    pub fn new(log: Arc<L>) -> Self {
        Self { log, watched: Vec::new(), ends: BTreeMap::new(), asked: JoinSet::new(), next: Instant::now() }
    }

    /// These and no other partitions are asked for.
    pub fn watch(&mut self, partitions: impl Iterator<Item = u32>) {
        self.watched.clear();
        self.watched.extend(partitions);
        let watched = &self.watched;
        self.ends.retain(|partition, _| watched.contains(partition));
    }

    /// Records between `next_offset` and the end of the partition as last heard. (Offsets that hold no record count, too.)
    pub fn records_behind(&self, partition: u32, next_offset: u64) -> u64 {
        self.ends.get(&partition).map_or(0, |end| end.saturating_sub(next_offset))
    }

    /// Completes each time that all ends were asked for. Goes on where it was if dropped.
    pub async fn measured(&mut self) {
        if self.asked.is_empty() {
            sleep_until(self.next).await;
            for partition in self.watched.iter().copied() {
                let log = Arc::clone(&self.log);
                self.asked.spawn(async move {
                    let bounds = tokio::time::timeout(LAG_WAIT, log.bounds(partition)).await.ok()?.ok()?;
                    Some((partition, bounds.end))
                });
            }
            self.next = Instant::now() + LAG_INTERVAL;
        }
        while let Some(answer) = self.asked.join_next().await {
            // Who did not answer is asked again; what was heard before stays.
            if let Ok(Some((partition, end))) = answer {
                self.ends.insert(partition, end);
            }
        }
    }
}
