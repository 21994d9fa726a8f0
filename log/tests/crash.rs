//! 200 SIGKILLs of a process that appends, rolls and trims: each acknowledged record is there after, none twice, none torn.
//!
//! The child is this test binary run again with [`CHILD_DIRECTORY`] set. It reports every acknowledgement over its standard
//! output; the parent kills it at a random moment, opens the log and compares.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flagmint_log::{Append, DecisionLog, LocalLog, Options, Record};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const CHILD_DIRECTORY: &str = "FLAGMINT_LOG_CRASH_DIRECTORY";
const CHILD_RUN: &str = "FLAGMINT_LOG_CRASH_RUN";
const KILLS: u64 = 200;
const PARTITIONS: u32 = 2;
/// Longest time from starting the child to killing it: half of it is spent in start and recovery, which must survive kills, too.
const LONGEST_LIFE: Duration = Duration::from_millis(200);
/// Records of a partition the child keeps when it trims.
const KEPT: u64 = 100;

fn options(directory: &Path) -> Options {
    // Small segments, so that many kills fall into a segment switch or a trim.
    Options { segment_bytes: 128 << 10, ..Options::new(directory, PARTITIONS) }
}

/// The record of a number; its payload of 0 to 6000 bytes follows from the number alone.
fn numbered(partition: u32, number: u64) -> Append {
    let mut random = SmallRng::seed_from_u64(number);
    let mut payload = vec![0; random.random_range(0..6000)];
    random.fill_bytes(&mut payload);
    Append { partition, header: Bytes::copy_from_slice(&number.to_le_bytes()), payload: payload.into() }
}

/// Not a test of its own: the process that is killed.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let run: u64 = std::env::var(CHILD_RUN).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Arc::new(LocalLog::open(options(Path::new(&directory))).unwrap());
        let tasks: Vec<_> = (0..8).map(|task| tokio::spawn(append_forever(log.clone(), run, task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn append_forever(log: Arc<LocalLog>, run: u64, task: u64) {
    let partition = u32::try_from(task).expect("small") % PARTITIONS;
    for count in 0.. {
        let number = (run << 32) | (task << 24) | count;
        let offset = log.append(numbered(partition, number)).await.expect("append");
        report(&format!("ack {partition} {offset} {number}\n"));
        if task < u64::from(PARTITIONS) && count % 8 == 7 && offset > KEPT {
            let mut folded = [0; PARTITIONS as usize];
            folded[partition as usize] = offset - KEPT;
            report(&format!("trim {partition} {} 0\n", offset - KEPT));
            log.trim(i64::MAX, &folded).await.expect("trim");
        }
    }
}

/// One write below the pipe's atomic size: a kill cannot cut the line.
fn report(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads");
}

/// What the parent knows to be true of one partition.
#[derive(Default)]
struct Expected {
    acknowledged: BTreeMap<u64, u64>,
    may_be_trimmed_below: u64,
}

impl Expected {
    fn take(&mut self, verb: &str, offset: u64, number: u64) {
        if verb == "trim" {
            self.may_be_trimmed_below = self.may_be_trimmed_below.max(offset);
        } else if let Some(other) = self.acknowledged.insert(offset, number) {
            panic!("offset {offset} was acknowledged for both {other} and {number}");
        }
    }

    fn check(&mut self, start: u64, records: &[Record]) {
        assert!(start <= self.may_be_trimmed_below, "trimmed up to {start}");
        let mut numbers = HashSet::new();
        let mut stored = BTreeMap::new();
        for (record, offset) in records.iter().zip(start..) {
            let number = u64::from_le_bytes(record.header[..].try_into().expect("eight bytes"));
            assert_eq!(record.offset, offset, "offsets have no holes");
            assert_eq!(record.payload, numbered(record.partition, number).payload, "torn record {number}");
            assert!(numbers.insert(number), "record {number} is there twice");
            stored.insert(offset, number);
        }
        self.acknowledged = self.acknowledged.split_off(&start);
        for (offset, number) in &self.acknowledged {
            assert_eq!(stored.get(offset), Some(number), "acknowledged record {number} at offset {offset}");
        }
    }
}

/// Runs the child for `life`, kills it, and takes in what it reported. Returns the number of acknowledgements.
fn run_and_kill(directory: &Path, run: u64, life: Duration, expected: &mut [Expected]) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_RUN, run.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the child");
    let stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(life);
    assert_eq!(child.try_wait().expect("child status"), None, "the child ended by itself");
    child.kill().expect("kill");
    child.wait().expect("wait");
    let mut acknowledged = 0;
    for line in reader.join().expect("reader") {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [verb @ ("ack" | "trim"), partition, offset, number] = fields[..] {
            let number_of = |text: &str| text.parse::<u64>().expect("number");
            let partition = usize::try_from(number_of(partition)).expect("small");
            expected[partition].take(verb, number_of(offset), number_of(number));
            acknowledged += u64::from(verb == "ack");
        }
    }
    acknowledged
}

async fn check(directory: &Path, expected: &mut [Expected]) {
    let log = LocalLog::open(options(directory)).expect("recovery");
    for (expected, partition) in expected.iter_mut().zip(0..) {
        let bounds = log.bounds(partition).await.expect("bounds");
        let mut records: Vec<Record> = Vec::new();
        while bounds.start + (records.len() as u64) < bounds.end {
            let next = bounds.start + records.len() as u64;
            records.extend(log.read(partition, next, 1 << 20).await.expect("read"));
        }
        expected.check(bounds.start, &records);
    }
}

#[test]
fn acknowledged_records_survive_200_kills() {
    if std::env::var_os(CHILD_DIRECTORY).is_some() {
        return;
    }
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut expected: Vec<Expected> = (0..PARTITIONS).map(|_| Expected::default()).collect();
    let (mut acknowledged, mut barren, started) = (0, 0, Instant::now());
    for run in 0..KILLS {
        let life = random.random_range(Duration::ZERO..LONGEST_LIFE);
        let new = run_and_kill(directory.path(), run, life, &mut expected);
        acknowledged += new;
        barren += u64::from(new == 0);
        runtime.block_on(check(directory.path(), &mut expected));
    }
    println!(
        "{KILLS} kills, {barren} before the first acknowledgement, {acknowledged} records acknowledged, trimmed below {:?}, {:?}",
        expected.iter().map(|partition| partition.may_be_trimmed_below).collect::<Vec<_>>(),
        started.elapsed()
    );
    assert!(acknowledged > KILLS, "the child hardly worked: nothing was tested");
    assert!(expected.iter().all(|partition| partition.may_be_trimmed_below > 0), "nothing was trimmed");
}
