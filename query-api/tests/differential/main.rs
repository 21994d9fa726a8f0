//! The same log folded into ClickHouse and into Parquet gives the same answers, to the last character.
//!
//! A seeded log of four partitions with everything that can go wrong in one: late, early and unbelievable times, repeated, unreadable
//! and lost records, heartbeats, producers that end. Both stores get all emissions, each with its own repetitions, and do
//! their maintenance at moments of their own. Then every endpoint is asked a few hundred questions of both.
//!
//! `DECISIONS=20000000` for the long form (`make differential`); `SEED=…` to repeat a run. Needs `FLAGMINT_TEST_POSTGRES` and
//! `FLAGMINT_TEST_CLICKHOUSE`, as `dev/servers/with-postgres dev/servers/with-clickhouse cargo test …` sets them.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

#[path = "../answers/support/postgres.rs"]
mod postgres;

mod log;
mod questions;
mod stores;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Folded in CI: some 20 s of two cores.
const DECISIONS: u64 = 1_000_000;

/// Asked in CI and in the long form.
const QUESTIONS: usize = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_alike() {
    let seed = number("SEED").unwrap_or_else(rand::random);
    let decisions = number("DECISIONS").unwrap_or(DECISIONS);
    println!("SEED={seed} DECISIONS={decisions}");
    let mut random = StdRng::seed_from_u64(seed);
    let stores = stores::Stores::new().await;
    let end_us = stores.fold(log::Log::new(seed, decisions), &mut random).await;
    let [clickhouse, parquet] = stores.apis(end_us).await;
    let mut told = 0;
    for number in 0..QUESTIONS {
        let path = questions::random(&mut random, end_us);
        let (a, b) = (questions::ask(&clickhouse, &path, end_us).await, questions::ask(&parquet, &path, end_us).await);
        assert_eq!(a, b, "question {number}, {path}, SEED={seed} DECISIONS={decisions}");
        assert!(a.starts_with("200 ") || a.starts_with("400 "), "{path}: {a}");
        told += usize::from(a.len() > 1500);
    }
    assert!(told > QUESTIONS / 3, "only {told} answers of {QUESTIONS} have something in them");
}
