//! Both stores, filled from one log, and the query API over each.

use std::sync::Arc;

use axum::Router;
use chrono::DateTime;
use flagmint_aggregator::fold::{Emitted, FoldLimits, PartitionFold, Resume};
use flagmint_query_api::{Directory, QueryApi};
use flagmint_store::clickhouse::{self, ClickHouseStore};
use flagmint_store::parquet::{self, ParquetStore};
use flagmint_store::{Emission, Position, RollupStore, StoreError};
use rand::Rng;
use rand::rngs::StdRng;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::log::{self, ENVIRONMENTS, FLAGS_PER_PROJECT, Log, PARTITIONS, PROJECTS};

const EPOCH: u64 = 5;

/// Small chunks, so that a short log has many.
const LIMITS: FoldLimits = FoldLimits {
    chunk_records: 500,
    chunk_cells: 40_000,
    duplicate_window_records: 128,
    poison_window_records: 64,
    poison_percent: 90,
};

pub struct Stores {
    clickhouse: Arc<ClickHouseStore>,
    parquet: Arc<ParquetStore>,
    _dir: TempDir,
}

impl Stores {
    pub async fn new() -> Self {
        let url = std::env::var("FLAGMINT_TEST_CLICKHOUSE")
            .expect("FLAGMINT_TEST_CLICKHOUSE names no server: run the tests under dev/servers/with-clickhouse");
        let options = clickhouse::Options::from_url(&url).unwrap();
        let options = options.with_database(&format!("differential_{}", Uuid::new_v4().simple()));
        clickhouse::migrate(&options).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self {
            clickhouse: Arc::new(ClickHouseStore::open(&options).await.unwrap()),
            parquet: Arc::new(ParquetStore::open(dir.path(), &parquet::Options::default()).unwrap()),
            _dir: dir,
        }
    }

    /// Folds the log into both; the time of its end, microseconds.
    pub async fn fold(&self, mut log: Log, random: &mut StdRng) -> i64 {
        let new = |partition| {
            let start = Resume { chunk: 0, complete_through_us: i64::MIN };
            PartitionFold::new(EPOCH, partition, start, LIMITS)
        };
        let mut folds: Vec<PartitionFold> = (0..PARTITIONS).map(new).collect();
        let mut old: Vec<Emission> = Vec::new();
        let (mut records, mut pending) = (0, 0);
        loop {
            let record = log.next();
            if let Some(record) = &record {
                folds[record.partition as usize].fold(record);
                (records, pending) = (records + 1, pending + 1);
                if pending < 200 || random.random_ratio(199, 200) && pending < 1000 {
                    continue;
                }
            }
            pending = 0;
            let emission = emit(&mut folds);
            self.upsert(&emission, random).await;
            if random.random_ratio(1, 4) {
                self.maintain(log.now_us(), random).await;
            }
            if random.random_ratio(1, 8) && !old.is_empty() {
                // A zombie.
                let again = old[random.random_range(0..old.len())].clone();
                self.upsert(&again, random).await;
            }
            if old.len() < 20 || random.random_ratio(1, 10) {
                old.truncate(19);
                old.insert(0, emission);
            }
            if record.is_none() {
                break;
            }
        }
        self.maintain(log.now_us(), random).await;
        println!("{records} records");
        log.now_us()
    }

    async fn upsert(&self, emission: &Emission, random: &mut StdRng) {
        for _ in 0..if random.random_ratio(1, 10) { 2 } else { 1 } {
            retried(async || self.clickhouse.upsert(emission.clone()).await).await;
        }
        for _ in 0..if random.random_ratio(1, 10) { 2 } else { 1 } {
            self.parquet.upsert(emission.clone()).await.unwrap();
        }
    }

    async fn maintain(&self, now_us: i64, random: &mut StdRng) {
        if random.random_ratio(2, 3) {
            retried(async || self.clickhouse.maintain(now_us).await).await;
        }
        if random.random_ratio(2, 3) {
            self.parquet.maintain(now_us).await.unwrap();
        }
    }

    /// The query API over ClickHouse and over Parquet, an hour after the log's end.
    pub async fn apis(&self, end_us: i64) -> [Router; 2] {
        let database = crate::postgres::database().await;
        names(&database).await;
        let now = DateTime::from_timestamp_micros(end_us + 60_000_000).unwrap();
        let directory = || Directory::connect(&database).unwrap();
        let clickhouse = QueryApi::new(Arc::clone(&self.clickhouse), directory()).with_clock(move || now);
        let parquet = QueryApi::new(Arc::clone(&self.parquet), directory()).with_clock(move || now);
        [flagmint_query_api::router(clickhouse), flagmint_query_api::router(parquet)]
    }
}

fn emit(folds: &mut [PartitionFold]) -> Emission {
    let (mut cells, mut positions): (Emitted, Vec<Position>) = (Emitted::default(), Vec::new());
    for fold in folds {
        if let Some((mut own, position)) = fold.emit() {
            cells.append(&mut own);
            positions.push(position);
        }
    }
    Emission { cells: cells.to_batches(), positions }
}

async fn retried(mut step: impl AsyncFnMut() -> Result<(), StoreError>) {
    for _ in 0..20 {
        match step().await {
            Ok(()) => return,
            Err(StoreError::Retry(reason)) => println!("again: {reason}"),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("ClickHouse never took it");
}

/// What the control plane would have about the log's ids.
async fn names(database: &str) {
    let mut connection = PgConnection::connect(database).await.unwrap();
    let mut sql = String::new();
    for (number, plan) in [(0, "Pro"), (1, "Custom")] {
        let id = log::organization(number);
        sql += &format!(
            "INSERT INTO organizations (id, name, plan_id) SELECT '{id}', 'o{number}', id FROM plans WHERE name = '{plan}';\n"
        );
    }
    for project in 0..PROJECTS {
        let (id, organization) = (log::project(project), log::organization(project));
        sql += &format!(
            "INSERT INTO projects (id, organization_id, name, project_key) VALUES ('{id}', '{organization}', 'p{project}', 'p{project}');\n"
        );
        for number in 0..FLAGS_PER_PROJECT {
            let number = number * PROJECTS + project;
            let flag = log::flag(number);
            sql += &format!(
                "INSERT INTO flags (id, project_id, organization_id, key, name, type, analytics_enabled) VALUES \
                 ('{flag}', '{id}', '{organization}', 'flag-{number}', 'Flag {number}', 'boolean', {});\n",
                !number.is_multiple_of(9)
            );
        }
    }
    for number in 0..ENVIRONMENTS {
        let (id, of) = (log::environment(number), number % PROJECTS);
        let (project, organization) = (log::project(of), log::organization(of));
        sql += &format!(
            "INSERT INTO environments (id, project_id, organization_id, name, slug) VALUES \
             ('{id}', '{project}', '{organization}', 'e{number}', 'e{number}');\n"
        );
    }
    let key: String = crate::postgres::pseudonym_key().iter().map(|byte| format!("{byte:02x}")).collect();
    sql += &format!(
        "INSERT INTO environment_snapshots (environment_id, project_id, organization_id, compiled, pseudonym_key_id, pseudonym_key)
         SELECT id, project_id, organization_id, '{{}}', gen_random_uuid(), decode('{key}', 'hex') FROM environments
         ON CONFLICT DO NOTHING;"
    );
    connection.execute(sql.as_str()).await.unwrap();
}
