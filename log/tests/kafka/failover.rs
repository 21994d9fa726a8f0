//! Three brokers, each killed in turn under load: every record is there, in order, and whoever appends or reads only waits.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flagmint_log::{DecisionLog, KafkaLog, KafkaOptions, LogError};

use crate::support::*;

const BROKERS: usize = 3;
const PARTITIONS: u32 = 3;

/// Between the rounds of the load, and before something is asked again. So few records find room for two minutes of no leader.
const PAUSE: Duration = Duration::from_millis(100);

/// Three brokers of this test's own; gone when dropped.
struct Brokers {
    /// Runs for as long as its standard input is open.
    script: Child,
    addresses: String,
    directory: PathBuf,
}

impl Brokers {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/servers/with-kafka");
        let tell = r#"echo "$FLAGMINT_TEST_KAFKA $FLAGMINT_TEST_KAFKA_DIR"; read -r _ || true"#;
        let mut command = Command::new(script);
        command.args(["--brokers", &BROKERS.to_string(), "sh", "-c", tell]).env_remove("FLAGMINT_TEST_KAFKA");
        let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("brokers");
        let mut line = String::new();
        BufReader::new(script.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let (addresses, directory) = line.trim().split_once(' ').expect("where the brokers are");
        Self { script, addresses: addresses.to_owned(), directory: directory.into() }
    }

    fn kill(&self, number: usize) {
        let pid =
            std::fs::read_to_string(self.directory.join(number.to_string()).join("pid")).expect("a running broker");
        let killed = Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill runs");
        assert!(killed.success());
    }

    /// Returns when it is ready: with two of three away there would be nobody to lead.
    fn start_again(&self, number: usize) {
        let directory = self.directory.join(number.to_string());
        let starts = || {
            let log = std::fs::read_to_string(directory.join("log")).expect("what the broker says");
            log.matches("Kafka Server started").count()
        };
        let before = starts();
        assert!(Command::new(directory.join("start")).status().expect("it runs").success());
        let started = Instant::now();
        while starts() == before {
            assert!(started.elapsed() < 2 * DEADLINE, "broker {number} is not ready");
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Appends to all partitions in turn until told to stop; how many records each got.
async fn load(log: &'static KafkaLog, is_stopping: Arc<AtomicBool>) -> u64 {
    let mut appends = tokio::task::JoinSet::<Result<u64, LogError>>::new();
    for number in 0.. {
        if is_stopping.load(Ordering::Relaxed) {
            while let Some(appended) = appends.join_next().await {
                appended.unwrap().unwrap();
            }
            return number;
        }
        for partition in 0..PARTITIONS {
            // Its place is where the call is made: all are in flight together, and stay in order.
            appends.spawn(log.append(record(partition, number)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("the loop ends when it is told to")
}

/// What a partition holds. A broker that has just come back may not answer yet: then it is asked again.
async fn numbers(log: &KafkaLog, partition: u32) -> Vec<u64> {
    let started = Instant::now();
    let (mut next, mut found) = (0, Vec::new());
    loop {
        let records = match log.bounds(partition).await {
            Ok(bounds) if next >= bounds.end => return found,
            Ok(_) => log.read(partition, next, 1 << 20).await,
            Err(error) => Err(error),
        };
        match records {
            Ok(records) => {
                next = records.last().map_or(next, |record| record.offset + 1);
                found.extend(records.iter().map(number));
            }
            Err(LogError::Retry(_)) if started.elapsed() < DEADLINE => tokio::time::sleep(PAUSE).await,
            Err(error) => panic!("partition {partition}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_is_lost_while_brokers_fail() {
    let brokers = tokio::task::spawn_blocking(Brokers::start).await.unwrap();
    let topic = new_topic("failover");
    let options = KafkaOptions {
        partitions: PARTITIONS,
        replicas: Some(3),
        group: format!("{topic}-group"),
        ..KafkaOptions::new(brokers.addresses.clone(), topic)
    };
    // It lasts as long as the test.
    let log: &'static KafkaLog = Box::leak(Box::new(KafkaLog::open(options).await.unwrap()));
    let is_stopping = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn(load(log, Arc::clone(&is_stopping)));
    for number in 1..=BROKERS {
        let killed = Instant::now();
        brokers.kill(number);
        for partition in 0..PARTITIONS {
            // Each partition takes something that is offered after the kill, which its leader's successor has to.
            let marker = log.append(record(partition, u64::MAX));
            tokio::time::timeout(DEADLINE, marker).await.expect("a leader in time").unwrap();
        }
        println!("without broker {number}: appended after {:?}", killed.elapsed());
        brokers.start_again(number);
    }
    is_stopping.store(true, Ordering::Relaxed);
    let appended = loading.await.unwrap();
    for partition in 0..PARTITIONS {
        let mut expected = 0;
        for found in numbers(log, partition).await.into_iter().filter(|found| *found != u64::MAX) {
            assert!(found <= expected, "partition {partition}: {found} where {expected} was to come");
            // What is written twice comes after its first place.
            expected = expected.max(found + 1);
        }
        assert_eq!(expected, appended, "partition {partition}");
    }
    assert!(appended > 100, "{appended} records are no load");
}
