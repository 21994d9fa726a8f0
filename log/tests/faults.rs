//! What the world does to a running log: clock set back, fsync failing, a slow disk, closing under load, trimming.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flagmint_log::{Append, DecisionLog, LocalLog, LogError, Options};
use futures::future::{join_all, try_join_all};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

const DEADLINE: Duration = Duration::from_secs(20);

fn options(directory: &Path) -> Options {
    Options { segment_bytes: 4 << 10, group_linger: Duration::ZERO, ..Options::new(directory, 1) }
}

fn record(bytes: usize) -> Append {
    Append { partition: 0, header: Bytes::new(), payload: Bytes::from(vec![7; bytes]) }
}

fn segments(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory.join("p0")).expect("p0").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn append_times_follow_the_clock_but_never_back() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(0));
    let open = || {
        let clock = clock.clone();
        LocalLog::open(Options { clock: Arc::new(move || clock.load(Ordering::SeqCst)), ..options(directory.path()) })
            .unwrap()
    };
    let mut log = open();
    // 3000 bytes: every record begins a segment, so the last one can be found empty or alone on reopening.
    for (reopen, now_us) in
        [(false, 100), (false, 200), (false, 50), (true, 60), (false, 199), (false, 201), (true, -5)]
    {
        if reopen {
            drop(log);
            log = open();
        }
        clock.store(now_us, Ordering::SeqCst);
        log.append(record(3000)).await.unwrap();
    }
    let mut times_us = Vec::new();
    while let Some(record) = log.read(0, times_us.len() as u64, 1).await.unwrap().first() {
        times_us.push(record.append_time_us);
    }
    assert_eq!(times_us, [100, 200, 200, 200, 200, 201, 201]);
}

#[tokio::test]
async fn a_failed_fsync_is_final_until_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let sync_data = {
        let broken = broken.clone();
        move |file: &File| {
            if broken.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { file.sync_data() }
        }
    };
    let log = LocalLog::open(Options { sync_data: Arc::new(sync_data), ..options(directory.path()) }).unwrap();
    assert_eq!(log.append(record(10)).await, Ok(0));
    broken.store(true, Ordering::SeqCst);
    let watch = log.wait_beyond(0, 1);
    let failed = log.append(record(10)).await.unwrap_err();
    assert!(
        matches!(&failed, LogError::Fatal(text) if text.contains("fsync of") && text.contains("start again")),
        "{failed}"
    );
    broken.store(false, Ordering::SeqCst);
    assert_eq!(log.append(record(10)).await, Err(failed.clone()), "once is enough");
    assert_eq!(tokio::time::timeout(DEADLINE, watch).await.unwrap(), Err(failed));
    assert_eq!(log.bounds(0).await, Ok(0..1));
    assert_eq!(log.read(0, 0, 1 << 20).await.unwrap().len(), 1, "what is durable stays readable");
    drop(log);
    let log = LocalLog::open(options(directory.path())).unwrap();
    assert!(log.append(record(10)).await.is_ok());
}

#[tokio::test]
async fn a_panic_in_the_writer_leaves_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(|| panic!("a clock that panics, on purpose"));
    let log = LocalLog::open(Options { clock, ..options(directory.path()) }).unwrap();
    let watch = log.wait_beyond(0, 0);
    assert!(matches!(log.append(record(10)).await, Err(LogError::Fatal(_))));
    assert!(matches!(tokio::time::timeout(DEADLINE, watch).await.unwrap(), Err(LogError::Fatal(_))));
    drop(log);
    assert_eq!(LocalLog::open(options(directory.path())).unwrap().bounds(0).await, Ok(0..0));
}

/// A metrics recorder that knows the one counter of pushed-back records.
#[derive(Default)]
struct Counted {
    queue_full: Arc<AtomicU64>,
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "flagmint_log_queue_full_total" {
            Counter::from_arc(self.queue_full.clone())
        } else {
            Counter::noop()
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn a_slow_disk_pushes_back() {
    for (queue_records, queue_bytes, limit) in [(4, usize::MAX, "records"), (1000, 4 * 136, "bytes")] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Mutex::new(()));
        let sync_data = {
            let disk = disk.clone();
            move |file: &File| {
                let _working = disk.lock().expect("no panic");
                file.sync_data()
            }
        };
        let options = Options {
            queue_records,
            queue_bytes,
            sync_data: Arc::new(sync_data),
            segment_bytes: 64 << 10,
            ..options(directory.path())
        };
        let log = LocalLog::open(options).unwrap();
        let stalled = disk.lock().unwrap();
        let counted = Counted::default();
        let call = || (0..100).map(|_| log.append(record(100))).collect::<Vec<_>>();
        let appends = metrics::with_local_recorder(&counted, call);
        drop(stalled);
        let results = join_all(appends).await;
        let taken = results.iter().filter(|result| result.is_ok()).count();
        let pushed_back = results
            .iter()
            .filter(|result| matches!(result, Err(LogError::Retry(text)) if text.contains(limit)))
            .count();
        assert_eq!(taken + pushed_back, 100);
        assert_eq!(counted.queue_full.load(Ordering::SeqCst), pushed_back as u64, "each refusal is counted");
        assert!(pushed_back > 0 && taken >= 4, "{taken} taken");
        assert_eq!(log.bounds(0).await, Ok(0..taken as u64), "what was pushed back is not there");
        assert_eq!(log.append(record(100)).await, Ok(taken as u64), "the queue is free again");
    }
}

#[tokio::test]
async fn dropping_the_log_writes_what_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let log = LocalLog::open(options(directory.path())).unwrap();
    let appends: Vec<_> = (0..200).map(|_| log.append(record(10))).collect();
    drop(appends);
    drop(log);
    let log = LocalLog::open(options(directory.path())).unwrap();
    assert_eq!(log.bounds(0).await, Ok(0..200));
}

#[tokio::test]
async fn trim_removes_old_and_folded_segments_only() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(0));
    let tick = clock.clone();
    let options = Options { clock: Arc::new(move || tick.fetch_add(1, Ordering::SeqCst)), ..options(directory.path()) };
    let log = LocalLog::open(options.clone()).unwrap();
    for _ in 0..10 {
        log.append(record(3000)).await.unwrap();
    }
    assert_eq!(segments(directory.path()).len(), 10, "one record a segment");
    // Limits in time and fold, and the first offset kept then.
    for (before_us, folded, start) in
        [(0, 10, 0), (i64::MAX, 0, 0), (100, 3, 3), (6, 10, 5), (i64::MAX, 10, 9), (i64::MAX, 10, 9)]
    {
        log.trim(before_us, &[folded]).await.unwrap();
        assert_eq!(log.bounds(0).await, Ok(start..10), "before {before_us} us, folded {folded}");
        assert_eq!(segments(directory.path()).len() as u64, 10 - start);
    }
    drop(log);
    let log = LocalLog::open(options).unwrap();
    assert_eq!(log.bounds(0).await, Ok(9..10), "offsets go on after everything else is gone");
    assert_eq!(log.append(record(10)).await, Ok(10));
}

#[tokio::test]
async fn readers_and_trim_at_once_see_records_or_a_clear_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(options(directory.path())).unwrap());
    try_join_all((0..400).map(|_| log.append(record(1000)))).await.unwrap();
    drop(log);
    let log = Arc::new(LocalLog::open(options(directory.path())).unwrap());
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                for from in 0..400 {
                    match log.read(0, from, 1).await {
                        Ok(records) => assert_eq!(records[0].offset, from),
                        Err(error) => {
                            assert!(matches!(&error, LogError::Refuse(text) if text.contains("trimmed")), "{error}")
                        }
                    }
                }
            })
        })
        .collect();
    for folded in 0..400 {
        log.trim(i64::MAX, &[folded]).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
