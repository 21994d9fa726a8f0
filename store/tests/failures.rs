//! A full disk, damaged files, other versions, a second process: what the store says and what it keeps.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use flagmint_schemas::rollup::{Cell, Table, UsageCell};
use flagmint_store::parquet::{Options, ParquetStore};
use flagmint_store::{Emission, Period, Position, RollupQuery, RollupStore, StoreError};
use tempfile::TempDir;

const DAY_US: i64 = 86_400_000_000;

/// One cell in chunk `chunk`, which is final.
fn emission(chunk: u64) -> Emission {
    let cell = UsageCell {
        organization: OrganizationId::NONE,
        project: ProjectId::NONE,
        environment: EnvironmentId::NONE,
        key: KeyId::NONE,
        transport: 1,
        sdk_name: String::new(),
        sdk_version: String::new(),
        time_us: 0,
        epoch: 1,
        partition: 0,
        chunk,
        api_calls: 1,
        connections: 0,
        track_events: 0,
        calls: 1,
        failed_calls: 0,
    };
    let position =
        Position { epoch: 1, partition: 0, chunk: chunk + 1, next_offset: chunk + 1, complete_through_us: DAY_US };
    Emission { cells: vec![(Table::Usage, UsageCell::to_batch(&[cell]))], positions: vec![position] }
}

fn open(dir: &Path) -> Result<ParquetStore, StoreError> {
    ParquetStore::open(dir, &Options::default())
}

async fn calls(store: &ParquetStore) -> Result<u64, StoreError> {
    let query = RollupQuery {
        table: Table::Usage,
        organization: Some(OrganizationId::NONE),
        time_us: 0..DAY_US,
        filters: vec![],
        group_by: vec!["organization", "project", "environment", "key", "transport", "sdk_name", "sdk_version"],
        period: Period::Whole,
        values: None,
        having: None,
        page: None,
    };
    let batch = store.query(&query).await?.batch;
    let counts = batch["calls"].as_any().downcast_ref::<arrow::array::UInt64Array>().expect("counts");
    Ok(counts.iter().flatten().sum())
}

async fn resume(store: &ParquetStore) -> Vec<u64> {
    let positions = store.resume_positions().await.expect("positions are readable");
    positions.iter().map(|position| position.chunk).collect()
}

fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).expect("an empty directory opens");
    store.upsert(emission(0)).await.expect("cells are taken");
    store.flush().await.expect("there is room");
    store.upsert(emission(1)).await.expect("cells are taken");
    // Writing to /dev/full fails like writing to a full disk; the store removes the file that it could not finish.
    for name in ["usage-base-0-00000001.parquet", "MANIFEST.tmp"] {
        symlink("/dev/full", dir.path().join(name)).expect("a link");
        let failed = store.flush().await;
        assert!(matches!(&failed, Err(StoreError::Retry(reason)) if reason.contains(name)), "{name}: {failed:?}");
        assert_eq!(calls(&store).await.expect("questions are answered"), 2);
        assert_eq!(resume(&store).await, [1]);
        assert_eq!(parquet_files(dir.path()).len(), 1, "unfinished files are removed");
    }
    store.flush().await.expect("there is room again");
    assert_eq!((calls(&store).await.expect("an answer"), resume(&store).await), (2, vec![2]));
    drop(store);
    let store = open(dir.path()).expect("nothing is damaged");
    assert_eq!((calls(&store).await.expect("an answer"), resume(&store).await), (2, vec![2]));
}

#[tokio::test]
async fn full_memory_pushes_back_until_cells_are_flushed() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = ParquetStore::open(dir.path(), &Options { memory_bytes_max: 1 }).expect("an empty directory opens");
    store.upsert(emission(0)).await.expect("the first cells are taken");
    assert!(matches!(store.upsert(emission(1)).await, Err(StoreError::Retry(_))));
    store.flush().await.expect("there is room");
    store.upsert(emission(1)).await.expect("there is memory again");
    assert_eq!(calls(&store).await.expect("an answer"), 2);
}

/// A file's name or its end, what the error says, and the damage.
type Case<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));

#[tokio::test]
async fn damage_is_found_and_named() {
    let rewrite = |change: fn(&mut Vec<u8>)| {
        move |path: &Path| {
            let mut bytes = fs::read(path).expect("the file is there");
            change(&mut bytes);
            fs::write(path, bytes).expect("the file can be written");
        }
    };
    let cut = rewrite(|bytes| bytes.truncate(bytes.len() / 2));
    let flip = rewrite(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let older = rewrite(|bytes| bytes["flagmint-rollups ".len()] = b'1');
    let remove = |path: &Path| fs::remove_file(path).expect("the file is there");
    let cases: [Case; 7] = [
        ("MANIFEST", "checksum", &cut),
        ("MANIFEST", "checksum", &flip),
        ("MANIFEST", "format 1, as another version", &older),
        ("MANIFEST", "missing", &remove),
        (".parquet", "bytes instead of", &cut),
        (".parquet", "checksum", &flip),
        (".parquet", "No such file", &remove),
    ];
    for (name, expected, damage) in cases {
        let dir = TempDir::new().expect("a temporary directory");
        let store = open(dir.path()).expect("an empty directory opens");
        store.upsert(emission(0)).await.expect("cells are taken");
        store.flush().await.expect("there is room");
        drop(store);
        let file = parquet_files(dir.path()).remove(0);
        damage(&if name == "MANIFEST" { dir.path().join(name) } else { file });
        let failed = match open(dir.path()) {
            Ok(store) => calls(&store).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let Err(StoreError::Fatal(reason)) = failed else { panic!("{name}, {expected}: {failed:?}") };
        assert!(reason.contains(name) && reason.contains(expected) && reason.contains("move "), "{reason}");
    }
}

#[tokio::test]
async fn files_that_no_manifest_names_are_removed() {
    let dir = TempDir::new().expect("a temporary directory");
    drop(open(dir.path()).expect("an empty directory opens"));
    let orphan = dir.path().join("usage-base-0-00000007.parquet");
    fs::write(&orphan, "half a file").expect("a file");
    let store = open(dir.path()).expect("orphans do no harm");
    assert!(!orphan.exists());
    let second = open(dir.path());
    assert!(matches!(&second, Err(StoreError::Fatal(reason)) if reason.contains("another process")), "{second:?}");
    drop(store);
}

#[tokio::test]
async fn old_files_go_when_they_expire() {
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path()).expect("an empty directory opens");
    store.upsert(emission(0)).await.expect("cells are taken");
    store.maintain(DAY_US).await.expect("there is room");
    let levels = |dir: &Path| {
        let names = parquet_files(dir).into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let mut levels: Vec<String> = names.filter_map(|name| Some(name.split('-').nth(1)?.to_owned())).collect();
        levels.sort();
        levels
    };
    assert_eq!(levels(dir.path()), ["base", "hour"], "the day is not over for long enough");
    for (days, expected) in [(2, vec!["base", "day", "hour"]), (20, vec!["day", "hour"]), (100, vec!["day"])] {
        let mut later = Emission { cells: vec![], ..emission(days) };
        later.positions[0].complete_through_us = days as i64 * DAY_US;
        store.upsert(later).await.expect("positions are taken");
        store.maintain(i64::MAX).await.expect("there is room");
        assert_eq!(levels(dir.path()), expected, "after {days} days");
        assert_eq!(calls(&store).await.expect("an answer"), 1);
    }
}
