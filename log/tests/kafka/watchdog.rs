//! A consumer to which a broker brings nothing, though there is something, is replaced.

use std::time::{Duration, Instant};

use flagmint_log::{DecisionLog, KafkaLog, KafkaOptions, LogError};

use crate::relay::Relay;
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_stalls_is_replaced() {
    let relay = Relay::start().await;
    let log = KafkaLog::open(KafkaOptions { brokers: relay.address.clone(), ..options("stalled") }).await.unwrap();
    for number in 0..5 {
        log.append(record(0, number)).await.unwrap();
    }
    assert_eq!(read_all(&log, 0).await.len(), 5);
    // Until the consumer has been told, again and again, that there is nothing more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    relay.repeat_fetches();
    for number in 5..10 {
        log.append(record(0, number)).await.unwrap();
    }
    let started = Instant::now();
    let mut found = Vec::new();
    // A fetch that was under way may still bring the first of them.
    while found.len() < 5 {
        match log.read(0, 5 + found.len() as u64, 1 << 20).await {
            Ok(records) if !records.is_empty() => found.extend(records.iter().map(number)),
            // While it stands still, that is said rather than that there is nothing.
            Ok(_) => panic!("there is something to read"),
            Err(LogError::Retry(_)) => assert!(started.elapsed() < DEADLINE, "nobody replaced the consumer"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(found, [5, 6, 7, 8, 9]);
}
