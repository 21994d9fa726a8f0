//! What is tortured: all roles in one process, or each in processes of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagmint_log::{DecisionLog as _, LocalLog, Options};
use flagmint_schemas::batch::{Batch, BatchHeader};
use serde_json::Value;

use crate::processes::{LOOK, Process};
use crate::support::{EMAIL, PASSWORD, PATIENCE, Person, Shop, database};

pub struct Installation {
    /// Holds all data; removed at the end.
    _directory: tempfile::TempDir,
    /// Alone in an installation of one process, where it is everything.
    evaluators: Vec<Process>,
    aggregators: Vec<Process>,
    /// The query API and the control plane, which nobody harms.
    others: Vec<Process>,
    person: Person,
    pub shop: Arc<Shop>,
}

impl Installation {
    /// `flagmint up` on one data directory.
    pub async fn embedded() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let settings = [("FLAGMINT_POSTGRES", database().await)];
        let mut up = Process::new("up", directory.path(), &settings, &first_user(&directory));
        up.start().await;
        Self::open(directory, vec![up], vec![], vec![]).await
    }

    async fn open(
        directory: tempfile::TempDir,
        evaluators: Vec<Process>,
        aggregators: Vec<Process>,
        others: Vec<Process>,
    ) -> Self {
        let management = others.last().or(evaluators.last()).expect("somebody manages").url();
        let person = Person::sign_in(&management).await;
        let shop = Arc::new(Shop::open(&person).await);
        for evaluator in &evaluators {
            shop.wait_until_served(&person.http, &evaluator.url()).await;
        }
        Self { _directory: directory, evaluators, aggregators, others, person, shop }
    }

    /// Where calls are answered.
    pub fn urls(&self) -> Vec<String> {
        self.evaluators.iter().map(Process::url).collect()
    }

    pub fn evaluator(&mut self) -> &mut Process {
        self.evaluators.first_mut().expect("there is one")
    }

    /// A process that folds.
    pub fn aggregator(&mut self) -> &mut Process {
        self.aggregators.first_mut().or(self.evaluators.first_mut()).expect("there is one")
    }

    /// Evaluations counted, as the analytics say; nothing if they do not answer now.
    pub async fn try_count(&self) -> Option<u64> {
        let asked = self.others.first().or(self.evaluators.first()).expect("somebody answers").url();
        let url = format!("{asked}/flags/{}/metrics", self.shop.flag_id);
        let request = self.person.http.get(url).bearer_auth(&self.person.token).timeout(Duration::from_secs(5));
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        answer["data"]["totals"]["evaluations"].as_u64()
    }

    pub async fn count(&self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(count) = self.try_count().await {
                return count;
            }
            assert!(Instant::now() < deadline, "the analytics do not answer");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until something evaluated after this call is counted.
    pub async fn wait_until_fresh(&self) {
        let before = self.count().await;
        let deadline = Instant::now() + PATIENCE;
        while self.try_count().await.is_none_or(|count| count <= before) {
            assert!(Instant::now() < deadline, "nothing new is counted");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends everything in order; evaluations that the log holds, each batch once.
    pub async fn end(mut self) -> u64 {
        for process in self.evaluators.iter_mut().chain(&mut self.aggregators).chain(&mut self.others) {
            process.terminate().await;
        }
        let data_dir = self.evaluator().data_dir().to_owned();
        let audit = std::process::Command::new(env!("CARGO_BIN_EXE_flagmint"))
            .args(["audit", "--data-dir"])
            .arg(&data_dir)
            .output()
            .expect("the audit runs");
        assert!(audit.status.success(), "{audit:?}");
        evaluations_in(LocalLog::open(Options::new(data_dir.join("log"), 1)).expect("a sound log")).await
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
