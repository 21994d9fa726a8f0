//! The loop follows what the log assigns: whoever folds which partition when, and however many fold one at the same time, the
//! answers are those of a plain count of the log.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use flagmint_aggregator::{RunError, Status, run};
use flagmint_log::{Append, Assignment, DecisionLog, LocalLog, LogError, Options, Record};
use flagmint_schemas::batch::{Batch, BatchHeader};
use flagmint_schemas::decision::Trigger;
use flagmint_schemas::rollup::Table;
use flagmint_store::{Period, RollupQuery, RollupStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::run::{drain, open_store, settings, totals};
use crate::support::{LIMITS, World, seed};

const PARTITIONS: u32 = 4;

/// A local log that several loops read, each through an assignment of its own that the test writes.
struct Scripted {
    log: Arc<LocalLog>,
    assignment: watch::Sender<Assignment>,
    commits: Mutex<Vec<(u32, u64)>>,
    is_gone: AtomicBool,
}

impl Scripted {
    fn new(log: &Arc<LocalLog>) -> Arc<Self> {
        let assignment = watch::Sender::new(Assignment::default());
        Arc::new(Self { log: Arc::clone(log), assignment, commits: Mutex::default(), is_gone: AtomicBool::new(false) })
    }

    fn assign(&self, partitions: impl IntoIterator<Item = u32>) {
        let generation = self.assignment.borrow().generation + 1;
        self.assignment.send_replace(Assignment { generation, partitions: partitions.into_iter().collect() });
    }
}

impl DecisionLog for Scripted {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn epoch(&self) -> u64 {
        self.log.epoch()
    }

    async fn append(&self, append: Append) -> Result<u64, LogError> {
        self.log.append(append).await
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(LogError::Fatal("it was made anew".into()));
        }
        self.log.read(partition, from, max_bytes).await
    }

    async fn wait_beyond(&self, partition: u32, after: u64) -> Result<(), LogError> {
        self.log.wait_beyond(partition, after).await
    }

    async fn bounds(&self, partition: u32) -> Result<Range<u64>, LogError> {
        self.log.bounds(partition).await
    }

    async fn trim(&self, before_append_time_us: i64, folded: &[u64]) -> Result<u64, LogError> {
        self.log.trim(before_append_time_us, folded).await
    }

    fn assignment(&self) -> watch::Receiver<Assignment> {
        self.assignment.subscribe()
    }

    fn commit(&self, partition: u32, chunk_start: u64) {
        self.commits.lock().unwrap().push((partition, chunk_start));
    }
}

fn open_log(directory: &Path) -> Arc<LocalLog> {
    Arc::new(LocalLog::open(Options::new(directory, PARTITIONS)).unwrap())
}

async fn append(log: &LocalLog, records: &[Record]) {
    for record in records {
        let partition = record.offset as u32 % PARTITIONS;
        let append = Append { partition, header: record.header.clone(), payload: record.payload.clone() };
        log.append(append).await.unwrap();
    }
}

/// Records of the ledger, those that are repetitions, and decisions, as plain loops over what was appended count them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    records: u64,
    duplicate_records: u64,
    parked_records: u64,
    counted: u64,
}

impl Count {
    fn add(&mut self, world: &World) {
        for partition in 0..PARTITIONS {
            let mut window = VecDeque::new();
            for record in world.records.iter().filter(|record| record.offset as u32 % PARTITIONS == partition) {
                let header = BatchHeader::decode(&record.header).ok();
                let name = header.map(|header| (header.producer, header.sequence));
                let is_copy = name.is_some() && window.contains(&name);
                window.push_back(name);
                if window.len() > LIMITS.duplicate_window_records {
                    window.pop_front();
                }
                self.records += 1;
                match header.map(|header| (header.is_heartbeat(), Batch::decode(&header, &record.payload))) {
                    _ if is_copy => self.duplicate_records += 1,
                    Some((true, _)) => {}
                    Some((false, Ok(batch))) => self.counted += evaluations(&batch),
                    _ => self.parked_records += 1,
                }
            }
        }
    }
}

/// Evaluations that a batch stands for: a row of a report says how many.
fn evaluations(batch: &Batch) -> u64 {
    let mut rows = batch.decisions.iter();
    let of_call = |call: &flagmint_schemas::batch::Call| {
        let is_report = batch.callers[call.caller as usize].trigger == Trigger::Report;
        let own = rows.by_ref().take(call.decisions as usize);
        own.map(|row| if is_report { u64::from(row.count) } else { 1 }).sum::<u64>()
    };
    batch.calls.iter().map(of_call).sum()
}

async fn column(store: &impl RollupStore, table: Table, name: &str, organization_rows: Period) -> Vec<u64> {
    let query = RollupQuery {
        table,
        organization: None,
        time_us: 0..i64::MAX,
        filters: vec![],
        group_by: vec![],
        period: organization_rows,
        values: None,
        having: None,
        page: None,
    };
    let batch = store.query(&query).await.unwrap().batch;
    batch[name].as_primitive::<UInt64Type>().iter().flatten().collect()
}

async fn counted(store: &impl RollupStore) -> Count {
    let sum = async |name| column(store, Table::Ledger, name, Period::Whole).await.iter().sum();
    Count {
        records: sum("records").await,
        duplicate_records: sum("duplicate_records").await,
        parked_records: sum("parked_records").await,
        counted: sum("counted").await,
    }
}

/// A loop that can be told to stop, or be cut off.
struct Loop {
    log: Arc<Scripted>,
    folding: JoinHandle<Result<(), RunError>>,
    stop: Option<oneshot::Sender<()>>,
    statuses: watch::Receiver<Status>,
}

impl Loop {
    fn start<S: RollupStore>(log: Arc<Scripted>, store: &Arc<S>) -> Self {
        let (settings, statuses) = settings();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let folding = tokio::spawn(run(Arc::clone(&log), Arc::clone(store), settings, stopped));
        Self { log, folding, stop: Some(stop), statuses }
    }

    async fn drain(mut self) {
        drop(self.stop.take());
        self.folding.await.unwrap().unwrap();
    }

    async fn cut_off(self) -> Arc<Scripted> {
        self.folding.abort();
        assert!(self.folding.await.unwrap_err().is_cancelled());
        self.log
    }
}

fn some(random: &mut StdRng) -> Vec<u32> {
    (0..PARTITIONS).filter(|_| random.random_ratio(1, 2)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_change_and_overlap_change_no_number() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let log = open_log(&directory.path().join("log"));
    let world = World::generate(seed, 1200);
    let store = Arc::new(open_store(&directory.path().join("rollups")));
    let start = |log: Arc<Scripted>| Loop::start(log, &store);
    let mut loops: Vec<Loop> = (0..3).map(|_| start(Scripted::new(&log))).collect();
    for part in world.records.chunks(20) {
        append(&log, part).await;
        let which = random.random_range(0..loops.len());
        match random.random_range(0..8) {
            0 => {
                let log = loops.swap_remove(which).cut_off().await;
                loops.push(start(log));
            }
            1 => store.flush().await.unwrap(),
            _ => loops[which].log.assign(some(&mut random)),
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
    }
    // Two of the three now have everything, at the same time.
    for (at, one) in loops.iter().enumerate() {
        one.log.assign((0..PARTITIONS).filter(|_| at > 0));
    }
    let mut commits = BTreeSet::new();
    for one in loops {
        let log = Arc::clone(&one.log);
        one.drain().await;
        commits.extend(log.commits.lock().unwrap().iter().copied());
    }
    let mut naive = Count::default();
    naive.add(&world);
    assert_eq!(counted(&*store).await, naive, "seed {seed}");
    let alone = tempfile::tempdir().unwrap();
    let undisturbed = Arc::new(open_store(alone.path()));
    drain(&log, Arc::clone(&undisturbed)).await.unwrap();
    assert_eq!(totals(&*store).await, totals(&*undisturbed).await, "seed {seed}");
    assert!(commits.len() > 10, "seed {seed}: {commits:?}");
    let starts = chunk_starts(&*undisturbed).await;
    assert!(commits.is_subset(&starts), "seed {seed}: only chunk starts are committed: {commits:?}, {starts:?}");
}

/// Where chunks start, and where the next ones would.
async fn chunk_starts(store: &impl RollupStore) -> BTreeSet<(u32, u64)> {
    let query = RollupQuery {
        table: Table::Chunks,
        organization: None,
        time_us: 0..i64::MAX,
        filters: vec![],
        group_by: vec!["partition", "chunk"],
        period: Period::Whole,
        values: None,
        having: None,
        page: None,
    };
    let batch = store.query(&query).await.unwrap().batch;
    let partitions = batch["partition"].as_primitive::<arrow::datatypes::UInt32Type>().values().iter().copied();
    let values = |name| batch[name].as_primitive::<UInt64Type>().values().iter().copied();
    let starts = partitions.clone().zip(values("chunk"));
    starts.chain(partitions.zip(values("next_offset"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_while_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_log(&directory.path().join("log"));
    let world = World::generate(seed(), 400);
    let store = Arc::new(open_store(&directory.path().join("rollups")));
    let (mut first, mut second) = (Loop::start(Scripted::new(&log), &store), Loop::start(Scripted::new(&log), &store));
    first.log.assign(0..PARTITIONS);
    append(&log, &world.records[..200]).await;
    first.statuses.wait_for(|status| (0..PARTITIONS).all(|number| is_emitted(status, number, 50))).await.unwrap();
    first.log.assign(0..3);
    second.log.assign([3]);
    append(&log, &world.records[200..]).await;
    let status = second.statuses.wait_for(|status| is_emitted(status, 3, 100)).await.unwrap().clone();
    assert_eq!(status.partitions.len(), 1, "{status:?}");
    let status =
        first.statuses.wait_for(|status| (0..3).all(|number| is_emitted(status, number, 100))).await.unwrap().clone();
    assert_eq!(status.partitions.iter().map(|one| one.partition).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(status.generation, 2);
    first.drain().await;
    second.drain().await;
    let mut naive = Count::default();
    naive.add(&world);
    assert_eq!(counted(&*store).await, naive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_made_anew_is_folded_from_its_beginning() {
    let seed = seed();
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (open_log(&directory.path().join("old")), open_log(&directory.path().join("new")));
    let (before, after) = (World::generate(seed, 300), World::generate(!seed, 120));
    let store = Arc::new(open_store(&directory.path().join("rollups")));
    let mut one = Loop::start(Scripted::new(&old), &store);
    append(&old, &before.records).await;
    one.log.assign(0..PARTITIONS);
    one.statuses.wait_for(|status| (0..PARTITIONS).all(|number| is_emitted(status, number, 75))).await.unwrap();
    one.log.is_gone.store(true, Ordering::Relaxed);
    append(&old, &before.records[..4]).await;
    let ended = one.folding.await.unwrap();
    assert!(matches!(ended, Err(RunError::Log(LogError::Fatal(_)))), "{ended:?}");
    append(&new, &after.records).await;
    let one = Loop::start(Scripted::new(&new), &store);
    one.log.assign(0..PARTITIONS);
    one.drain().await;
    let mut naive = Count::default();
    naive.add(&before);
    naive.add(&after);
    assert_eq!(counted(&*store).await, naive, "seed {seed}");
}

fn is_emitted(status: &Status, partition: u32, offset: u64) -> bool {
    status.partition(partition).is_some_and(|found| found.emitted_offset >= offset)
}
