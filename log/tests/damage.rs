//! Directories that are not as a log left them: torn tails are cut, damage is refused with a message that says where and what to do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flagmint_log::{Append, DecisionLog, LocalLog, LogError, Options};
use futures::future::try_join_all;
use proptest::prelude::*;

const PAYLOAD_BYTES: usize = 100;
/// 36 bytes of head, then header and payload.
const FRAME_BYTES: usize = 36 + 1 + PAYLOAD_BYTES;
const RECORDS: usize = 10;
const CHILD_DIRECTORY: &str = "FLAGMINT_LOG_HOLDER_DIRECTORY";

fn options(directory: &Path) -> Options {
    Options { segment_bytes: 4 << 10, group_linger: Duration::ZERO, ..Options::new(directory, 1) }
}

fn open(directory: &Path) -> Result<LocalLog, LogError> {
    LocalLog::open(options(directory))
}

fn record(number: usize) -> Append {
    let fill = u8::try_from(number % 256).expect("a byte");
    Append { partition: 0, header: Bytes::from(vec![fill]), payload: Bytes::from(vec![fill; PAYLOAD_BYTES]) }
}

/// Appends records one commit group each.
async fn fill(directory: &Path, records: std::ops::Range<usize>) {
    let log = open(directory).expect("open");
    for number in records {
        log.append(record(number)).await.expect("append");
    }
}

fn segment(directory: &Path, base: usize) -> PathBuf {
    directory.join("p0").join(format!("{base:020}.seg"))
}

/// Makes an orderly close look like a crash.
fn forget_close(directory: &Path) {
    fs::remove_file(directory.join("CLOSED")).expect("closed in order");
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("write");
}

/// What opening must come to: so many records, or a fatal error naming the segment and that record's place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Records(usize),
    DamagedAt(usize),
}
use Outcome::{DamagedAt, Records};

async fn outcome(directory: &Path) -> Outcome {
    match open(directory) {
        Ok(log) => {
            let end = log.bounds(0).await.expect("bounds").end;
            let records = if end == 0 { Vec::new() } else { log.read(0, 0, 1 << 20).await.expect("read") };
            assert_eq!(records.len() as u64, end);
            for (number, found) in records.iter().enumerate() {
                assert_eq!((&found.header, &found.payload), (&record(number).header, &record(number).payload));
            }
            // The log goes on where it ended, and a second look finds the same.
            assert_eq!(log.append(record(records.len())).await, Ok(end));
            drop(log);
            let again = open(directory).expect("reopen");
            assert_eq!(again.read(0, 0, 1 << 20).await.expect("read").len(), records.len() + 1);
            Records(records.len())
        }
        Err(LogError::Fatal(text)) => {
            let position = text.split("at byte ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a position");
            let number = position.parse::<usize>().expect("a number") / FRAME_BYTES;
            for part in
                [segment(directory, 0).to_str().expect("text"), &format!("(offset {number})"), "restore", "move"]
            {
                assert!(text.contains(part), "{text:?} does not say {part:?}");
            }
            DamagedAt(number)
        }
        Err(other) => panic!("{other}"),
    }
}

/// Name, what happens to the file, what must come of it after a crash, what after an orderly close.
type Case = (&'static str, fn(&mut Vec<u8>), Outcome, Outcome);

const fn at(frame: usize) -> usize {
    frame * FRAME_BYTES
}

const CASES: &[Case] = &[
    ("nothing happens", |_| {}, Records(10), Records(10)),
    ("last frame half written", |file| file[at(9) + 60..].fill(0), Records(9), DamagedAt(9)),
    ("file cut inside the last frame", |file| file.truncate(at(9) + 60), Records(9), DamagedAt(9)),
    ("file cut inside the last head", |file| file.truncate(at(9) + 5), Records(9), DamagedAt(9)),
    ("file cut between frames", |file| file.truncate(at(9)), Records(9), DamagedAt(9)),
    ("bit flipped in the last frame", |file| file[at(10) - 1] ^= 1, Records(9), DamagedAt(9)),
    ("garbage behind the end", |file| file[at(10)..at(10) + 700].fill(0xab), Records(10), Records(10)),
    ("copy of an older frame behind the end", |file| file.copy_within(at(3)..at(4), at(10)), Records(10), Records(10)),
    ("bit flipped in a payload", |file| file[at(5) + 99] ^= 16, DamagedAt(5), DamagedAt(5)),
    ("bit flipped in a magic", |file| file[0] ^= 1, DamagedAt(0), DamagedAt(0)),
    ("bit flipped in an offset", |file| file[at(4) + 16] ^= 1, DamagedAt(4), DamagedAt(4)),
    ("huge length", |file| file[at(5) + 4..at(5) + 8].fill(0xff), DamagedAt(5), DamagedAt(5)),
    ("length beyond the file", |file| file[at(5) + 6] = 0x7f, DamagedAt(5), DamagedAt(5)),
    ("frames zeroed", |file| file[at(2)..at(5)].fill(0), DamagedAt(2), DamagedAt(2)),
    ("a frame removed", |file| drop(file.drain(at(6)..at(7))), DamagedAt(6), DamagedAt(6)),
    ("two frames swapped", |file| file[at(6)..at(8)].rotate_left(FRAME_BYTES), DamagedAt(6), DamagedAt(6)),
    ("file emptied", |file| file.clear(), Records(0), DamagedAt(0)),
];

#[tokio::test]
async fn torn_tails_are_cut_and_damage_is_refused() {
    for (name, change, after_crash, after_close) in CASES {
        for (crashed, expected) in [(true, after_crash), (false, after_close)] {
            let directory = tempfile::tempdir().unwrap();
            fill(directory.path(), 0..RECORDS).await;
            if crashed {
                forget_close(directory.path());
            }
            edit(&segment(directory.path(), 0), change);
            let before = fs::read(segment(directory.path(), 0)).unwrap();
            assert_eq!(outcome(directory.path()).await, *expected, "{name}, crashed: {crashed}");
            if matches!(expected, DamagedAt(_)) {
                assert_eq!(fs::read(segment(directory.path(), 0)).unwrap(), before, "{name}: evidence was changed");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// After an orderly close any change to durable bytes is refused at the record it is in; changes behind them do not matter.
    #[test]
    fn any_change_after_an_orderly_close_is_located(start in 0..at(RECORDS + 2), bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let directory = tempfile::tempdir().unwrap();
            fill(directory.path(), 0..RECORDS).await;
            let path = segment(directory.path(), 0);
            let before = fs::read(&path).unwrap();
            edit(&path, |file| file[start..start + bytes.len()].copy_from_slice(&bytes));
            let after = fs::read(&path).unwrap();
            let changed = before[..at(RECORDS)].iter().zip(&after).position(|(before, after)| before != after);
            let expected = changed.map_or(Records(RECORDS), |position| DamagedAt(position / FRAME_BYTES));
            assert_eq!(outcome(directory.path()).await, expected);
        });
    }
}

#[tokio::test]
async fn a_group_torn_in_its_middle_is_cut_but_not_if_a_later_group_exists() {
    for (later_group, expected) in [(false, Records(4)), (true, DamagedAt(4))] {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 0..3).await;
        let log = LocalLog::open(Options {
            group_linger: Duration::from_secs(2),
            group_bytes: 3 * FRAME_BYTES,
            ..options(directory.path())
        })
        .unwrap();
        try_join_all((3..6).map(|number| log.append(record(number)))).await.unwrap();
        drop(log);
        if later_group {
            fill(directory.path(), 6..7).await;
        }
        forget_close(directory.path());
        edit(&segment(directory.path(), 0), |file| file[at(4)..at(5)].fill(0));
        assert_eq!(outcome(directory.path()).await, expected, "later group: {later_group}");
    }
}

#[tokio::test]
async fn damage_in_a_sealed_segment_is_refused_when_read() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..100).await;
    let path = segment(directory.path(), 0);
    edit(&path, |file| file[at(5) + 50] ^= 1);
    let log = open(directory.path()).unwrap();
    let before = log.read(0, 0, 5 * FRAME_BYTES).await.unwrap();
    assert_eq!(before.len(), 5);
    let error = log.read(0, 5, 1 << 20).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, LogError::Fatal(_)) && text.contains(path.to_str().unwrap()), "{text}");
    assert!(text.contains("at byte 685 (offset 5)"), "{text}");
    assert_eq!(log.append(record(100)).await, Ok(100), "the partition still takes records");
}

#[tokio::test]
async fn a_missing_segment_in_the_middle_is_refused_when_read() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..100).await;
    let bases: Vec<usize> = (1..100).filter(|base| segment(directory.path(), *base).exists()).collect();
    fs::remove_file(segment(directory.path(), bases[0])).unwrap();
    let log = open(directory.path()).unwrap();
    assert!(!log.read(0, 0, 1 << 20).await.unwrap().is_empty());
    let missing = bases[0] as u64;
    let error = log.read(0, missing, 1 << 20).await.unwrap_err();
    let text = format!("ends before offset {missing}: the file was cut, or the segment file after it is missing");
    assert!(matches!(&error, LogError::Fatal(message) if message.contains(&text)), "{error}");
    assert!(!log.read(0, bases[1] as u64, 1 << 20).await.unwrap().is_empty());
}

#[tokio::test]
async fn other_directories_are_refused() {
    type Change = fn(&Path);
    let cases: &[(Change, &str)] = &[
        (
            |path| fs::write(path, "flagmint-log 2\nepoch 00\npartitions 1\n").unwrap(),
            "has format version 2, this program reads version 1",
        ),
        (
            |path| fs::write(path, "flagmint-log 1\nepoch 00\npartitions 8\n").unwrap(),
            "has 8 partitions, 1 were asked for",
        ),
        (|path| fs::write(path, "flagmint-log 1\nepoch zz\npartitions 1\n").unwrap(), "cannot be read: restore"),
        (|path| fs::write(path, "something else").unwrap(), "not the format file of a decision log"),
        (|path| fs::remove_file(path).unwrap(), "holds segments but no FORMAT file"),
    ];
    for (change, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 0..3).await;
        change(&directory.path().join("FORMAT"));
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(&error, LogError::Refuse(text) if text.contains(expected)), "{error} instead of {expected}");
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let usual = options(directory.path());
    let none = Options { partitions: 0, ..usual.clone() };
    let many = Options { partitions: 257, ..usual.clone() };
    let small = Options { segment_bytes: 100, ..usual.clone() };
    let large = Options { segment_bytes: 1 << 40, ..usual };
    for (options, setting) in
        [(none, "partitions"), (many, "partitions"), (small, "segment_bytes"), (large, "segment_bytes")]
    {
        let error = LocalLog::open(options).unwrap_err();
        assert!(matches!(&error, LogError::Refuse(text) if text.contains(setting)), "{error}");
    }
}

/// Not a test of its own: the process that holds the directory.
#[test]
fn holder() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let _log = open(Path::new(&directory)).unwrap();
    println!("\nholding");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

#[test]
fn a_second_process_is_refused_with_the_id_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--nocapture"])
        .env(CHILD_DIRECTORY, directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "holding"));
    let error = open(directory.path()).unwrap_err();
    let expected = format!("is held by process {}", child.id());
    assert!(matches!(&error, LogError::Refuse(text) if text.contains(&expected)), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let log = Arc::new(open(directory.path()).unwrap());
    let error = open(directory.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(log);
}
