//! Proof under fire: the real processes, real servers, a known load, and one fault after the other at moments that a seed chooses.
//!
//! After each fault the load rests, and what the analytics endpoints count is compared with what was answered: nothing lost, nothing
//! counted twice. What a killed evaluator answered in its last moments is aside, as it says of itself (docs/decisions/0005); in the end
//! what is counted is what the log holds, read directly.
//!
//! `FAULTS=500 SEED=…` makes it longer, or the same again: `make torture FAULTS=500`. The table that it prints stands in
//! docs/reliability.md.

mod books;
mod faults;
mod installation;
mod processes;
mod servers;
#[path = "../whole/support.rs"]
#[expect(dead_code, reason = "the other tests of the binary use the rest")]
mod support;
mod table;
mod traffic;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use books::Books;
use faults::Fault;
use installation::Installation;
use table::Table;
use traffic::Traffic;

/// Faults of the short form, which every run of the tests includes.
const FAULTS: usize = 44;

/// Each kind of fault about as often as the others, in an order that the seed chooses.
fn plan(random: &mut StdRng, kinds: &[Fault], count: usize) -> Vec<Fault> {
    let mut plan = Vec::new();
    while plan.len() < count {
        let mut round = kinds.to_vec();
        round.shuffle(random);
        plan.extend(round);
    }
    plan.truncate(count);
    plan
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_changes_a_number() {
    let _alone = support::machine().await;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("SEED").unwrap_or_else(rand::random);
    let count = number("FAULTS").map_or(FAULTS, |count| count as usize);
    println!("SEED={seed} FAULTS={count}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut installation = Installation::embedded().await;
    let mut books = Books::open(&installation).await;
    let traffic = Traffic::start(&installation);
    let mut table = Table::default();
    for (number, fault) in plan(&mut random, &Fault::EMBEDDED, count).into_iter().enumerate() {
        traffic.flow();
        tokio::time::sleep(Duration::from_millis(random.random_range(100..600))).await;
        let harm = fault.inject(&mut installation, &mut random).await;
        traffic.rest().await;
        let outcome = books.settle(&installation, &traffic, harm).await;
        println!("{:>4} of {count}  {fault}: {outcome}", number + 1);
        table.add(fault, outcome);
    }
    let counted = installation.count().await;
    let in_log = installation.end().await;
    println!("\n{table}\ncounted in the end {counted}, in the log {in_log}");
    assert_eq!(table.wrong(), 0, "SEED={seed} FAULTS={count} does the same again");
    assert_eq!(counted, in_log, "SEED={seed} FAULTS={count}");
}
