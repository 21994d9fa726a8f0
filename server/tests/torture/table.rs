//! The table of a run: by fault, how often, what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::books::Outcome;
use crate::faults::Fault;

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    injected: u64,
    decisions: u64,
    in_window: u64,
    lost: u64,
    counted_twice: u64,
    recovery: Duration,
    recovery_max: Duration,
}

#[derive(Debug, Default)]
pub struct Table(BTreeMap<Fault, Row>);

impl Table {
    pub fn add(&mut self, fault: Fault, outcome: Outcome) {
        let row = self.0.entry(fault).or_default();
        row.injected += 1;
        row.decisions += outcome.answered;
        row.in_window += outcome.in_window;
        row.lost += outcome.lost;
        row.counted_twice += outcome.counted_twice;
        row.recovery += outcome.recovery;
        row.recovery_max = row.recovery_max.max(outcome.recovery);
    }

    /// Decisions lost or counted twice.
    pub fn wrong(&self) -> u64 {
        self.0.values().map(|row| row.lost + row.counted_twice).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | injected | decisions | in the window | lost | counted twice | fresh after, mean / max |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
        let mut sum = Row::default();
        for (fault, row) in &self.0 {
            line(f, &fault.to_string(), row)?;
            sum.injected += row.injected;
            sum.decisions += row.decisions;
            sum.in_window += row.in_window;
            sum.lost += row.lost;
            sum.counted_twice += row.counted_twice;
            sum.recovery += row.recovery;
            sum.recovery_max = sum.recovery_max.max(row.recovery_max);
        }
        line(f, "all", &sum)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, row: &Row) -> fmt::Result {
    let Row { injected, decisions, in_window, lost, counted_twice, recovery, recovery_max } = row;
    let (mean_s, max_s) = (recovery.as_secs_f64() / (*injected).max(1) as f64, recovery_max.as_secs_f64());
    writeln!(
        f,
        "| {name} | {injected} | {decisions} | {in_window} | {lost} | {counted_twice} | {mean_s:.1} / {max_s:.1} s |"
    )
}
