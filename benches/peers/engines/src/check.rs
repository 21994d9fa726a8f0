//! Proof that an engine evaluates what it was given, before any time is trusted.

use crate::case::Case;
use crate::engines;
use crate::scenario::Scenario;
use crate::users::{self, Rule};

/// Each rule, when hit, turns every flag on for everybody: a rule that an engine failed to parse would leave half of the probes to
/// the rollout. Users who hit a rule of one flag need not hit those of others, so each flag is probed by itself.
pub fn rules_decide_when_hit(scenario: &Scenario) {
    for flag in &scenario.flags {
        let Some(targeting) = &flag.targeting else { continue };
        let alone = Scenario { flags: vec![flag.clone()], ..*scenario };
        for rule in [Rule::Country, Rule::PlanAndAge, Rule::Email] {
            let probes = users::hitting(rule, targeting);
            for mut case in engines::cases(&alone, &probes) {
                let on = (case.run)(probes.len());
                assert_eq!(on, probes.len(), "{} {}: {rule:?} must decide", case.engine, case.entry);
            }
        }
    }
}

/// Without rules everybody is on; with rules that miss, about half of the users are.
pub fn rollout_decides_otherwise(scenario: &Scenario, users: usize, cases: &mut [Case]) {
    for case in cases {
        let share = (case.run)(users) as f64 / (users * scenario.flags.len()) as f64;
        // Four standard deviations of 1024 coin tosses are 0.0625.
        let expected = if scenario.flags[0].targeting.is_some() { 0.4375..=0.5625 } else { 1.0..=1.0 };
        eprintln!("{:4} {share:.4} on  {} {}", scenario.name, case.engine, case.entry);
        assert!(expected.contains(&share), "{} {}: {share} on", case.engine, case.entry);
    }
}
