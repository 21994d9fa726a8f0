//! The events in batches, in the log in Kafka.

use flagmint_benches::batches;
use flagmint_benches::events::{Events, PARTITIONS};
use flagmint_log::{Append, DecisionLog, KafkaLog, KafkaOptions};
use futures::future::try_join_all;

/// Batches appended before the first of them is waited for.
const IN_FLIGHT: usize = 256;

/// Appends all events; bytes of all records before Kafka compresses them.
pub async fn fill(brokers: &str, topic: &str, events: Events) -> usize {
    let options = KafkaOptions { partitions: PARTITIONS, ..KafkaOptions::new(brokers, topic) };
    let log = KafkaLog::open(options).await.expect("a log in Kafka");
    let (sender, mut receiver) = tokio::sync::mpsc::channel(IN_FLIGHT);
    let making = tokio::task::spawn_blocking(move || {
        batches::each(events, |batch| sender.blocking_send(batch).expect("all are taken"));
    });
    let (mut ready, mut bytes) = (Vec::<Append>::new(), 0);
    while receiver.recv_many(&mut ready, IN_FLIGHT).await > 0 {
        bytes += ready.iter().map(|append| append.header.len() + append.payload.len()).sum::<usize>();
        try_join_all(ready.drain(..).map(|append| log.append(append))).await.expect("appended");
    }
    making.await.expect("all were made");
    bytes
}
