//! SIGKILL of the whole binary under load, again and again: everything that was appended is counted, once, and what a
//! kill can lose is no more than the recorder's window.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::support::{Person, Place, Shop, machine};
use flagmint_log::{DecisionLog as _, LocalLog, Options};
use flagmint_schemas::batch::{Batch, BatchHeader};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

/// The recorder's window, and an fdatasync of a busy disk.
const WINDOW: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_under_load() {
    let _alone = machine().await;
    let kills: u32 = std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let seed: u64 = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed} KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::new().await;
    let data_dir = place.data_dir();
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    let mut answered = shop.wait_until_served(&person.http, &server.url).await;
    let (mut in_window, mut unanswered) = (0, 0);
    for kill in 0..kills {
        let load = Load::start(Arc::clone(&shop), server.url.clone(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        let killed_at = Instant::now();
        server.signal(libc::SIGKILL);
        let seen = load.finish().await;
        answered += seen.at.len() as u64;
        // Replies read just after the signal were sent before it.
        in_window += seen.at.iter().filter(|at| **at + WINDOW + Duration::from_millis(50) >= killed_at).count() as u64;
        unanswered += seen.unanswered;
        server.wait();
        server = place.start();
        if kill % 50 == 49 {
            println!("{} kills, {answered} answered", kill + 1);
        }
    }
    let person = Person::sign_in(&server.url).await;
    let metrics = format!("/flags/{}/metrics", shop.flag_id);
    let now = person.get(&metrics).await["data"]["meta"]["generated_at"].as_str().expect("a time").to_owned();
    let through =
        |answer: &Value| answer["data"]["meta"]["complete_through"].as_str().unwrap_or_default() > now.as_str();
    let answer = person.get_until(&metrics, through).await;
    let counted = answer["data"]["totals"]["evaluations"].as_u64().expect("a count");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    println!(
        "{answered} answered, {in_window} of them within the window, {unanswered} without an answer, {counted} counted"
    );
    assert!(
        counted + in_window >= answered,
        "seed {seed}: {} lost outside of the window",
        answered - counted - in_window
    );
    assert!(
        counted <= answered + unanswered,
        "seed {seed}: counted {counted}, but only {answered} + {unanswered} were asked"
    );
    assert_eq!(counted, decisions_in_log(&data_dir.join("log")).await, "seed {seed}: the log read directly");
    let audit =
        Command::new(env!("CARGO_BIN_EXE_flagmint")).args(["audit", "--json", "--data-dir"]).arg(&data_dir).output();
    let audit = audit.expect("the audit runs");
    assert!(audit.status.success(), "seed {seed}: {audit:?}");
}

/// Decisions of all distinct batches, counted without the aggregator.
async fn decisions_in_log(directory: &Path) -> u64 {
    let log = LocalLog::open(Options::new(directory, 1)).expect("a sound log");
    let end = log.bounds(0).await.expect("bounds").end;
    let (mut next, mut decisions, mut seen) = (0, 0, std::collections::HashSet::new());
    while next < end {
        for record in log.read(0, next, 1 << 20).await.expect("records") {
            assert_eq!(record.offset, next, "offsets are contiguous");
            next += 1;
            let header = BatchHeader::decode(&record.header).expect("a header");
            assert!(seen.insert((header.producer, header.sequence)), "no batch is appended twice");
            if !header.is_heartbeat() {
                decisions += Batch::decode(&header, &record.payload).expect("a batch").decisions.len() as u64;
            }
        }
    }
    decisions
}
