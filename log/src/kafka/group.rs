//! Membership in the consumer group: which partitions this process is to fold, and how far it is, told to the group.
//!
//! The member reads nothing: its partitions are paused, and reading goes through a consumer of its own, which no rebalance disturbs.
//! Who folds a partition that another process took over meanwhile does no harm, since cells merge by maximum.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::watch;

use super::client::Context;
use super::options::KafkaOptions;
use crate::{Assignment, LogError, limits};

/// How long one poll waits; commits and the end of the log are noticed in between.
const POLL: Duration = Duration::from_millis(100);

/// How often positions are committed at most: they matter to tools and alarms only.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// A member of the group, and the thread that keeps it one.
#[derive(Debug)]
pub(super) struct Member {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    options: KafkaOptions,
    /// Partitions of the topic when it was opened; those added later wait for a restart.
    partitions: u32,
    assignment: watch::Sender<Assignment>,
    asked: Mutex<Asked>,
}

/// What the thread is asked for.
#[derive(Debug, Default)]
struct Asked {
    /// Newest chunk starts not committed yet.
    commits: BTreeMap<u32, u64>,
    is_stopping: bool,
}

impl Shared {
    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds partitions to what is assigned, or takes them away.
    fn change(&self, changed: &TopicPartitionList, is_added: bool) {
        let numbers: BTreeSet<u32> =
            changed.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
        let unknown = numbers.iter().filter(|number| **number >= self.partitions).count();
        if is_added && unknown > 0 {
            tracing::error!(
                unknown,
                "the topic has more partitions than when it was opened: restart, to fold them, too"
            );
        }
        self.assignment.send_modify(|assignment| {
            let mut partitions: BTreeSet<u32> = assignment.partitions.iter().copied().collect();
            if is_added {
                partitions.extend(numbers.iter().filter(|number| **number < self.partitions));
            } else {
                partitions.retain(|number| !numbers.contains(number));
            }
            *assignment =
                Assignment { generation: assignment.generation + 1, partitions: partitions.into_iter().collect() };
        });
    }

    fn clear(&self) {
        self.assignment.send_modify(|assignment| {
            *assignment = Assignment { generation: assignment.generation + 1, partitions: Vec::new() };
        });
    }
}

/// Takes what the group says.
struct Membership {
    context: Context,
    shared: Arc<Shared>,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, change: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let is_cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let (name, result) = if change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // From the beginning, so that no committed offset is asked for; they are paused and read nothing.
            let result = partitions
                .set_all_offsets(Offset::Offset(0))
                .and_then(|()| {
                    if is_cooperative { consumer.incremental_assign(partitions) } else { consumer.assign(partitions) }
                })
                .and_then(|()| consumer.pause(partitions));
            self.shared.change(partitions, true);
            ("assigned", result)
        } else {
            let name = if consumer.assignment_lost() { "lost" } else { "revoked" };
            // Before the group hears of it: the next owner starts when we know that we are none.
            self.shared.change(partitions, false);
            (name, if is_cooperative { consumer.incremental_unassign(partitions) } else { consumer.unassign() })
        };
        metrics::counter!("flagmint_log_kafka_rebalances_total", "change" => name).increment(1);
        tracing::info!(change = name, partitions = partitions.count(), "the group has rebalanced");
        if let Err(error) = result {
            tracing::warn!(%error, "the Kafka consumer does not follow the group");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            metrics::counter!("flagmint_log_kafka_commit_errors_total").increment(1);
            // They set no position that anybody resumes from; the next ones follow.
            tracing::debug!(%error, partitions = offsets.count(), "positions were not committed");
        }
    }
}

impl Member {
    /// Enters the group.
    pub(super) fn join(options: &KafkaOptions, partitions: u32) -> Result<Self, LogError> {
        let shared = Arc::new(Shared {
            options: options.clone(),
            partitions,
            assignment: watch::Sender::default(),
            asked: Mutex::default(),
        });
        let consumer = connect(&shared)?;
        let thread = std::thread::Builder::new()
            .name("kafka-group".to_owned())
            .spawn({
                let shared = shared.clone();
                move || run(&shared, consumer)
            })
            .map_err(|error| LogError::Retry(format!("cannot start the thread of the group: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn assignment(&self) -> watch::Receiver<Assignment> {
        self.shared.assignment.subscribe()
    }

    pub(super) fn commit(&self, partition: u32, chunk_start: u64) {
        if partition < self.shared.partitions {
            self.shared.asked().commits.insert(partition, chunk_start);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.asked().is_stopping = true;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the Kafka group panicked");
        }
    }
}

/// A consumer that has subscribed, once and for all: the same list again would make the group rebalance.
fn connect(shared: &Arc<Shared>) -> Result<BaseConsumer<Membership>, LogError> {
    let membership = Membership { context: Context::default(), shared: shared.clone() };
    let consumer = BaseConsumer::from_config_and_context(&shared.options.member(), membership)
        .map_err(|error| LogError::Refuse(format!("the Kafka consumer of the group cannot be set up: {error}")))?;
    consumer.subscribe(&[&shared.options.topic]).map_err(|error| {
        LogError::Refuse(format!("cannot subscribe to the Kafka topic {}: {error}", shared.options.topic))
    })?;
    Ok(consumer)
}

/// Keeps the membership until the log is closed. A consumer that fails for good (its instance name was taken by another process, say) is
/// made again.
fn run(shared: &Arc<Shared>, first: BaseConsumer<Membership>) {
    let mut consumer = Some(first);
    let mut pause = limits::KAFKA_PRODUCER_PAUSE.0;
    loop {
        if let Some(failed) = consumer.take() {
            let Some(failure) = serve(shared, &failed) else { return };
            metrics::counter!("flagmint_log_kafka_consumers_replaced_total").increment(1);
            tracing::error!(failure, "the membership in the Kafka group has failed; it is taken up again");
            shared.clear();
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(limits::KAFKA_PRODUCER_PAUSE.1);
        if shared.asked().is_stopping {
            return;
        }
        consumer = connect(shared).inspect_err(|error| tracing::error!(%error, "the group cannot be entered")).ok();
    }
}

/// Polls until the log is closed (then none) or the consumer fails for good.
fn serve(shared: &Shared, consumer: &BaseConsumer<Membership>) -> Option<String> {
    let mut committed_at = Instant::now();
    let mut last_error = None;
    loop {
        if let Some(Err(error)) = consumer.poll(POLL) {
            if let Some((code, reason)) = consumer.client().fatal_error() {
                return Some(format!("{code}: {reason}"));
            }
            if last_error.as_ref() != Some(&error) {
                tracing::warn!(%error, "the Kafka group reports an error");
            }
            last_error = Some(error);
        }
        let mut asked = shared.asked();
        let is_stopping = asked.is_stopping;
        let commits = if is_stopping || committed_at.elapsed() >= COMMIT_INTERVAL {
            std::mem::take(&mut asked.commits)
        } else {
            BTreeMap::new()
        };
        drop(asked);
        if !commits.is_empty() {
            committed_at = Instant::now();
            commit(shared, consumer, &commits);
        }
        if is_stopping {
            return None;
        }
    }
}

/// Commits the positions of partitions that are still ours; the answer comes to the callback.
fn commit(shared: &Shared, consumer: &BaseConsumer<Membership>, commits: &BTreeMap<u32, u64>) {
    let owned = shared.assignment.borrow().partitions.clone();
    let mut offsets = TopicPartitionList::new();
    for (partition, chunk_start) in commits.iter().filter(|(partition, _)| owned.contains(partition)) {
        let (Ok(partition), Ok(offset)) = (i32::try_from(*partition), i64::try_from(*chunk_start)) else { continue };
        if let Err(error) = offsets.add_partition_offset(&shared.options.topic, partition, Offset::Offset(offset)) {
            tracing::warn!(%error, partition, "a position cannot be committed");
        }
    }
    if offsets.count() > 0
        && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
    {
        metrics::counter!("flagmint_log_kafka_commit_errors_total").increment(1);
        tracing::debug!(%error, "positions were not committed");
    }
}
