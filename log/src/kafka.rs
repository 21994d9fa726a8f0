//! The log of the distributed mode: a topic of Apache Kafka.
//!
//! One record is one batch: its header travels as a record header, its payload as the value. Records are confirmed once all in-sync
//! replicas have them. The append time is the leader's clock ([`DecisionLog`] says what that means). Retention is the topic's:
//! [`trim`](DecisionLog::trim) removes nothing.
//!
//! | metric | counts |
//! |---|---|
//! | `flagmint_log_queue_full_total{limit}` | records pushed back because too many `records` or `bytes` wait for the brokers |
//! | `flagmint_log_too_large_total` | records refused for their size |
//! | `flagmint_log_kafka_producers_replaced_total` | producers that failed and were made again |
//! | `flagmint_log_kafka_records_resent_total` | records that were given to another producer |
//! | `flagmint_log_kafka_fetch_errors_total` | errors while fetching |
//! | `flagmint_log_kafka_pauses_total` | times a partition was paused because its readers are slower than the brokers |
//! | `flagmint_log_kafka_consumers_replaced_total` | consumers that stalled and were made again |
//! | `flagmint_log_kafka_rebalances_total{change}` | times partitions were `assigned`, `revoked` or `lost` |
//! | `flagmint_log_kafka_commit_errors_total` | commits that the group did not take |

mod buffer;
mod client;
mod fetcher;
mod group;
mod options;
mod producer;
mod reader;
mod sender;
mod side_topics;
mod topic;
mod topic_id;

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use self::options::KafkaOptions;
pub use self::side_topics::{SideTopics, UsageEvent};

use self::client::Broker;
use self::group::Member;
use self::producer::KafkaProducer;
use self::reader::Reader;
use self::topic::Topic;
use crate::{Append, Assignment, DecisionLog, LogError, Record, limits};

/// Name of the record header that holds a batch header: one letter, as it is in every record.
const HEADER: &str = "h";

/// How often the topic's id is asked for, to notice that it was made again.
const EPOCH_CHECK: Duration = Duration::from_secs(5);

/// A [`DecisionLog`] in Kafka. Dropping it waits two seconds at most for what is not confirmed.
#[derive(Debug)]
pub struct KafkaLog {
    options: KafkaOptions,
    partitions: u32,
    connection: Arc<Connection>,
    /// Looks for the brokers of a log that was opened without any.
    connecting: Option<tokio::task::JoinHandle<()>>,
    /// Entered by the first who asks for an assignment: many only append.
    member: OnceLock<Result<Member, LogError>>,
}

/// What is there once brokers have answered, and why it is not until then.
#[derive(Debug, Default)]
struct Connection {
    open: OnceLock<Open>,
    trouble: Mutex<String>,
}

/// Brokers that have answered, and their topic, which is as it must be.
#[derive(Debug)]
struct Open {
    epoch: u64,
    partitions: u32,
    producer: KafkaProducer,
    reader: Reader,
    /// The topic is another than the one that was opened.
    failure: Arc<OnceLock<LogError>>,
    epoch_check: tokio::task::JoinHandle<()>,
}

impl Open {
    async fn connect(options: &KafkaOptions, within: Duration) -> Result<Self, LogError> {
        let broker = Broker::connect(options, within).await?;
        let partitions = Topic::decisions(options).ensure(&broker, options).await?;
        let topic_id = topic_id::topic_id(&broker, &options.topic).await?;
        let reader = Reader::new(options.clone(), partitions, broker.clone());
        let producer = KafkaProducer::start(options.clone(), reader.on_confirmed())?;
        let failure = Arc::new(OnceLock::new());
        let epoch = topic_id::epoch(topic_id, options.epoch_bump);
        let epoch_check = tokio::spawn(check_epoch(broker, options.topic.clone(), topic_id, failure.clone()));
        Ok(Self { epoch, partitions, producer, reader, failure, epoch_check })
    }

    fn check(&self) -> Result<(), LogError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.epoch_check.abort();
    }
}

impl KafkaLog {
    /// Connects, creates the topic unless it is there, and checks its settings.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: an option, a credential or a setting of the topic is wrong; the text says which and what to do.
    /// [`LogError::Retry`]: no broker answers.
    pub async fn open(options: KafkaOptions) -> Result<Self, LogError> {
        Self::open_within(options, limits::KAFKA_CONNECT_TIMEOUT).await
    }

    async fn open_within(options: KafkaOptions, within: Duration) -> Result<Self, LogError> {
        options.validate()?;
        let open = Open::connect(&options, within).await?;
        let partitions = open.partitions;
        let connection = Connection { open: open.into(), trouble: Mutex::default() };
        Ok(Self { options, partitions, connection: Arc::new(connection), connecting: None, member: OnceLock::new() })
    }

    /// The same for a process that only appends, which need not wait for Kafka: where no broker answers, the log says so to every call
    /// ([`LogError::Retry`]) and goes on looking for one. Until then it has no epoch (0), and ever after as many partitions as `options`
    /// ask for, even if the topic has more: any of them takes any record.
    ///
    /// # Errors
    /// [`LogError::Refuse`]: as [`KafkaLog::open`], where a broker answers.
    pub async fn open_to_append(options: KafkaOptions) -> Result<Self, LogError> {
        match Self::open_within(options.clone(), limits::KAFKA_APPENDER_WAIT).await {
            Err(LogError::Retry(reason)) => {
                tracing::warn!(reason, "started without Kafka; it is looked for");
                let partitions = options.partitions;
                let connection = Arc::new(Connection { open: OnceLock::new(), trouble: Mutex::new(reason) });
                let connecting = Some(tokio::spawn(connect_later(options.clone(), Arc::clone(&connection))));
                Ok(Self { options, partitions, connection, connecting, member: OnceLock::new() })
            }
            opened => opened,
        }
    }

    fn opened(&self) -> Result<&Open, LogError> {
        self.connection.open.get().ok_or_else(|| LogError::Retry(lock(&self.connection.trouble).clone()))
    }
}

fn lock(trouble: &Mutex<String>) -> MutexGuard<'_, String> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for brokers until some have answered and the topic is as it must be.
async fn connect_later(options: KafkaOptions, connection: Arc<Connection>) {
    loop {
        match Open::connect(&options, limits::KAFKA_CONNECT_TIMEOUT).await {
            Ok(open) => {
                tracing::info!(topic = options.topic, "Kafka is there");
                let _ = connection.open.set(open);
                return;
            }
            Err(LogError::Retry(reason)) => *lock(&connection.trouble) = reason,
            Err(LogError::Refuse(reason) | LogError::Fatal(reason)) => {
                tracing::error!(reason, "nothing can be appended until this is mended");
                *lock(&connection.trouble) = reason;
            }
        }
        tokio::time::sleep(limits::KAFKA_RECONNECT_PAUSE.1).await;
    }
}

/// Watches until the topic is no longer the one that was opened. Offsets then mean other records, and readers must begin anew.
async fn check_epoch(broker: Broker, topic: String, opened: u128, failure: Arc<OnceLock<LogError>>) {
    loop {
        tokio::time::sleep(EPOCH_CHECK).await;
        // No answer, or no topic at the moment: its records may come back, another topic's will not be taken for them.
        let Ok(found) = topic_id::topic_id(&broker, &topic).await else { continue };
        if found != opened {
            let text =
                format!("the Kafka topic {topic} was deleted and made again: open it again, to begin with the new one");
            tracing::error!(topic, "{text}");
            let _ = failure.set(LogError::Fatal(text));
            return;
        }
    }
}

impl DecisionLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn epoch(&self) -> u64 {
        self.connection.open.get().map_or(0, |open| open.epoch)
    }

    fn append(&self, append: Append) -> impl Future<Output = Result<u64, LogError>> + Send {
        let receipt = self.opened().and_then(|open| {
            open.reader.partition(append.partition)?;
            let record_bytes = append.header.len() + append.payload.len();
            if record_bytes > limits::RECORD_BYTES {
                metrics::counter!("flagmint_log_too_large_total").increment(1);
                let allowed = limits::RECORD_BYTES;
                let text = format!("a record of {record_bytes} bytes is larger than the allowed {allowed}");
                return Err(LogError::Refuse(text));
            }
            open.producer.append(append)
        });
        async move { receipt?.await.unwrap_or_else(|_closed| Err(closed_early())) }
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let open = self.opened()?;
        open.check()?;
        open.reader.read(partition, from, max_bytes).await
    }

    async fn wait_beyond(&self, partition: u32, after: u64) -> Result<(), LogError> {
        let open = self.opened()?;
        let mut waiting = std::pin::pin!(open.reader.wait_beyond(partition, after));
        loop {
            open.check()?;
            if let Ok(result) = tokio::time::timeout(EPOCH_CHECK, waiting.as_mut()).await {
                return result;
            }
        }
    }

    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        let open = self.opened()?;
        open.check()?;
        open.reader.bounds(partition).await
    }

    /// Kafka's retention removes records; here only the argument is checked.
    async fn trim(&self, _before_append_time_us: i64, folded: &[u64]) -> Result<u64, LogError> {
        if folded.len() == self.partitions as usize {
            return Ok(0);
        }
        Err(LogError::Refuse(format!(
            "{} folded offsets were given, the topic has {} partitions",
            folded.len(),
            self.partitions
        )))
    }

    /// Enters the consumer group at the first call. If that is refused, the assignment stays empty.
    fn assignment(&self) -> watch::Receiver<Assignment> {
        match self.member.get_or_init(|| Member::join(&self.options, self.partitions)) {
            Ok(member) => member.assignment(),
            Err(error) => {
                tracing::error!(%error, "the group cannot be entered: nothing is folded here");
                watch::Sender::default().subscribe()
            }
        }
    }

    fn commit(&self, partition: u32, chunk_start: u64) {
        if let Some(Ok(member)) = self.member.get() {
            member.commit(partition, chunk_start);
        }
    }
}

fn closed_early() -> LogError {
    LogError::Retry("the log was closed before the brokers confirmed this record: it may have been written".to_owned())
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        if let Some(connecting) = &self.connecting {
            connecting.abort();
        }
    }
}
