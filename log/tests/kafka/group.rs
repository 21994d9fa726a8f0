//! Partitions move between the members of a group, and records stay readable whoever is told to fold them.

use std::collections::BTreeSet;

use flagmint_log::{Assignment, DecisionLog, KafkaLog, KafkaOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::watch;

use crate::support::*;

fn options_of(kind: &str) -> KafkaOptions {
    KafkaOptions { partitions: 6, ..options(kind) }
}

async fn wait_for(assignment: &mut watch::Receiver<Assignment>, what: &str, is_met: impl FnMut(&Assignment) -> bool) {
    let met = tokio::time::timeout(DEADLINE, assignment.wait_for(is_met)).await;
    drop(met.unwrap_or_else(|_| panic!("not in time: {what}")).unwrap());
}

fn partitions(assignment: &watch::Receiver<Assignment>) -> BTreeSet<u32> {
    assignment.borrow().partitions.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_take_over() {
    let options = options_of("share");
    let first = KafkaLog::open(options.clone()).await.unwrap();
    let second = KafkaLog::open(options.clone()).await.unwrap();
    let mut of_first = first.assignment();
    assert!(of_first.borrow().partitions.is_empty(), "nothing before the group has answered");
    wait_for(&mut of_first, "all for the first", |assignment| assignment.partitions.len() == 6).await;
    let generation = of_first.borrow().generation;

    let mut of_second = second.assignment();
    wait_for(&mut of_second, "half for the second", |assignment| assignment.partitions.len() == 3).await;
    wait_for(&mut of_first, "half for the first", |assignment| assignment.partitions.len() == 3).await;
    assert!(of_first.borrow().generation > generation);
    assert!(partitions(&of_first).is_disjoint(&partitions(&of_second)));

    // Reading does not depend on it.
    for partition in 0..6 {
        let offset = first.append(record(partition, 9)).await.unwrap();
        assert_eq!(second.read(partition, offset, 100).await.unwrap().len(), 1);
    }
    drop(first);
    wait_for(&mut of_second, "all for the second", |assignment| assignment.partitions.len() == 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_instance_comes_back_without_the_others_noticing() {
    let options = options_of("static");
    let named = |name: &str| KafkaOptions { instance: Some(name.to_owned()), ..options.clone() };
    let stays = KafkaLog::open(named("stays")).await.unwrap();
    let leaves = KafkaLog::open(named("leaves")).await.unwrap();
    let (mut of_stays, mut of_leaves) = (stays.assignment(), leaves.assignment());
    wait_for(&mut of_leaves, "half", |assignment| assignment.partitions.len() == 3).await;
    wait_for(&mut of_stays, "half", |assignment| assignment.partitions.len() == 3).await;
    let (before, kept) = (partitions(&of_leaves), of_stays.borrow().clone());
    drop(leaves);
    let again = KafkaLog::open(named("leaves")).await.unwrap();
    let mut of_again = again.assignment();
    wait_for(&mut of_again, "the same half again", |assignment| assignment.partitions.len() == 3).await;
    assert_eq!(partitions(&of_again), before);
    assert_eq!(*of_stays.borrow(), kept, "the other was left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunk_starts_are_committed_for_tools_to_see() {
    let options = options_of("commit");
    let log = KafkaLog::open(options.clone()).await.unwrap();
    log.commit(2, 5);
    for number in 0..20 {
        log.append(record(2, number)).await.unwrap();
    }
    let mut assignment = log.assignment();
    wait_for(&mut assignment, "all", |assignment| assignment.partitions.len() == 6).await;
    log.commit(2, 5);
    log.commit(2, 16);
    log.commit(99, 1);
    let tool: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers()).set("group.id", &options.group).create().unwrap();
    let committed = move || {
        let mut list = TopicPartitionList::new();
        list.add_partition(&options.topic, 2);
        tool.committed_offsets(list, DEADLINE).unwrap().elements()[0].offset()
    };
    let found = tokio::task::spawn_blocking(move || {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let offset = committed();
            if offset == Offset::Offset(16) || std::time::Instant::now() > deadline {
                return offset;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    assert_eq!(found.await.unwrap(), Offset::Offset(16));
}
