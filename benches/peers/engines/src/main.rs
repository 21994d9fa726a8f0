//! Times our engine and its peers on the same decisions, in one process and one thread.
//!
//! `cargo run --release --locked` checks that every engine decides as intended, prints one table per scenario, and writes the
//! figures to `benches/results/engines.json`.
//!
//! Our engine is compiled in from its source rather than through its crate, which would bring a web server and a database client
//! into every build of this program. It is pure, so its source is all there is to it, with the vocabulary that it takes from the
//! schemas' crate.

// The engine names that crate, so this one answers to its name.
extern crate self as flagmint_schemas;

mod alloc;
mod case;
mod check;
#[expect(dead_code, reason = "of the vocabulary, only what the engine decides with is used")]
#[path = "../../../../schemas/src/decision.rs"]
mod decision;
#[expect(dead_code, unused_imports, reason = "of the engine, only deciding is timed")]
#[path = "../../../../evaluator/src/engine/mod.rs"]
mod engine;
mod engines;
mod measure;
mod report;
mod scenario;
mod users;

use scenario::Scenario;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> std::io::Result<()> {
    let users = users::population();
    users::assert_no_rule_hits(&users);

    let mut results = Vec::new();
    for scenario in Scenario::all() {
        check::rules_decide_when_hit(&scenario);
        let mut cases = engines::cases(&scenario, &users);
        check::rollout_decides_otherwise(&scenario, users.len(), &mut cases);
        let rows = measure::measure(&scenario, users.len(), cases);
        report::print(&scenario, &rows);
        results.push(report::json(&scenario, &rows));
    }
    report::write(results)
}
