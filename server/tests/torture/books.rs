//! What was answered against what is counted: by the analytics, by billing and by the ledger.

use std::fmt;
use std::time::{Duration, Instant};

use chrono::Utc;

use crate::faults::Harm;
use crate::installation::Installation;
use crate::support::PATIENCE;
use crate::traffic::Traffic;

/// What an evaluator may take with it when it is killed: what it answered since its last flush was on disk, 100 ms, and as much again as a
/// busy machine may be late with that.
const WINDOW: Duration = Duration::from_millis(500);

/// Time in which something counted twice would show, after everything is counted: several emissions.
const AFTERMATH: Duration = Duration::from_millis(400);

/// Between two looks at all the numbers.
const LOOK: Duration = Duration::from_millis(100);

/// What is counted, by whom it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// By the analytics of the flags, added up.
    pub evaluations: u64,
    /// Calls billed.
    pub billed: u64,
    /// Decisions in the ledger.
    pub ledger: u64,
    /// Whether the ledger agrees with itself and with the cells.
    pub holds: bool,
    /// Up to when everything is counted.
    pub complete_through: String,
}

pub struct Books {
    /// Counted before the first fault, and right.
    opened: Counts,
    /// Counted since then, up to now, and right.
    counted: u64,
}

/// What came of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Calls answered during it.
    pub answered: u64,
    /// Of those answered in an evaluator's last moments or not at all: not counted.
    pub in_window: u64,
    pub lost: u64,
    pub counted_twice: u64,
    /// From the fault until analytics counted what came after it.
    pub recovery: Duration,
}

impl Counts {
    /// Fewest and most since then, whomever one asks.
    fn since(&self, before: &Self) -> (u64, u64) {
        let evaluations = self.evaluations.saturating_sub(before.evaluations);
        let billed = self.billed.saturating_sub(before.billed);
        let ledger = self.ledger.saturating_sub(before.ledger);
        (evaluations.min(billed).min(ledger), evaluations.max(billed).max(ledger))
    }
}

impl Books {
    pub async fn open(installation: &Installation) -> Self {
        // The first calls asked whether the flag is served: they count once their batch is folded.
        let started = now();
        let deadline = Instant::now() + PATIENCE;
        while installation.counts().await.complete_through <= started {
            assert!(Instant::now() < deadline, "the first calls are not counted");
            tokio::time::sleep(LOOK).await;
        }
        // Once more: the numbers are asked for one after the other.
        Self { opened: installation.counts().await, counted: 0 }
    }

    /// Waits until everything is counted and compares.
    pub async fn settle(&mut self, installation: &Installation, traffic: &Traffic, harm: Harm) -> Outcome {
        let calls = traffic.take();
        let is_doubtful = |(at, from): &&(Instant, usize)| {
            harm.deaths.iter().any(|(death, of)| from == of && *at + WINDOW >= *death && at <= death)
        };
        let doubtful = calls.answered.iter().filter(is_doubtful).count() as u64;
        let answered = calls.answered.len() as u64;
        let least = self.counted + answered - doubtful;
        let most = self.counted + answered + calls.unanswered;
        let rested = now();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = installation.counts().await;
            let (fewest, greatest) = counts.since(&self.opened);
            // An evaluator that was killed holds the watermark back until it is given up; one process has folded all it had by its start.
            let is_complete = counts.complete_through > rested || !installation.is_cluster();
            if (fewest >= least && fewest == greatest && counts.holds && is_complete) || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(AFTERMATH).await;
        let counts = installation.counts().await;
        let (fewest, greatest) = counts.since(&self.opened);
        if !counts.holds || fewest != greatest {
            println!(
                "the numbers do not agree: {least} to {most} were evaluated since {:?}, now {counts:?}",
                self.opened
            );
        }
        self.counted = greatest;
        Outcome {
            answered,
            in_window: most.saturating_sub(greatest),
            lost: least.saturating_sub(fewest),
            // What some count and others do not is wrong, too, within the bounds or not.
            counted_twice: greatest.saturating_sub(most).max(greatest - fewest).max(u64::from(!counts.holds)),
            recovery: harm.recovery,
        }
    }
}

/// This moment, as the API writes times.
fn now() -> String {
    Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, in_window, lost, counted_twice, recovery } = self;
        let recovery_s = recovery.as_secs_f64();
        write!(
            f,
            "{answered} answered, {in_window} in the window, {lost} lost, {counted_twice} twice, fresh after {recovery_s:.1} s"
        )
    }
}
