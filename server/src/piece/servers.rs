//! The servers of a distributed installation, reached with what the options say. What has to be changed in the options ends with status 2; what
//! may work later, as it is, with status 3.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use flagmint_log::LogError;
use flagmint_log::kafka::{KafkaLog, KafkaOptions, SideTopics};
use flagmint_schemas::batch::BatchHeader;
use flagmint_store::StoreError;
use flagmint_store::clickhouse::{self as rollups, ClickHouseStore};
use rustix::fs::{FlockOperation, flock};

use super::folding::Reopen;
use crate::exit::Failure;
use crate::options::servers::{ClickHouse, Kafka};

/// How to open the log that the options name; `instance` is this process's name among its readers.
///
/// # Errors
/// If the options name none or make no sense.
pub fn kafka_options(kafka: &Kafka, instance: Option<String>) -> Result<KafkaOptions, Failure> {
    Ok(KafkaOptions {
        partitions: kafka.kafka_partitions,
        replicas: kafka.kafka_replicas,
        retention: kafka.kafka_retention,
        group: kafka.kafka_group.clone(),
        session_timeout: kafka.kafka_session_timeout,
        instance,
        key: BatchHeader::ENVIRONMENT,
        properties: kafka.properties()?,
        ..KafkaOptions::new(kafka.brokers()?, kafka.kafka_topic.clone())
    })
}

/// Opens the log.
///
/// # Errors
/// If no broker answers, or a credential, a property or the topic is not as it must be.
pub async fn kafka(options: KafkaOptions) -> Result<KafkaLog, Failure> {
    let brokers = options.brokers.clone();
    KafkaLog::open(options).await.map_err(|error| refused_by_kafka(&brokers, error))
}

/// Opens the log for a process that only appends: whether a broker answers or not.
///
/// # Errors
/// As [`kafka`], where one answers.
pub async fn kafka_to_append(options: KafkaOptions) -> Result<KafkaLog, Failure> {
    let brokers = options.brokers.clone();
    KafkaLog::open_to_append(options).await.map_err(|error| refused_by_kafka(&brokers, error))
}

/// Opens the log again as often as it is asked: after its topic was made anew.
pub fn reopen_kafka(options: KafkaOptions) -> Reopen<KafkaLog> {
    Box::new(move || {
        let opened = KafkaLog::open(options.clone());
        Box::pin(async move { opened.await.map(Arc::new) })
    })
}

/// Opens the topics beside the log.
///
/// # Errors
/// As [`kafka`].
pub async fn side_topics(options: KafkaOptions) -> Result<SideTopics, Failure> {
    let brokers = options.brokers.clone();
    SideTopics::open(options).await.map_err(|error| refused_by_kafka(&brokers, error))
}

fn refused_by_kafka(brokers: &str, error: LogError) -> Failure {
    match error {
        LogError::Refuse(reason) => Failure::Usage(format!("--kafka {brokers}: {reason}")),
        LogError::Retry(reason) | LogError::Fatal(reason) => Failure::resource(format!("--kafka {brokers}"), reason),
    }
}

/// How to reach the store that the options name.
///
/// # Errors
/// If the options name none or the URL cannot be read.
pub fn clickhouse_options(options: &ClickHouse) -> Result<rollups::Options, Failure> {
    let usage = |error: StoreError| match error {
        StoreError::Fatal(reason) | StoreError::Refuse(reason) | StoreError::Retry(reason) => {
            Failure::Usage(format!("--clickhouse: {reason}"))
        }
    };
    rollups::Options::from_url(&options.full_url()?).map_err(usage)
}

/// Opens the store, whose schema must be there.
///
/// # Errors
/// If the server does not answer, refuses, is too old, or its schema is of another version.
pub async fn clickhouse(options: &rollups::Options) -> Result<ClickHouseStore, Failure> {
    ClickHouseStore::open(options).await.map_err(refused)
}

/// Brings the store's schema to this version, and opens it.
///
/// # Errors
/// As [`clickhouse`].
pub async fn clickhouse_migrated(options: &rollups::Options) -> Result<ClickHouseStore, Failure> {
    rollups::migrate(options).await.map_err(refused)?;
    clickhouse(options).await
}

fn refused(error: StoreError) -> Failure {
    match error {
        StoreError::Retry(reason) => Failure::resource("--clickhouse", reason),
        StoreError::Fatal(reason) | StoreError::Refuse(reason) => Failure::Usage(format!("--clickhouse: {reason}")),
    }
}

/// Takes a data directory for this process, making it if there is none; it is held until the file is dropped.
///
/// # Errors
/// If another process holds it, naming that process, or it cannot be made.
pub fn lock_directory(path: &Path) -> Result<File, Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::resource(format!("data directory {}", path.display()), error);
    DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(|error| refuse(&error))?;
    let mut options = File::options();
    let lock = options.read(true).write(true).create(true).truncate(false).open(path.join("LOCK"));
    let mut lock = lock.map_err(|error| refuse(&error))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let _ = lock.read_to_string(&mut pid);
        return Err(refuse(&format!("in use by process {}: each process needs one of its own", pid.trim())));
    }
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
    written.map_err(|error| refuse(&error))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_of_one_process() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        let lock = lock_directory(&path).unwrap();
        let refused = lock_directory(&path).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(lock);
        lock_directory(&path).unwrap();
    }
}
