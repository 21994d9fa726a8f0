//! Feeds random and mutated inputs to what reads bytes of strangers, with the stable compiler:
//!
//! ```sh
//! cargo run --release -p flagmint-evaluator --example fuzz -- TARGET [SECONDS] [SEED]
//! ```
//!
//! Inputs start from seeds that are valid, and are cut, joined, repeated and sprinkled with what has broken readers before. The
//! same seed gives the same inputs; a panic shows the input and ends the run with an error. Coverage does not guide it: that takes a
//! nightly compiler, as `fuzz/` uses for batches.

mod mutate;
mod targets;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use targets::TARGETS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("usage: fuzz TARGET [SECONDS] [SEED], TARGET one of {}", names.join(", "));
        std::process::exit(2);
    };
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("{name}: seed {seed}, {seconds} s");
    let mut random = StdRng::seed_from_u64(seed);
    let mut run = (target.prepare)();
    let mut corpus: Vec<Vec<u8>> = target.seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut inputs, mut bytes) = (0_u64, 0_u64);
    while Instant::now() < end {
        let input = mutate::mutated(&corpus, &mut random);
        let shown = Shown(&input);
        run(&input);
        std::mem::forget(shown);
        inputs += 1;
        bytes += input.len() as u64;
        // Some inputs are mutated further, so that what is far from the seeds is tried, too.
        if random.random_ratio(1, 50) {
            let place = random.random_range(target.seeds.len()..target.seeds.len() + mutate::KEPT_MAX);
            if place < corpus.len() { corpus[place] = input } else { corpus.push(input) }
        }
    }
    println!("{name}: {inputs} inputs, {bytes} bytes, no finding");
}

/// Shows the input when a panic passes by.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("the input was: {:?}", String::from_utf8_lossy(self.0));
        eprintln!("as bytes: {:?}", self.0);
    }
}
