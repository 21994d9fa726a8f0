//! The engines, one file each: how a scenario is written for it and how it is asked.
//!
//! Contexts are built once, outside the timed loop. The timed part is lookup by key, evaluation and dropping the result. Of each
//! peer the entry point that costs the least is timed; what its SDK adds (copies of flags, locks, clocks, events) is left out.

mod eppo;
mod flagmint;
mod launchdarkly;
mod unleash;

use crate::case::Case;
use crate::scenario::Scenario;
use crate::users::User;

/// The first case of each scenario is ours and is what the others are compared with.
pub fn cases(scenario: &Scenario, users: &[User]) -> Vec<Case> {
    let mut cases = flagmint::cases(scenario, users);
    cases.push(launchdarkly::case(scenario, users));
    cases.push(eppo::case(scenario, users));
    cases.push(unleash::case(scenario, users));
    cases
}
