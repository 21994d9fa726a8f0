//! A record that nobody can read is parked where a person finds it, and what comes after it is counted.

use std::time::{Duration, Instant};

use flagmint_log::kafka::KafkaOptions;
use flagmint_log::{Append, DecisionLog as _, KafkaLog};

use crate::cluster::{Place, end};
use crate::support::PATIENCE;

/// What ClickHouse answers.
async fn sql(place: &Place, statement: &str) -> String {
    let (base, database) = place.clickhouse.rsplit_once('/').expect("a URL with a database");
    let request = reqwest::Client::new().post(format!("{base}/?database={database}")).body(statement.to_owned());
    request.send().await.expect("an answer").text().await.expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_in_the_table_of_dead_letters() {
    let place = Place::new().await;
    place.migrate();
    let aggregator = place.aggregator();
    let options = KafkaOptions { partitions: 4, ..KafkaOptions::new(place.kafka.clone(), place.topic.clone()) };
    let log = KafkaLog::open(options).await.expect("the topic");
    let append = Append { partition: 2, header: b"no header".to_vec().into(), payload: b"no batch".to_vec().into() };
    let offset = log.append(append).await.expect("Kafka takes anything");
    let expected = format!("{}\t2\t{offset}\tno header\tno batch\t8", log.epoch());
    let deadline = Instant::now() + PATIENCE;
    let question = "SELECT epoch, partition, offset, header, payload, payload_bytes FROM dead_letters FINAL";
    loop {
        let found = sql(&place, question).await;
        if found == expected {
            break;
        }
        assert!(found.is_empty() && Instant::now() < deadline, "{found} instead of {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sql(&place, "SELECT reason FROM dead_letters FINAL").await.contains("header"));
    end(aggregator);
}
