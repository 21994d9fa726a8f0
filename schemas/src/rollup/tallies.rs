//! What decisions are, as analytics count them: the one place that says so, for the fold that adds them up and for whoever reads cells of
//! `decisions` one by one.

use super::measure;
use crate::decision::Reason;

/// Numbers of decisions by what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Decided here.
    pub served: u64,
    /// Decided by clients, as they say.
    pub reported: u64,
    /// Those of `served` that failed.
    pub errors: u64,
    /// Errors of applications.
    pub app_errors: u64,
    /// Goals reached.
    pub goals: u64,
}

impl Tallies {
    /// Adds decisions with these codes of measure and reason; others than these measures are none of them.
    pub fn add(&mut self, measure: u8, reason: u8, count: u64) {
        match measure {
            measure::SERVED => {
                self.served += count;
                self.errors += if reason == Reason::Error.code() { count } else { 0 };
            }
            measure::REPORTED => self.reported += count,
            measure::GOAL => self.goals += count,
            measure::APP_ERROR => self.app_errors += count,
            _ => {}
        }
    }

    /// Served and reported together.
    #[must_use]
    pub const fn evaluations(&self) -> u64 {
        self.served + self.reported
    }
}

impl std::ops::AddAssign for Tallies {
    fn add_assign(&mut self, other: Self) {
        self.served += other.served;
        self.reported += other.reported;
        self.errors += other.errors;
        self.app_errors += other.app_errors;
        self.goals += other.goals;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_served_decisions_alone() {
        let mut counts = Tallies::default();
        for measure in [measure::SERVED, measure::REPORTED, measure::GOAL, measure::APP_ERROR, 99] {
            counts.add(measure, Reason::Error.code(), 3);
            counts.add(measure, Reason::Static.code(), 5);
        }
        assert_eq!(counts, Tallies { served: 8, reported: 8, errors: 3, app_errors: 8, goals: 8 });
    }
}
