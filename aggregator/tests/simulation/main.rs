//! A deterministic simulation of evaluators, the log, aggregators and the store: one thread, no real time, no I/O, and every
//! choice made by one seed, so that a schedule that goes wrong goes wrong again.
//!
//! Real: [`flagmint_aggregator::fold`], the codecs, and the rules of merging (the model that both stores are held to by their
//! conformance suite). Simulated: what calls them. A scheduler picks who does what next, in small steps, and anybody may crash, be paused
//! and resumed late, be told that something failed that did happen, or own a partition that somebody else owns as well.
//!
//! At any moment: nothing is counted that was not appended, nothing is counted twice, what a reader saw never shrinks, the watermark never
//! falls and is never beyond an event that is not folded. At the end: every total is what was sent.
//!
//! A failing schedule prints its seed. `SIMULATION_SEED=… cargo test --release -p flagmint-aggregator --test simulation -- --nocapture` runs
//! that schedule alone and prints each step; `SIMULATIONS=…` says how many schedules to run.

mod aggregators;
mod checks;
mod evaluators;
mod log;
mod oracle;
mod schedule;
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use schedule::{Summary, run};
use store::Merge;

/// Schedules of one run of the test: some 20 seconds of two cores.
const SCHEDULES: u64 = 3000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs one schedule; a failure says how to see it again.
fn replayable(seed: u64, merge: Merge, is_told: bool) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, merge, is_told))).unwrap_or_else(|panic| {
        eprintln!("a schedule panicked: SIMULATION_SEED={seed} shows it again");
        resume_unwind(panic)
    })
}

#[test]
fn every_number_is_right_on_every_schedule() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        let summary = replayable(seed, Merge::Maximum, true).unwrap_or_else(|reason| panic!("seed {seed}: {reason}"));
        println!("{summary:#?}");
        return;
    }
    let schedules = variable("SIMULATIONS").unwrap_or(SCHEDULES);
    let first: u64 = rand::random();
    println!("{schedules} schedules from seed {first}");
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut sum = Summary::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= schedules {
                return sum;
            }
            let seed = first.wrapping_add(number);
            match replayable(seed, Merge::Maximum, false) {
                Ok(summary) => sum.add(&summary),
                Err(reason) => panic!("SIMULATION_SEED={seed} shows this again: {reason}"),
            }
        }
    };
    let sum = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = Summary::default();
        for worker in workers {
            sum.add(&worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        sum
    });
    println!("{sum:#?}");
    assert!(schedules < 500 || sum.has_seen_everything(), "some fault never happened: {sum:#?}");
}

#[test]
fn a_store_that_adds_up_instead_of_taking_the_greatest_is_caught() {
    let first: u64 = rand::random();
    println!("from seed {first}");
    for seed in (0..20).map(|number| first.wrapping_add(number)) {
        let reason = run(seed, Merge::Sum, false).expect_err("double counting must be seen");
        assert!(reason.contains("counted twice"), "seed {seed}: {reason}");
    }
}

#[test]
fn a_schedule_runs_the_same_way_every_time() {
    let seed = rand::random();
    assert_eq!(run(seed, Merge::Maximum, false), run(seed, Merge::Maximum, false), "seed {seed}");
}
