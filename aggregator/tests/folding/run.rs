//! The loop around the fold, on a real log and a real store: whatever the store refuses and wherever the loop is cut off, the
//! answers are those of a loop that was never disturbed.

use std::future::pending;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{LIMITS, World, seed};
use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use flagmint_aggregator::fold::FoldLimits;
use flagmint_aggregator::{RunError, Settings, Status, run};
use flagmint_log::{Append, DecisionLog, LocalLog, Options};
use flagmint_schemas::rollup::Table;
use flagmint_store::parquet::{Options as StoreOptions, ParquetStore};
use flagmint_store::{Emission, Period, Position, RollupQuery, RollupStore, Rows, StoreError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};

const PARTITIONS: u32 = 2;

pub fn settings() -> (Settings, watch::Receiver<Status>) {
    let (dead_letters, mut taken) = mpsc::channel(8);
    tokio::spawn(async move { while taken.recv().await.is_some() {} });
    let (status, statuses) = watch::channel(Status::default());
    (Settings { fold: LIMITS, ..Settings::new(dead_letters, status) }, statuses)
}

pub fn open_store(directory: &Path) -> ParquetStore {
    ParquetStore::open(directory, &StoreOptions::default()).unwrap()
}

async fn append(log: &LocalLog, world: &World, range: std::ops::Range<usize>) {
    for record in &world.records[range] {
        let partition = record.offset as u32 % PARTITIONS;
        let append = Append { partition, header: record.header.clone(), payload: record.payload.clone() };
        log.append(append).await.unwrap();
    }
}

/// Waits until nobody holds the store any more: tasks that are told to end do so in their own time.
async fn closed(store: Arc<ParquetStore>) {
    let held = Arc::downgrade(&store);
    drop(store);
    while held.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Folds all of the log and ends in order.
pub async fn drain<L: DecisionLog, S: RollupStore>(log: &Arc<L>, store: Arc<S>) -> Result<(), RunError> {
    run(Arc::clone(log), store, settings().0, std::future::ready(())).await
}

/// Sums over everything, of columns of different tables.
pub async fn totals(store: &impl RollupStore) -> Vec<u64> {
    let columns = [
        (Table::Ledger, "produced"),
        (Table::Ledger, "counted"),
        (Table::Ledger, "duplicate_decisions"),
        (Table::Ledger, "parked_records"),
        (Table::Decisions, "count"),
        (Table::Latency, "count"),
        (Table::Usage, "api_calls"),
    ];
    let mut sums = Vec::new();
    for (table, column) in columns {
        let query = RollupQuery {
            table,
            organization: None,
            time_us: 0..i64::MAX,
            filters: vec![],
            group_by: vec!["environment"],
            period: Period::Whole,
            values: None,
            having: None,
            page: None,
        };
        let batch = store.query(&query).await.unwrap().batch;
        sums.push(batch[column].as_primitive::<UInt64Type>().iter().flatten().sum());
    }
    sums
}

/// What a loop answers that nothing disturbs.
async fn undisturbed(log: &Arc<LocalLog>) -> Vec<u64> {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open_store(directory.path()));
    drain(log, Arc::clone(&store)).await.unwrap();
    let sums = totals(&*store).await;
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}");
    sums
}

/// A store that says "later" for a while.
struct Refusing {
    store: ParquetStore,
    refusals_left: AtomicU32,
    refused: Mutex<Option<Emission>>,
}

impl Refusing {
    fn new(store: ParquetStore, refusals: u32) -> Self {
        Self { store, refusals_left: AtomicU32::new(refusals), refused: Mutex::default() }
    }
}

impl RollupStore for Refusing {
    async fn upsert(&self, emission: Emission) -> Result<(), StoreError> {
        let before = self.refused.lock().unwrap().take();
        if let Some(before) = before {
            assert_eq!(
                (&before.cells, &before.positions),
                (&emission.cells, &emission.positions),
                "offered again as it was"
            );
        }
        let left = self.refusals_left.load(Ordering::Relaxed);
        if left == 0 {
            return self.store.upsert(emission).await;
        }
        self.refusals_left.store(left - 1, Ordering::Relaxed);
        *self.refused.lock().unwrap() = Some(emission);
        Err(StoreError::Retry("not now".into()))
    }

    async fn query(&self, query: &RollupQuery) -> Result<Rows, StoreError> {
        self.store.query(query).await
    }

    async fn resume_positions(&self) -> Result<Vec<Position>, StoreError> {
        self.store.resume_positions().await
    }

    fn complete_through_us(&self) -> Option<i64> {
        self.store.complete_through_us()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_cells_are_offered_again_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(Options::new(directory.path().join("log"), PARTITIONS)).unwrap());
    let world = World::generate(seed(), 400);
    let store = Arc::new(Refusing::new(open_store(&directory.path().join("rollups")), 4));
    let (settings, mut statuses) = settings();
    let (stop, stopped) = oneshot::channel::<()>();
    let folding = tokio::spawn(run(Arc::clone(&log), Arc::clone(&store), settings, async { drop(stopped.await) }));
    append(&log, &world, 0..100).await;
    let status = statuses.wait_for(|status| status.upsert_retries > 0).await.unwrap().clone();
    assert!(
        status.partitions.iter().all(|partition| partition.emitted_offset == 0),
        "refused is not emitted: {status:?}"
    );
    append(&log, &world, 100..400).await;
    statuses.wait_for(|status| status.partitions.iter().any(|partition| partition.emitted_offset > 0)).await.unwrap();
    drop(stop);
    folding.await.unwrap().unwrap();
    assert_eq!(statuses.borrow().upsert_retries, 4);
    assert_eq!(totals(&*store).await, undisturbed(&log).await);
}

/// A store that keeps what it is given.
#[derive(Default)]
struct Keeping(Mutex<Vec<Emission>>);

impl RollupStore for Keeping {
    async fn upsert(&self, emission: Emission) -> Result<(), StoreError> {
        self.0.lock().unwrap().push(emission);
        Ok(())
    }

    async fn query(&self, _: &RollupQuery) -> Result<Rows, StoreError> {
        Err(StoreError::Refuse("it cannot".into()))
    }

    async fn resume_positions(&self) -> Result<Vec<Position>, StoreError> {
        Ok(Vec::new())
    }

    fn complete_through_us(&self) -> Option<i64> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_go_first_and_the_rest_follows_though_nothing_more_comes() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(Options::new(directory.path(), PARTITIONS)).unwrap());
    let store = Arc::new(Keeping::default());
    let (settings, mut statuses) = settings();
    let settings = Settings { whole_interval: Duration::from_secs(3), fold: FoldLimits::default(), ..settings };
    let (stop, stopped) = oneshot::channel::<()>();
    let folding = tokio::spawn(run(Arc::clone(&log), Arc::clone(&store), settings, async { drop(stopped.await) }));
    append(&log, &World::generate(seed(), 100), 0..100).await;
    let is_emitted = |status: &Status| {
        status.partitions.len() == PARTITIONS as usize
            && status.partitions.iter().all(|partition| partition.emitted_offset >= 50)
    };
    statuses.wait_for(is_emitted).await.unwrap();
    let emissions = std::mem::take(&mut *store.0.lock().unwrap());
    let (last, before) = emissions.split_last().unwrap();
    let tables = |emission: &Emission| emission.cells.iter().map(|(table, _)| *table).collect::<Vec<_>>();
    assert!(tables(last).contains(&Table::Contexts) && tables(last).contains(&Table::Ledger), "{:?}", tables(last));
    assert!(!before.is_empty(), "counts were not emitted by themselves");
    for emission in before {
        assert!(emission.positions.is_empty(), "counts vouch for nothing");
        let counts = [Table::Decisions, Table::Latency, Table::Totals, Table::Usage];
        assert!(tables(emission).iter().all(|table| counts.contains(table)), "{:?}", tables(emission));
    }
    drop(stop);
    folding.await.unwrap().unwrap();
}

/// While it is not time, and so much waits that it must not.
async fn early(fold: FoldLimits, is_awaited: impl Fn(&[Emission]) -> bool) -> Vec<Emission> {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(Options::new(directory.path(), PARTITIONS)).unwrap());
    let store = Arc::new(Keeping::default());
    let (settings, _statuses) = settings();
    let hour = Duration::from_secs(3600);
    let settings = Settings {
        emit_interval_min: hour,
        emit_interval: hour,
        whole_interval: hour,
        pending_cells: 20,
        fold,
        ..settings
    };
    let folding = tokio::spawn(run(Arc::clone(&log), Arc::clone(&store), settings, pending()));
    append(&log, &World::generate(seed(), 300), 0..300).await;
    while !is_awaited(&store.0.lock().unwrap()) {
        tokio::task::yield_now().await;
    }
    folding.abort();
    assert!(folding.await.unwrap_err().is_cancelled());
    std::mem::take(&mut *store.0.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_memory_goes_alone_before_its_time() {
    let of_contexts = early(FoldLimits::default(), |emissions| !emissions.is_empty()).await;
    for Emission { cells, positions } in of_contexts {
        assert!(positions.is_empty(), "contexts vouch for nothing");
        assert_eq!(cells.iter().map(|(table, _)| *table).collect::<Vec<_>>(), [Table::Contexts]);
    }
    let chunks = |emission: &Emission| {
        let rows = emission.cells.iter().filter(|(table, _)| *table == Table::Chunks);
        rows.flat_map(|(_, rows)| rows["complete"].as_primitive::<UInt64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    let are_closed =
        |emissions: &[Emission]| emissions.iter().map(|emission| chunks(emission).len()).sum::<usize>() >= 10;
    for emission in early(LIMITS, are_closed).await {
        assert!(chunks(&emission).iter().all(|complete| *complete == 1), "an open chunk was emitted");
        assert!(emission.positions.iter().all(|position| position.next_offset == position.chunk));
        assert_eq!(chunks(&emission).is_empty(), emission.positions.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_cut_off_anywhere_is_resumed_without_a_trace() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(Options::new(directory.path().join("log"), PARTITIONS)).unwrap());
    let world = World::generate(seed, 1000);
    let rollups = directory.path().join("rollups");
    let mut resumed_later = 0;
    for part in 0..20 {
        let store = Arc::new(open_store(&rollups));
        let resumes = store.resume_positions().await.unwrap();
        resumed_later += usize::from(resumes.iter().any(|position| position.chunk > 0));
        let (settings, mut statuses) = settings();
        let folding = tokio::spawn(run(Arc::clone(&log), Arc::clone(&store), settings, pending()));
        append(&log, &world, part * 50..(part + 1) * 50).await;
        if part % 4 == 1 {
            let all = (part as u64 + 1) * 50 / u64::from(PARTITIONS);
            let is_emitted =
                |status: &Status| status.partitions.iter().all(|partition| partition.emitted_offset >= all);
            statuses.wait_for(is_emitted).await.unwrap();
            store.flush().await.unwrap();
        } else {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
        folding.abort();
        assert!(folding.await.unwrap_err().is_cancelled());
        closed(store).await;
    }
    assert!(resumed_later > 0, "seed {seed}: no restart began behind the first chunk");
    let store = Arc::new(open_store(&rollups));
    drain(&log, Arc::clone(&store)).await.unwrap();
    assert_eq!(totals(&*store).await, undisturbed(&log).await, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_takes_the_last_cells_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(Options::new(directory.path().join("log"), PARTITIONS)).unwrap());
    append(&log, &World::generate(seed(), 300), 0..300).await;
    let rollups = directory.path().join("rollups");
    let store = Arc::new(Refusing::new(open_store(&rollups), u32::MAX));
    let ended = drain(&log, Arc::clone(&store)).await;
    assert!(matches!(ended, Err(RunError::Store(StoreError::Retry(_)))), "{ended:?}");
    drop(store);
    let store = Arc::new(open_store(&rollups));
    drain(&log, Arc::clone(&store)).await.unwrap();
    assert_eq!(totals(&*store).await, undisturbed(&log).await, "the log still had everything");
}
