//! Topics: created as they must be, and checked at each start, so that a wrong setting is found before it costs records.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::Instant;

use super::client::{Broker, Context};
use super::options::{KafkaOptions, message_bytes, ms};
use crate::{LogError, limits};

/// How often a topic that was just created is looked for.
const CREATED_POLL: Duration = Duration::from_millis(50);

/// What a setting must be.
#[derive(Clone, Debug)]
enum Wanted {
    Exactly(String),
    /// A number; -1 is more than any.
    AtLeast(u128),
}

/// A topic as we need it.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    partitions: u32,
    replicas: Option<u16>,
    /// Name, value for a new topic, and what an existing topic must have; without the latter anything goes.
    settings: Vec<(&'static str, String, Option<Wanted>)>,
}

fn exactly(name: &'static str, value: &str) -> (&'static str, String, Option<Wanted>) {
    (name, value.to_owned(), Some(Wanted::Exactly(value.to_owned())))
}

fn at_least(name: &'static str, value: String, least: u128) -> (&'static str, String, Option<Wanted>) {
    (name, value, Some(Wanted::AtLeast(least)))
}

impl Topic {
    /// The topic of the decisions.
    pub(super) fn decisions(options: &KafkaOptions) -> Self {
        let bytes = message_bytes();
        let settings = vec![
            exactly("cleanup.policy", "delete"),
            exactly("message.timestamp.type", "LogAppendTime"),
            at_least("retention.ms", ms(options.retention), limits::KAFKA_RETENTION_MIN.as_millis()),
            // A bound in bytes could take the start of an open chunk away.
            exactly("retention.bytes", "-1"),
            at_least("max.message.bytes", bytes.to_string(), bytes as u128),
            exactly("unclean.leader.election.enable", "false"),
            // Brokers turn what others wrote with another codec into one that our client was built with.
            exactly("compression.type", "lz4"),
        ];
        Self::new(options, options.topic.clone(), options.partitions, settings)
    }

    /// The topic of the usage totals: the newest total of each key stays for ever.
    pub(super) fn usage(options: &KafkaOptions) -> Self {
        let settings = vec![
            exactly("cleanup.policy", "compact"),
            // Totals change every 250 ms: without these a reader that starts would go through days of them.
            ("segment.ms", ms(Duration::from_secs(600)), None),
            ("min.cleanable.dirty.ratio", "0.2".to_owned(), None),
        ];
        Self::new(options, format!("{}-usage", options.topic), 1, settings)
    }

    /// The topic of the records that could not be read.
    pub(super) fn dead_letters(options: &KafkaOptions) -> Self {
        let settings = vec![
            exactly("cleanup.policy", "delete"),
            at_least("retention.ms", ms(options.retention), limits::KAFKA_RETENTION_MIN.as_millis()),
            at_least("max.message.bytes", (1 << 20).to_string(), 1 << 18),
        ];
        Self::new(options, format!("{}-dead-letters", options.topic), 1, settings)
    }

    fn new(
        options: &KafkaOptions,
        name: String,
        partitions: u32,
        mut settings: Vec<(&'static str, String, Option<Wanted>)>,
    ) -> Self {
        if options.replicas.is_some_and(|replicas| replicas >= 3) {
            settings.push(("min.insync.replicas", "2".to_owned(), None));
        }
        Self { name, partitions, replicas: options.replicas, settings }
    }

    /// Creates the topic unless it is there, and checks it; returns its number of partitions.
    pub(super) async fn ensure(&self, broker: &Broker, options: &KafkaOptions) -> Result<u32, LogError> {
        // For this alone: nobody would take in what the library says through it.
        let admin = AdminClient::from_config_and_context(&options.client(), Context::default())
            .map_err(|error| LogError::Refuse(format!("the Kafka client cannot be set up: {error}")))?;
        let found = match self.find(broker).await? {
            Some(found) => found,
            None => {
                self.create(broker, &admin).await?;
                self.await_created(broker).await?
            }
        };
        let problems = self.problems(found, &self.describe(broker, &admin).await?);
        if problems.is_empty() {
            return Ok(found.partitions);
        }
        Err(LogError::Refuse(format!("the Kafka topic {} cannot be used: {}", self.name, problems.join("; "))))
    }

    async fn find(&self, broker: &Broker) -> Result<Option<Found>, LogError> {
        let metadata = broker.metadata().await?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.name && topic.error().is_none());
        Ok(topic.filter(|topic| !topic.partitions().is_empty()).map(|topic| Found {
            partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
            replicas: topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default(),
            has_leaders: topic.partitions().iter().all(|partition| partition.leader() >= 0),
        }))
    }

    async fn create(&self, broker: &Broker, admin: &AdminClient<Context>) -> Result<(), LogError> {
        let partitions = i32::try_from(self.partitions)
            .map_err(|_| LogError::Refuse(format!("{} partitions are more than Kafka counts", self.partitions)))?;
        let replicas = TopicReplication::Fixed(self.replicas.map_or(-1, i32::from));
        let mut topic = NewTopic::new(&self.name, partitions, replicas);
        for (name, value, _) in &self.settings {
            topic = topic.set(name, value);
        }
        let created = admin.create_topics([&topic], &admin_options()).await;
        match created.map_err(|error| broker.explain(&error))?.pop() {
            // Another instance was faster: all the better.
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((name, code))) => Err(LogError::Refuse(format!(
                "the Kafka topic {name} cannot be created ({code}): create it with {} partitions and {}",
                self.partitions,
                self.wanted_settings()
            ))),
        }
    }

    async fn await_created(&self, broker: &Broker) -> Result<Found, LogError> {
        let deadline = Instant::now() + limits::KAFKA_CONNECT_TIMEOUT;
        loop {
            match self.find(broker).await? {
                Some(found) if found.has_leaders => return Ok(found),
                _ if Instant::now() >= deadline => {
                    return Err(LogError::Retry(format!(
                        "the Kafka topic {} was created but is not there yet",
                        self.name
                    )));
                }
                _ => tokio::time::sleep(CREATED_POLL).await,
            }
        }
    }

    async fn describe(&self, broker: &Broker, admin: &AdminClient<Context>) -> Result<ConfigResource, LogError> {
        let topics = [ResourceSpecifier::Topic(&self.name)];
        let described = admin.describe_configs(&topics, &admin_options()).await;
        let first = described.map_err(|error| broker.explain(&error))?.pop();
        first.unwrap_or(Err(RDKafkaErrorCode::UnknownTopic)).map_err(|code| {
            LogError::Refuse(format!(
                "the settings of the Kafka topic {} cannot be read ({code}): allow DescribeConfigs on it",
                self.name
            ))
        })
    }

    /// What is wrong with a topic, each with what to do.
    fn problems(&self, found: Found, config: &ConfigResource) -> Vec<String> {
        let value = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or("nothing");
        let mut problems = Vec::new();
        if found.partitions < self.partitions {
            problems.push(format!(
                "it has {} partitions, at least {} are wanted: kafka-topics.sh --alter --topic {} --partitions {1}, or configure fewer",
                found.partitions, self.partitions, self.name
            ));
        }
        for (name, new_value, wanted) in &self.settings {
            let found = value(name);
            if wanted.as_ref().is_some_and(|wanted| !wanted.is_met(found)) {
                problems.push(format!(
                    "{name} is {found}, wanted is {}: {}",
                    describe(wanted.as_ref()),
                    self.remedy(name, new_value)
                ));
            }
        }
        if found.replicas >= 3 && value("min.insync.replicas").parse().unwrap_or(0) < 2 {
            let remedy = self.remedy("min.insync.replicas", "2");
            problems.push(format!(
                "min.insync.replicas is {} with {} replicas, wanted is at least 2, or one broker's loss can lose records: {remedy}",
                value("min.insync.replicas"),
                found.replicas
            ));
        }
        problems
    }

    fn remedy(&self, name: &str, value: &str) -> String {
        format!("kafka-configs.sh --alter --topic {} --add-config {name}={value}", self.name)
    }

    fn wanted_settings(&self) -> String {
        let settings: Vec<String> = self.settings.iter().map(|(name, value, _)| format!("{name}={value}")).collect();
        settings.join(", ")
    }
}

/// A topic as it is.
#[derive(Clone, Copy, Debug)]
struct Found {
    partitions: u32,
    replicas: usize,
    has_leaders: bool,
}

impl Wanted {
    fn is_met(&self, found: &str) -> bool {
        match self {
            Self::Exactly(value) => found == value,
            Self::AtLeast(least) => found == "-1" || found.parse::<u128>().is_ok_and(|found| found >= *least),
        }
    }
}

fn describe(wanted: Option<&Wanted>) -> String {
    match wanted {
        Some(Wanted::Exactly(value)) => value.clone(),
        Some(Wanted::AtLeast(least)) => format!("at least {least}"),
        None => "anything".to_owned(),
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(limits::KAFKA_REQUEST_TIMEOUT))
        .operation_timeout(Some(limits::KAFKA_REQUEST_TIMEOUT))
}
