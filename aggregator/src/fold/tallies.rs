//! Decisions counted by what they were alone: of one flag in an hour, of all flags in a minute. Both follow from the cells of
//! `decisions` and `latency`, and spare questions about many flags the reading of those.

use flagmint_schemas::decision::Reason;
use flagmint_schemas::rollup::measure;

/// Numbers of decisions by what they were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tallies {
    pub served: u64,
    pub reported: u64,
    pub errors: u64,
    pub app_errors: u64,
    pub goals: u64,
}

impl Tallies {
    /// Adds decisions with this measure and reason.
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
}

/// What all flags of an environment add up to in one minute. The histogram is the sum of a board's, made when it is emitted.
#[derive(Debug)]
pub(super) struct Total {
    pub tallies: Tallies,
    pub latency_us: u64,
    pub evaluation_ns: u64,
    /// Where the histograms are.
    pub board: u32,
}
