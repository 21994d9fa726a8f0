//! What every backend of [`DecisionLog`] must do, as tests any backend can run: see [`conformance_suite!`](crate::conformance_suite).
//!
//! The cases know the trait alone. They count records rather than differences of offsets, because a backend may skip offsets.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};

use crate::{Append, Assignment, DecisionLog, LogError, Record};

/// Longest a case waits for something that must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// One log a case may use, and close and open again.
pub trait Subject: Send + Sync {
    /// The backend.
    type Log: DecisionLog;

    /// Opens the log, three partitions, creating it the first time. The handle opened before has been dropped.
    fn open(&self) -> impl Future<Output = Self::Log> + Send;

    /// A header plus payload of this many bytes is just too large.
    fn too_large_bytes(&self) -> usize;
}

/// Number of partitions of a [`Subject`].
pub const PARTITIONS: u32 = 3;

/// Expands to one `#[tokio::test]` per conformance case; the argument is an expression that makes a new, empty
/// [`Subject`](crate::conformance::Subject).
#[macro_export]
macro_rules! conformance_suite {
    ($subject:expr) => {
        $crate::conformance_suite!($subject;
            new_log_is_empty, keeps_order, many_appenders_at_once, order_of_calls_in_flight, partitions_are_independent, empty_and_large_records,
            refuses_what_can_never_fit, refuses_unknown_partitions, reads_page_by_bytes, reads_from_any_offset,
            refuses_offsets_outside_bounds, watch_wakes, append_times_never_decrease, survives_reopening, epoch_is_stable,
            trim_keeps_what_is_not_folded, trim_keeps_what_is_young, a_single_reader_is_assigned_everything);
    };
    ($subject:expr; $($case:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$case(&$subject).await;
        })+
    };
}

/// A record whose content is a function of its number, so that it can be checked wherever it turns up.
fn numbered(partition: u32, number: u64) -> Append {
    let payload = number.to_le_bytes().repeat(usize::try_from(number % 97).expect("small"));
    Append { partition, header: Bytes::copy_from_slice(&number.to_be_bytes()), payload: payload.into() }
}

fn number(record: &Record) -> u64 {
    let number = u64::from_be_bytes(record.header[..].try_into().expect("eight bytes of header"));
    assert_eq!(record.payload, numbered(record.partition, number).payload, "payload of record {number}");
    number
}

async fn append_numbered(log: &impl DecisionLog, partition: u32, numbers: Range<u64>) -> Vec<u64> {
    let appends = numbers.map(|number| log.append(numbered(partition, number)));
    try_join_all(appends).await.expect("append")
}

/// All records of a partition from `from` on; checks order and place on the way.
async fn read_from(log: &impl DecisionLog, partition: u32, from: u64, max_bytes: usize) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    let mut next = from;
    loop {
        let records = log.read(partition, next, max_bytes).await.expect("read");
        for record in records.iter() {
            assert_eq!(record.partition, partition);
            assert!(record.offset >= next, "offsets increase");
            next = record.offset + 1;
        }
        if records.is_empty() {
            return all;
        }
        all.extend(records);
    }
}

async fn read_all(log: &impl DecisionLog, partition: u32) -> Vec<Record> {
    let start = log.bounds(partition).await.expect("bounds").start;
    read_from(log, partition, start, 1 << 20).await
}

fn numbers(records: &[Record]) -> Vec<u64> {
    records.iter().map(number).collect()
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, LogError>) {
    assert!(matches!(result, Err(LogError::Refuse(_))), "{result:?} should have been refused");
}

/// A new log has its partitions, no records, and says so without waiting.
pub async fn new_log_is_empty(subject: &impl Subject) {
    let log = subject.open().await;
    assert_eq!(log.partitions(), PARTITIONS);
    for partition in 0..PARTITIONS {
        let bounds = log.bounds(partition).await.expect("bounds");
        assert!(bounds.is_empty());
        assert_eq!(log.read(partition, bounds.end, 1 << 20).await, Ok(vec![]));
    }
}

/// Records appended one after the other come back in that order, under the offsets that were acknowledged.
pub async fn keeps_order(subject: &impl Subject) {
    let log = subject.open().await;
    let mut offsets = Vec::new();
    for number in 0..50 {
        offsets.push(log.append(numbered(1, number)).await.expect("append"));
    }
    let records = read_all(&log, 1).await;
    assert_eq!(numbers(&records), (0..50).collect::<Vec<_>>());
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), offsets);
    assert_eq!(log.bounds(1).await.expect("bounds").end, offsets[49] + 1);
}

/// Many tasks at once: each acknowledged record is there exactly once, under its offset, and each task's records are in its order.
pub async fn many_appenders_at_once(subject: &impl Subject) {
    const TASKS: u64 = 32;
    const EACH: u64 = 40;
    let log = Arc::new(subject.open().await);
    let tasks = (0..TASKS).map(|task| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in task * EACH..(task + 1) * EACH {
                let partition = u32::try_from(number % 3).expect("small");
                acknowledged
                    .push(((partition, log.append(numbered(partition, number)).await.expect("append")), number));
            }
            acknowledged
        })
    });
    let acknowledged: BTreeMap<(u32, u64), u64> =
        join_all(tasks).await.into_iter().flat_map(|task| task.expect("no panic")).collect();
    assert_eq!(acknowledged.len() as u64, TASKS * EACH, "no offset was given twice");
    let mut found = BTreeMap::new();
    let mut latest = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in read_all(log.as_ref(), partition).await {
            let number = number(&record);
            found.insert((partition, record.offset), number);
            assert!(latest.insert((partition, number / EACH), number) < Some(number), "a task's order was lost");
        }
    }
    assert_eq!(found, acknowledged);
}

/// Records take their place when `append` is called, even if the futures are awaited in another order.
pub async fn order_of_calls_in_flight(subject: &impl Subject) {
    let log = subject.open().await;
    let mut appends: Vec<_> = (0..100).map(|number| log.append(numbered(0, number))).collect();
    appends.reverse();
    let offsets = try_join_all(appends).await.expect("append");
    assert!(offsets.is_sorted_by(|later, earlier| later > earlier));
    assert_eq!(numbers(&read_all(&log, 0).await), (0..100).collect::<Vec<_>>());
}

/// What is appended to one partition is not seen in another.
pub async fn partitions_are_independent(subject: &impl Subject) {
    let log = subject.open().await;
    append_numbered(&log, 0, 0..10).await;
    append_numbered(&log, 2, 10..15).await;
    assert_eq!(numbers(&read_all(&log, 0).await), (0..10).collect::<Vec<_>>());
    assert!(log.bounds(1).await.expect("bounds").is_empty());
    assert_eq!(numbers(&read_all(&log, 2).await), (10..15).collect::<Vec<_>>());
}

/// Empty headers and payloads, and the largest allowed ones, come back as they were.
pub async fn empty_and_large_records(subject: &impl Subject) {
    let log = subject.open().await;
    let largest = subject.too_large_bytes() - 1;
    let sizes = [(0, 0), (0, 5), (5, 0), (0, largest), (largest, 0), (largest / 2, largest - largest / 2), (0, 0)];
    let content = |bytes: usize| -> Bytes { (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect() };
    for (header, payload) in sizes {
        let append = Append { partition: 0, header: content(header), payload: content(payload) };
        log.append(append).await.expect("append");
    }
    let records = read_all(&log, 0).await;
    let found: Vec<_> = records.iter().map(|record| (record.header.len(), record.payload.len())).collect();
    assert_eq!(found, sizes);
    assert!(records.iter().all(|record| record.header == content(record.header.len())));
    assert!(records.iter().all(|record| record.payload == content(record.payload.len())));
}

/// A record that is too large is refused and leaves nothing behind.
pub async fn refuses_what_can_never_fit(subject: &impl Subject) {
    let log = subject.open().await;
    let payload = vec![0; subject.too_large_bytes()].into();
    assert_refused(log.append(Append { partition: 0, header: Bytes::new(), payload }).await);
    append_numbered(&log, 0, 0..1).await;
    assert_eq!(numbers(&read_all(&log, 0).await), [0]);
}

/// A partition that does not exist is refused by every verb.
pub async fn refuses_unknown_partitions(subject: &impl Subject) {
    let log = subject.open().await;
    assert_refused(log.append(numbered(PARTITIONS, 0)).await);
    assert_refused(log.read(PARTITIONS, 0, 1).await);
    assert_refused(log.wait_beyond(u32::MAX, 0).await);
    assert_refused(log.bounds(PARTITIONS).await);
    assert_refused(log.trim(0, &[0]).await);
}

/// Whatever `max_bytes` is, pages are no larger (unless it is one record), each advances, and together they are everything.
pub async fn reads_page_by_bytes(subject: &impl Subject) {
    let log = subject.open().await;
    append_numbered(&log, 0, 0..300).await;
    for max_bytes in [0, 1, 100, 1000, 5000, usize::MAX] {
        let start = log.bounds(0).await.expect("bounds").start;
        let first = log.read(0, start, max_bytes).await.expect("read");
        let bytes: usize = first.iter().map(|record| record.header.len() + record.payload.len()).sum();
        assert!(first.len() == 1 || bytes <= max_bytes, "{bytes} bytes for {max_bytes}");
        assert_eq!(numbers(&read_from(&log, 0, start, max_bytes).await), (0..300).collect::<Vec<_>>());
    }
}

/// Reading may start at any offset that was acknowledged.
pub async fn reads_from_any_offset(subject: &impl Subject) {
    let log = subject.open().await;
    let offsets = append_numbered(&log, 0, 0..500).await;
    for (number, offset) in offsets.iter().enumerate().rev().step_by(7) {
        let records = log.read(0, *offset, 1).await.expect("read");
        assert_eq!((records[0].offset, self::number(&records[0])), (*offset, number as u64));
    }
}

/// A position behind the end belongs to another log and is refused.
pub async fn refuses_offsets_outside_bounds(subject: &impl Subject) {
    let log = subject.open().await;
    append_numbered(&log, 0, 0..3).await;
    let end = log.bounds(0).await.expect("bounds").end;
    assert_eq!(log.read(0, end, 1 << 20).await, Ok(vec![]));
    assert_refused(log.read(0, end + 1, 1 << 20).await);
}

/// A watcher wakes when its partition has something beyond, and not before.
pub async fn watch_wakes(subject: &impl Subject) {
    let log = Arc::new(subject.open().await);
    let end = log.bounds(1).await.expect("bounds").end;
    let watcher = tokio::spawn({
        let log = log.clone();
        async move { log.wait_beyond(1, end).await }
    });
    append_numbered(log.as_ref(), 0, 0..5).await;
    assert!(!watcher.is_finished(), "another partition woke it");
    append_numbered(log.as_ref(), 1, 0..1).await;
    let woken = tokio::time::timeout(DEADLINE, watcher).await.expect("woken in time");
    assert_eq!(woken.expect("no panic"), Ok(()));
    assert_eq!(log.wait_beyond(1, end).await, Ok(()), "what is there already needs no waiting");
    assert_eq!(log.read(1, end, 1 << 20).await.expect("read").len(), 1);
}

/// Append times never decrease, across reopening too.
pub async fn append_times_never_decrease(subject: &impl Subject) {
    for round in 0..3 {
        let log = subject.open().await;
        append_numbered(&log, 0, round * 10..round * 10 + 10).await;
        let records = read_all(&log, 0).await;
        assert!(records.is_sorted_by_key(|record| record.append_time_us));
        assert_eq!(records.len() as u64, round * 10 + 10);
    }
}

/// What was acknowledged is there after closing and opening again, under the same offsets, and the log goes on from there.
pub async fn survives_reopening(subject: &impl Subject) {
    let mut expected: Vec<Record> = Vec::new();
    for round in 0..4 {
        let log = subject.open().await;
        assert_eq!(read_all(&log, 2).await, expected);
        append_numbered(&log, 2, round * 100..(round + 1) * 100).await;
        expected = read_all(&log, 2).await;
        assert_eq!(numbers(&expected), (0..(round + 1) * 100).collect::<Vec<_>>());
    }
}

/// The epoch stays the same over reopening.
pub async fn epoch_is_stable(subject: &impl Subject) {
    let epoch = subject.open().await.epoch();
    assert_eq!(subject.open().await.epoch(), epoch);
}

/// However old records are: those at or behind the folded offset stay readable, and bounds tell what went.
pub async fn trim_keeps_what_is_not_folded(subject: &impl Subject) {
    let log = subject.open().await;
    let offsets = append_numbered(&log, 1, 0..500).await;
    append_numbered(&log, 0, 0..500).await;
    for folded in [0, 1, 250, 400] {
        log.trim(i64::MAX, &[0, offsets[folded], 0]).await.expect("trim");
        let start = log.bounds(1).await.expect("bounds").start;
        assert!(start <= offsets[folded]);
        assert_eq!(
            numbers(&read_from(&log, 1, offsets[folded], 1 << 20).await),
            (folded as u64..500).collect::<Vec<_>>()
        );
        if start > 0 {
            assert_refused(log.read(1, start - 1, 1 << 20).await);
        }
    }
    assert_eq!(read_all(&log, 0).await.len(), 500, "the other partition is not folded at all");
}

/// However far the fold is: records younger than the retention stay.
pub async fn trim_keeps_what_is_young(subject: &impl Subject) {
    let log = subject.open().await;
    append_numbered(&log, 0, 0..500).await;
    let records = read_all(&log, 0).await;
    let end = log.bounds(0).await.expect("bounds").end;
    let removed = log.trim(records[0].append_time_us, &[end, 0, 0]).await.expect("trim");
    assert_eq!((removed, read_all(&log, 0).await), (0, records));
}

/// A process that reads alone is told to fold all partitions; noting how far it is changes nothing.
pub async fn a_single_reader_is_assigned_everything(subject: &impl Subject) {
    let log = subject.open().await;
    append_numbered(&log, 1, 0..10).await;
    let mut assignment = log.assignment();
    let is_all = |assignment: &Assignment| assignment.partitions.iter().copied().eq(0..PARTITIONS);
    let assigned = tokio::time::timeout(DEADLINE, assignment.wait_for(is_all)).await.expect("assigned in time");
    drop(assigned.expect("the log is open"));
    log.commit(1, 5);
    log.commit(1, 0);
    log.commit(u32::MAX, u64::MAX);
    assert_eq!(numbers(&read_all(&log, 1).await), (0..10).collect::<Vec<_>>());
    assert!(is_all(&log.assignment().borrow()), "it was all the time");
}
