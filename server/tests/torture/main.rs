//! Proof under fire: the real processes, real servers, a known load, and one fault after the other at moments that a seed chooses.
//!
//! After each fault the load rests, and what analytics, billing and the ledger count is compared with what was answered: nothing lost,
//! nothing counted twice. What a killed evaluator answered in its last moments is aside, as it says of itself
//! (docs/decisions/0005). An installation of one process has in the end what its log holds, read directly.
//!
//! `FAULTS=500 SEED=…` makes it longer, or the same again: `make torture FAULTS=500`; `FAULT=SIGSTOP` does only those so named. The tables that it prints stand in
//! docs/reliability.md.

mod books;
mod faults;
mod installation;
#[path = "../../../log/tests/kafka/relay.rs"]
#[expect(dead_code, reason = "the tests of the log use the rest")]
mod kafka_relay;
mod processes;
mod relay;
mod servers;
mod slow_disk;
#[path = "../whole/support.rs"]
#[expect(dead_code, reason = "the other tests of the binary use the rest")]
mod support;
mod table;
mod traffic;
#[path = "../whole/wall_clock.rs"]
mod wall_clock;

use std::io::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use books::Books;
use faults::{Fault, Harm};
use installation::Installation;
use table::Table;
use traffic::Traffic;

/// Faults of the short form of one process, which every run of the tests includes; of many processes it has each once.
const FAULTS: usize = 40;

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

/// Does one fault after the other to an installation.
async fn torture(mut installation: Installation, kinds: &[Fault], count: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("SEED").unwrap_or_else(rand::random);
    let count = number("FAULTS").map_or(count, |count| count as usize);
    println!("SEED={seed} FAULTS={count}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut books = Books::open(&installation).await;
    let traffic = Traffic::start(&installation);
    let mut table = Table::default();
    let named = std::env::var("FAULT").unwrap_or_default();
    let kinds: Vec<Fault> = kinds.iter().copied().filter(|fault| fault.to_string().contains(&named)).collect();
    for (number, fault) in plan(&mut random, &kinds, count).into_iter().enumerate() {
        installation.renew().await;
        traffic.flow();
        tokio::time::sleep(Duration::from_millis(random.random_range(100..600))).await;
        print!("{:>4} of {count}  {fault}: ", number + 1);
        let _ = std::io::stdout().flush();
        let harm = fault.inject(&mut installation, &traffic, &mut random).await;
        traffic.rest().await;
        let outcome = books.settle(&installation, &traffic, harm).await;
        println!("{outcome}");
        table.add(fault, outcome);
    }
    let counted = installation.counts().await;
    let in_log = installation.end().await;
    println!("\n{table}\ncounted in the end: {counted:?}, in the log: {in_log:?}");
    assert_eq!(table.wrong(), 0, "SEED={seed} FAULTS={count} does the same again");
    assert!(in_log.is_none_or(|in_log| in_log == counted.evaluations), "SEED={seed} FAULTS={count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_changes_a_number_of_one_process() {
    let _alone = support::machine().await;
    torture(Installation::one().await, &Fault::ONE, FAULTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_changes_a_number_of_many_processes() {
    let _alone = support::machine().await;
    torture(Installation::many().await, &Fault::MANY, Fault::MANY.len()).await;
}

/// What the suite says of load under which nothing is harmed.
async fn outcome_of_a_moment(installation: &Installation, books: &mut Books, traffic: &Traffic) -> books::Outcome {
    traffic.flow();
    for _ in 0..5 {
        installation.wait_until_fresh().await;
    }
    traffic.rest().await;
    books.settle(installation, traffic, Harm { deaths: vec![], recovery: Duration::ZERO }).await
}

/// The suite can fail: a store that adds emissions up instead of taking the greatest value counts twice, and that is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_adds_up_is_reported() {
    let _alone = support::machine().await;
    let mut installation = Installation::many().await;
    let mut books = Books::open(&installation).await;
    let traffic = Traffic::start(&installation);
    let outcome = outcome_of_a_moment(&installation, &mut books, &traffic).await;
    assert!(outcome.answered > 0 && outcome.lost == 0 && outcome.counted_twice == 0, "{outcome}");
    installation.cluster().add_up().await;
    let outcome = outcome_of_a_moment(&installation, &mut books, &traffic).await;
    assert!(outcome.answered > 0 && outcome.lost == 0 && outcome.counted_twice > outcome.answered, "{outcome}");
}
