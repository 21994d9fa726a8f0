//! What is tortured: all roles in one process, or each in processes of its own.

mod cluster;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagmint_log::{DecisionLog as _, LocalLog, Options};
use flagmint_schemas::batch::{Batch, BatchHeader};
use futures::future::try_join_all;
use serde_json::Value;

use crate::books::Counts;
use crate::processes::{LOOK, Process};
use crate::support::{EMAIL, PASSWORD, PATIENCE, Person, Shop, database};
pub use cluster::{AGGREGATORS, Cluster};

/// How long an access token is used: it is good for a quarter of an hour.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(600);

/// Between two looks at what is counted of several shops: looking itself must not load the machine.
const LOOK_AT_CLUSTER: Duration = Duration::from_millis(100);

pub struct Installation {
    /// Holds all data; removed at the end.
    directory: tempfile::TempDir,
    /// Alone in an installation of one process, where it is everything.
    pub evaluators: Vec<Process>,
    pub aggregators: Vec<Process>,
    /// The query API and the control plane, which nobody harms.
    others: Vec<Process>,
    /// What an installation of many processes has besides.
    cluster: Option<Cluster>,
    person: Person,
    signed_in: Instant,
    pub shops: Vec<Arc<Shop>>,
}

impl Installation {
    /// `flagmint up` on one data directory.
    pub async fn one() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let settings = [("FLAGMINT_POSTGRES", database().await)];
        let mut up = Process::new("up", directory.path(), &settings, &first_user(&directory));
        up.start().await;
        let person = Person::sign_in(&up.url()).await;
        let shops = vec![Arc::new(Shop::open(&person).await)];
        let one = Self {
            directory,
            evaluators: vec![up],
            aggregators: vec![],
            others: vec![],
            cluster: None,
            person,
            signed_in: Instant::now(),
            shops,
        };
        one.wait_until_served().await;
        one
    }

    async fn wait_until_served(&self) {
        for (shop, evaluator) in self.shops.iter().flat_map(|shop| self.evaluators.iter().map(move |it| (shop, it))) {
            shop.wait_until_served(&self.person.http, &evaluator.url()).await;
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("asked of a cluster")
    }

    /// Where calls are answered.
    pub fn urls(&self) -> Vec<String> {
        self.evaluators.iter().map(Process::url).collect()
    }

    /// A process that folds: the whole, in an installation of one process.
    pub fn aggregator(&mut self, number: usize) -> &mut Process {
        if self.is_cluster() { &mut self.aggregators[number] } else { &mut self.evaluators[0] }
    }

    /// Signs in again where the access token will not be good for long.
    pub async fn renew(&mut self) {
        if self.signed_in.elapsed() > TOKEN_AGE_MAX {
            let management = self.others.last().or(self.evaluators.last()).expect("somebody manages").url();
            self.person = Person::sign_in(&management).await;
            self.signed_in = Instant::now();
        }
    }

    /// What the query API says; nothing if it does not answer now.
    async fn ask(&self, path: &str) -> Option<Value> {
        let asked = self.others.first().or(self.evaluators.first()).expect("somebody answers").url();
        let request = self.person.http.get(format!("{asked}{path}")).bearer_auth(&self.person.token);
        let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }

    /// Evaluations counted of each shop, as the analytics say.
    async fn evaluations(&self) -> Option<Vec<u64>> {
        let counts = self.shops.iter().map(async |shop| {
            let answer = self.ask(&format!("/flags/{}/metrics", shop.flag_id)).await.ok_or(())?;
            answer["data"]["totals"]["evaluations"].as_u64().ok_or(())
        });
        try_join_all(counts).await.ok()
    }

    async fn try_counts(&self) -> Option<Counts> {
        let evaluations = self.evaluations().await?;
        let usage = self.ask("/billing/usage").await?;
        let reconciliation = self.ask("/audit/reconciliation").await?["data"].take();
        Some(Counts {
            evaluations: evaluations.iter().sum(),
            billed: usage["apiCalls"]["used"].as_u64()?,
            ledger: reconciliation["totals"]["counted"].as_u64()?,
            holds: reconciliation["holds"].as_bool()?,
            complete_through: reconciliation["meta"]["complete_through"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// All the numbers.
    pub async fn counts(&self) -> Counts {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(counts) = self.try_counts().await {
                return counts;
            }
            assert!(Instant::now() < deadline, "the analytics do not answer");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until something of each shop is counted that was not counted at this call.
    pub async fn wait_until_fresh(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            if let Some(now) = self.evaluations().await {
                let before = before.get_or_insert_with(|| now.clone());
                if before.iter().zip(&now).all(|(before, now)| now > before) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "nothing new is counted");
            tokio::time::sleep(if self.is_cluster() { LOOK_AT_CLUSTER } else { LOOK }).await;
        }
    }

    /// Ends everything in order; evaluations that the log holds, each batch once, where it is a log of files.
    pub async fn end(mut self) -> Option<u64> {
        for process in self.evaluators.iter_mut().chain(&mut self.aggregators).chain(&mut self.others) {
            process.terminate().await;
        }
        if self.is_cluster() {
            return None;
        }
        let data_dir = self.evaluators[0].data_dir().to_owned();
        let audit = std::process::Command::new(env!("CARGO_BIN_EXE_flagmint"))
            .args(["audit", "--data-dir"])
            .arg(&data_dir)
            .output()
            .expect("the audit runs");
        assert!(audit.status.success(), "{audit:?}");
        Some(evaluations_in(LocalLog::open(Options::new(data_dir.join("log"), 1)).expect("a sound log")).await)
    }
}

fn first_user(directory: &tempfile::TempDir) -> Vec<String> {
    let password = directory.path().join("password");
    std::fs::write(&password, PASSWORD).expect("a password file");
    let password = password.display().to_string();
    vec!["--admin-email".into(), EMAIL.into(), "--admin-password-file".into(), password]
}

async fn evaluations_in(log: LocalLog) -> u64 {
    let end = log.bounds(0).await.expect("bounds").end;
    let (mut next, mut evaluations, mut seen) = (0, 0, std::collections::HashSet::new());
    while next < end {
        for record in log.read(0, next, 1 << 20).await.expect("records") {
            next = record.offset + 1;
            let header = BatchHeader::decode(&record.header).expect("a header");
            if seen.insert((header.producer, header.sequence)) && !header.is_heartbeat() {
                let batch = Batch::decode(&header, &record.payload).expect("a batch");
                evaluations += batch.decisions.len() as u64;
            }
        }
    }
    evaluations
}
