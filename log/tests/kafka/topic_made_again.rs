//! A topic that is deleted and made again is another log: readers are told so, and writing goes on.

use flagmint_log::{DecisionLog, KafkaLog, KafkaOptions, LogError};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_is_another_epoch() {
    let options = options("again");
    let before = KafkaLog::open(options.clone()).await.unwrap();
    for number in 0..5 {
        before.append(record(0, number)).await.unwrap();
    }
    assert_eq!(read_all(&before, 0).await.len(), 5);
    delete_topic(&options.topic).await;
    let after = loop {
        // The name may be taken for a moment by what is being deleted.
        match KafkaLog::open(options.clone()).await {
            Ok(log) if log.epoch() != before.epoch() => break log,
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let waited = tokio::time::timeout(DEADLINE, before.wait_beyond(0, 100)).await.expect("noticed in time");
    assert_says(waited, |error| matches!(error, LogError::Fatal(_)), &["made again", &options.topic, "open it again"]);
    assert!(matches!(before.read(0, 0, 100).await, Err(LogError::Fatal(_))));
    assert!(matches!(before.bounds(0).await, Err(LogError::Fatal(_))));

    let appended = tokio::time::timeout(DEADLINE, before.append(record(0, 77))).await.expect("appended in time");
    appended.unwrap();
    assert_eq!(read_all(&after, 0).await.iter().map(number).collect::<Vec<_>>(), [77]);
}

#[tokio::test]
async fn an_operator_can_start_a_new_epoch() {
    let options = options("bump");
    let epoch = KafkaLog::open(options.clone()).await.unwrap().epoch();
    let bumped = KafkaLog::open(KafkaOptions { epoch_bump: 1, ..options.clone() }).await.unwrap().epoch();
    assert_ne!(bumped, epoch);
    assert_eq!(KafkaLog::open(options).await.unwrap().epoch(), epoch);
}
