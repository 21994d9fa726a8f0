//! Usage totals are followed from the beginning on, newest last; dead letters arrive.

use std::collections::BTreeMap;

use bytes::Bytes;
use flagmint_log::{SideTopics, UsageEvent};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::support::*;

fn totals(numbers: impl IntoIterator<Item = (u64, u64)>) -> Vec<(Bytes, Bytes)> {
    let bytes = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    numbers.into_iter().map(|(key, total)| (bytes(key), bytes(total))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_total_of_each_key_is_told_before_caught_up() {
    let options = options("usage");
    let topics = SideTopics::open(options.clone()).await.unwrap();
    for round in 1..=3 {
        topics.publish_usage(totals((0..200).map(|key| (key, key * round)))).await.unwrap();
    }
    let again = SideTopics::open(options).await.expect("it finds the topics as it made them");
    let mut events = again.follow_usage().unwrap();
    let mut newest = BTreeMap::new();
    while let UsageEvent::Total { key, total } = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap() {
        newest.insert(key, total);
    }
    assert_eq!(newest.into_iter().collect::<Vec<_>>(), totals((0..200).map(|key| (key, key * 3))));
    topics.publish_usage(totals([(7, 99)])).await.unwrap();
    let live = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    let (key, total) = totals([(7, 99)]).remove(0);
    assert_eq!(live, UsageEvent::Total { key, total });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_arrive_under_their_key() {
    let options = options("letters");
    let topics = SideTopics::open(options.clone()).await.unwrap();
    topics.publish_dead_letter(b"epoch/1/5", b"what it was").await.unwrap();
    // Random, as what compresses well fits.
    let huge: Vec<u8> = (0..2 << 20).map(|_| rand::random()).collect();
    assert_says(topics.publish_dead_letter(b"epoch/1/6", &huge).await, is_refused, &["2097152", "-dead-letters"]);
    topics.publish_dead_letter(b"epoch/1/7", b"the rest goes on").await.unwrap();
    let letters = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers()).set("group.id", "letters").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&format!("{}-dead-letters", options.topic), 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let next = || {
            let message = consumer.poll(DEADLINE).unwrap().unwrap();
            (message.key().unwrap().to_vec(), message.payload().unwrap().to_vec())
        };
        [next(), next()]
    });
    let expected: [(&[u8], &[u8]); 2] = [(b"epoch/1/5", b"what it was"), (b"epoch/1/7", b"the rest goes on")];
    assert_eq!(letters.await.unwrap(), expected.map(|(key, letter)| (key.to_vec(), letter.to_vec())));
}
