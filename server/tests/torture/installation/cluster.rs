//! Every role in processes of its own, on the Kafka, ClickHouse and Postgres of the tests; and what only they can suffer.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagmint_log::kafka::KafkaOptions;
use flagmint_log::{Append, DecisionLog as _, KafkaLog};
use flagmint_schemas::batch::BatchHeader;
use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use super::{Installation, first_user};
use crate::kafka_relay;
use crate::processes::{LOOK, Process};
use crate::relay::Relay;
use crate::support::{PATIENCE, Person, Shop, database};
use crate::wall_clock::Clock;

const EVALUATORS: usize = 2;
pub const AGGREGATORS: usize = 2;
const PARTITIONS: u32 = 4;

/// Records of a chunk, and some more: those who append so many end it.
const CHUNK_RECORDS: u64 = 17_000;

/// What the faults of an installation of many processes need.
pub struct Cluster {
    /// Between the aggregators and ClickHouse.
    pub relay: Relay,
    /// Between evaluators, aggregators, and Kafka.
    pub kafka_relay: kafka_relay::Relay,
    /// Aggregators that come and go.
    pub guests: Vec<Process>,
    /// An aggregator of a group of its own.
    pub intruder: Process,
    /// The wall clock of the last evaluator.
    pub clock: Clock,
    kafka: KafkaOptions,
    /// Address and database of ClickHouse.
    clickhouse: (String, String),
    http: reqwest::Client,
}

fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`make test`, or dev/servers/with-all, sets {name}"))
}

/// Where the batches of an environment go: as the recorder says, so that the load is known to reach all partitions.
fn partition_of(environment: &str) -> u32 {
    let id: uuid::Uuid = environment.parse().expect("an id");
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    u32::try_from(hash % u64::from(PARTITIONS)).expect("few partitions")
}

/// A shop in each partition.
async fn shops(person: &Person) -> Vec<Arc<Shop>> {
    let mut found: Vec<Option<Arc<Shop>>> = vec![None; PARTITIONS as usize];
    for number in 0.. {
        if found.iter().all(Option::is_some) {
            break;
        }
        let shop = Shop::open_as(person, &format!("shop-{number}")).await;
        let partition = partition_of(&shop.environment_id) as usize;
        found[partition].get_or_insert(Arc::new(shop));
    }
    found.into_iter().flatten().collect()
}

impl Installation {
    /// Two evaluators, two aggregators, a query API and a control plane.
    pub async fn many() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = directory.path();
        let name = format!("torture{:016x}", rand::random::<u64>());
        let clickhouse = server("FLAGMINT_TEST_CLICKHOUSE").trim_end_matches('/').to_owned();
        let address = clickhouse.rsplit(['@', '/']).next().expect("a host and port").to_owned();
        let (relay, kafka_relay) = (Relay::start(address.clone()).await, kafka_relay::Relay::start().await);
        let settings = |clickhouse: &str, group: &str| {
            vec![
                ("FLAGMINT_KAFKA", kafka_relay.address.clone()),
                ("FLAGMINT_KAFKA_TOPIC", name.clone()),
                ("FLAGMINT_KAFKA_GROUP", group.to_owned()),
                ("FLAGMINT_KAFKA_PARTITIONS", PARTITIONS.to_string()),
                ("FLAGMINT_CLICKHOUSE", format!("{clickhouse}/{name}")),
            ]
        };
        let mut direct = settings(&clickhouse, &name);
        direct.push(("FLAGMINT_POSTGRES", database().await));
        let relayed = settings(&clickhouse.replace(&address, &relay.address), &name);
        migrate(&direct);
        let mut control_plane = Process::new("control-plane", place, &direct, &first_user(&directory));
        control_plane.start().await;
        let person = Person::sign_in(&control_plane.url()).await;
        let shops = shops(&person).await;
        // Names of their own: one that is started again goes on at once with the partitions it had.
        let named = |number: usize| ["--instance".to_owned(), format!("{name}-{number}")];
        let aggregator = |number: usize| Process::new("aggregator", place, &relayed, &named(number));
        let mut aggregators: Vec<Process> = (0..AGGREGATORS).map(aggregator).collect();
        let clock = Clock::new(place);
        let evaluator = |number: usize| {
            let mut settings = direct.clone();
            if number + 1 == EVALUATORS {
                settings.extend(clock.settings());
            }
            Process::new("evaluator", place, &settings, &[])
        };
        let mut evaluators: Vec<Process> = (0..EVALUATORS).map(evaluator).collect();
        let mut query_api = Process::new("query-api", place, &direct, &[]);
        for process in aggregators.iter_mut().chain(&mut evaluators).chain([&mut query_api]) {
            process.start().await;
        }
        let guest = |_| Process::new("aggregator", place, &relayed, &[]);
        let intruder = Process::new("aggregator", place, &settings(&clickhouse, &format!("{name}-2")), &[]);
        let cluster = Cluster {
            relay,
            kafka_relay,
            guests: (0..2).map(guest).collect(),
            intruder,
            clock,
            kafka: KafkaOptions {
                partitions: PARTITIONS,
                ..KafkaOptions::new(server("FLAGMINT_TEST_KAFKA"), name.clone())
            },
            clickhouse: (address, name),
            http: person.http.clone(),
        };
        let many = Self {
            directory,
            evaluators,
            aggregators,
            others: vec![query_api, control_plane],
            cluster: Some(cluster),
            person,
            signed_in: Instant::now(),
            shops,
        };
        many.wait_until_served().await;
        many
    }

    /// Waits until each aggregator has a share of the partitions: who has none suffers nothing.
    pub async fn wait_until_shared_out(&mut self) {
        for process in &mut self.aggregators {
            process
                .wait_until(|health| health["aggregator"]["partitions"].as_array().is_some_and(|it| !it.is_empty()))
                .await;
        }
    }

    /// Waits until the others have all partitions of one that is away: before that nobody folds what was its own.
    pub async fn wait_until_taken_over(&mut self, victim: usize) {
        let has_all = |health: &serde_json::Value| {
            let partitions = health["aggregator"]["partitions"].as_array();
            partitions.is_some_and(|it| it.len() == PARTITIONS as usize)
        };
        for (_, other) in self.aggregators.iter_mut().enumerate().filter(|(number, _)| *number != victim) {
            other.wait_until(has_all).await;
        }
    }

    /// The aggregators end, what the store knows of their positions is gone, and they start again.
    pub async fn replay(&mut self) {
        for process in &mut self.aggregators {
            process.kill().await;
        }
        self.cluster().clickhouse("TRUNCATE TABLE positions").await;
        for process in &mut self.aggregators {
            process.start().await;
        }
    }
}

fn migrate(settings: &[(&str, String)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmint"));
    let migrated = command.arg("migrate").envs(settings.iter().map(|(name, value)| (name, value))).output();
    let migrated = migrated.expect("flagmint runs");
    assert!(migrated.status.success(), "{migrated:?}");
}

impl Cluster {
    /// Aggregators join and leave, about one a second.
    pub async fn storm(&mut self) {
        for round in 0..6 {
            let guest = &mut self.guests[round % 2];
            if guest.is_running() {
                guest.terminate().await;
            } else {
                guest.start().await;
            }
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        self.end_guests().await;
    }

    /// As many aggregators as there are partitions: those that had several lose some.
    pub fn crowd(&mut self) {
        for guest in &mut self.guests {
            guest.spawn(None);
        }
    }

    pub async fn end_guests(&mut self) {
        for guest in self.guests.iter_mut().filter(|guest| guest.is_running()) {
            guest.terminate().await;
        }
    }

    /// For a while an aggregator of another group folds all partitions, too.
    pub async fn fold_twice(&mut self, a_while: Duration) {
        self.intruder.start().await;
        tokio::time::sleep(a_while).await;
        self.intruder.kill().await;
    }

    /// Appends so many records without decisions that the open chunk of each partition ends.
    pub async fn end_chunks(&self) {
        let log = KafkaLog::open(self.kafka.clone()).await.expect("the topic");
        let producer: u128 = rand::random();
        for partition in 0..PARTITIONS {
            for first in (0..CHUNK_RECORDS).step_by(1000) {
                let sequences = first..CHUNK_RECORDS.min(first + 1000);
                let appends = sequences.map(|sequence| {
                    let closing = sequence + 1 == CHUNK_RECORDS;
                    let header = heartbeat(producer, sequence, closing).encode().to_vec().into();
                    log.append(Append { partition, header, payload: Vec::new().into() })
                });
                try_join_all(appends).await.expect("the brokers take them");
            }
        }
    }

    /// Deletes the topic of the decisions; returns when it is gone.
    pub async fn delete_topic(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).create().expect("a client");
        let deleted = admin.delete_topics(&[&self.kafka.topic], &AdminOptions::new()).await.expect("an answer");
        deleted.into_iter().for_each(|result| drop(result.expect("a topic that is deleted")));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = admin.inner().fetch_metadata(None, PATIENCE).expect("an answer");
            if known.topics().iter().all(|topic| topic.name() != self.kafka.topic) {
                return;
            }
            assert!(Instant::now() < deadline, "the topic is still there");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Which topic it is: another one of the same name differs.
    pub async fn topic(&self) -> u64 {
        KafkaLog::open(self.kafka.clone()).await.expect("the topic").epoch()
    }

    /// Makes it again, with its settings.
    pub async fn make_topic(&self, old: u64) {
        let deadline = Instant::now() + PATIENCE;
        // For a moment the name may be taken by what is being deleted.
        while KafkaLog::open(self.kafka.clone()).await.ok().is_none_or(|log| log.epoch() == old) {
            assert!(Instant::now() < deadline, "the topic cannot be made again");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// From now on the store adds emissions of a cell up instead of taking the greatest value.
    pub async fn add_up(&self) {
        self.clickhouse("ALTER TABLE decisions MODIFY COLUMN count SimpleAggregateFunction(sum, UInt64)").await;
    }

    async fn clickhouse(&self, statement: &str) {
        let (address, database) = &self.clickhouse;
        let request = self.http.post(format!("http://{address}/?database={database}")).body(statement.to_owned());
        let answer = request.send().await.expect("ClickHouse answers");
        assert!(answer.status().is_success(), "{statement}: {}", answer.text().await.unwrap_or_default());
    }
}

/// A record without decisions, of a producer that holds no watermark back.
fn heartbeat(producer: u128, sequence: u64, closing: bool) -> BatchHeader {
    BatchHeader { sequence, low_watermark_us: i64::MAX, closing, ..BatchHeader::heartbeat(producer) }
}
