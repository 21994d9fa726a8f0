//! Appends one partition's records to the log, in order, for as long as it takes.
//!
//! The records of one flush go together, and those of the next when all of them are durable: what the next say of the watermark holds then.

use std::sync::Arc;
use std::task::Poll;

use flagmint_log::{Append, DecisionLog, LogError};
use flagmint_schemas::batch::BatchHeader;
use futures::poll;

use super::queue::{Item, Queue};
use super::{Health, Shared};
use crate::limits;

/// Runs until the queue is closed and empty, or the log has failed for good.
pub(super) async fn run(log: Arc<impl DecisionLog>, partition: u32, queue: Arc<Queue>, shared: Arc<Shared>) {
    loop {
        let Some((origin, items)) = queue.peek(&shared.space) else {
            if queue.is_finished() {
                return;
            }
            queue.changed.notified().await;
            continue;
        };
        let mut flush = Flush { log: &*log, partition, shared: &shared, refused: Vec::new(), reason: None };
        if let Err(reason) = flush.append(&items).await {
            tracing::error!(partition, reason, "the log has failed; decisions go to the spool until it is full");
            shared.set_health(Health::LogFailed { reason });
            return;
        }
        let refused = flush.refused;
        queue.acknowledge(origin, &items, &shared.space);
        shared.appended(&items, &refused);
    }
}

/// The appending of one flush.
struct Flush<'a, L> {
    log: &'a L,
    partition: u32,
    shared: &'a Shared,
    /// Headers of records that the log will never take.
    refused: Vec<BatchHeader>,
    /// Why the log wants records later.
    reason: Option<String>,
}

impl<L: DecisionLog> Flush<'_, L> {
    /// Appends records until each is durable.
    async fn append(&mut self, items: &[Item]) -> Result<(), String> {
        let mut rest: Vec<&Item> = items.iter().collect();
        let mut pause = limits::RETRY_PAUSE_MIN;
        while !rest.is_empty() {
            rest = self.offer(rest).await?;
            if !rest.is_empty() {
                self.shared.set_health(Health::LogBehind { reason: self.reason.clone() });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::RETRY_PAUSE_MAX);
            }
        }
        self.shared.set_health(Health::Appending);
        Ok(())
    }

    /// Offers records once, in order, and none after one that was not taken at once; returns those that the log wants later.
    async fn offer<'i>(&mut self, items: Vec<&'i Item>) -> Result<Vec<&'i Item>, String> {
        let mut offered = Vec::with_capacity(items.len());
        let mut later = Vec::new();
        for item in items {
            if !later.is_empty() {
                later.push(item);
                continue;
            }
            let header = item.header.encode().to_vec().into();
            let append = Append { partition: self.partition, header, payload: item.payload.clone() };
            let mut append = Box::pin(self.log.append(append));
            match poll!(append.as_mut()) {
                Poll::Pending => offered.push((item, append)),
                Poll::Ready(result) => later.extend(self.settle(item, result)?),
            }
        }
        let mut again = Vec::new();
        for (item, append) in offered {
            let result = self.wait(append).await;
            again.extend(self.settle(item, result)?);
        }
        again.extend(later);
        Ok(again)
    }

    /// Waits for a record that the log has taken in; a log that lets it wait for long is behind.
    async fn wait(&self, mut append: impl Future<Output = Result<u64, LogError>> + Unpin) -> Result<u64, LogError> {
        if let Ok(result) = tokio::time::timeout(limits::SPOOL_AFTER, &mut append).await {
            return result;
        }
        self.shared.set_health(Health::LogBehind { reason: None });
        append.await
    }

    /// The item if it must be offered again.
    fn settle<'i>(&mut self, item: &'i Item, result: Result<u64, LogError>) -> Result<Option<&'i Item>, String> {
        match result {
            Ok(_offset) => Ok(None),
            Err(LogError::Retry(reason)) => {
                self.reason = Some(reason);
                Ok(Some(item))
            }
            Err(LogError::Refuse(reason)) => {
                tracing::error!(reason, decisions = item.header.decisions, "the log refuses a batch for good");
                self.refused.push(item.header);
                Ok(None)
            }
            Err(LogError::Fatal(reason)) => Err(reason),
        }
    }
}
