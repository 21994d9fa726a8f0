//! Batches of decisions, timed round-robin over the cases.
//!
//! A shared machine is noisy in spells longer than a batch. Taking one sample of every case in
//! turn spreads such a spell over all of them instead of over one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::alloc::Traffic;
use crate::case::Case;
use crate::scenario::Scenario;

const SAMPLES: usize = 61;
/// Long against the clock (tens of ns) and cold caches, short against a scheduler quantum.
const BATCH: Duration = Duration::from_millis(5);

pub struct Row {
    pub engine: &'static str,
    pub entry: &'static str,
    pub carries: &'static str,
    /// Nanoseconds per decision: percentiles of the batch means.
    pub ns_median: f64,
    pub ns_p10: f64,
    pub ns_p90: f64,
    /// Per decision, over one full rotation of the users.
    pub allocations: f64,
    pub allocated_bytes: f64,
}

pub fn measure(scenario: &Scenario, users: usize, mut cases: Vec<Case>) -> Vec<Row> {
    let decisions_per_round = scenario.flags.len() as f64;
    let traffic: Vec<Traffic> = cases.iter_mut().map(|case| traffic(case, users)).collect();
    let rounds: Vec<usize> = cases.iter_mut().map(calibrate).collect();
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(SAMPLES); cases.len()];
    for _ in 0..SAMPLES {
        for (index, case) in cases.iter_mut().enumerate() {
            let spent = time(case, rounds[index]).as_nanos() as f64;
            samples[index].push(spent / (rounds[index] as f64 * decisions_per_round));
        }
    }
    let decisions = users as f64 * decisions_per_round;
    let measured = cases.into_iter().zip(samples).zip(traffic);
    measured.map(|((case, samples), traffic)| row(case, samples, traffic, decisions)).collect()
}

fn row(case: Case, mut samples: Vec<f64>, traffic: Traffic, decisions: f64) -> Row {
    samples.sort_by(f64::total_cmp);
    let percentile = |p: usize| samples[(samples.len() - 1) * p / 100];
    Row {
        engine: case.engine,
        entry: case.entry,
        carries: case.carries,
        ns_median: percentile(50),
        ns_p10: percentile(10),
        ns_p90: percentile(90),
        allocations: traffic.calls as f64 / decisions,
        allocated_bytes: traffic.bytes as f64 / decisions,
    }
}

fn traffic(case: &mut Case, users: usize) -> Traffic {
    let start = Traffic::now();
    black_box((case.run)(users));
    Traffic::now().since(start)
}

/// Rounds that fill a batch; finding them also warms the case up.
fn calibrate(case: &mut Case) -> usize {
    let mut rounds = 1;
    loop {
        let spent = time(case, rounds);
        if spent >= BATCH / 2 {
            let scale = BATCH.as_secs_f64() / spent.as_secs_f64();
            return ((rounds as f64 * scale) as usize).max(1);
        }
        rounds *= 2;
    }
}

fn time(case: &mut Case, rounds: usize) -> Duration {
    let start = Instant::now();
    black_box((case.run)(black_box(rounds)));
    start.elapsed()
}
