//! What was answered against what is counted.

use std::fmt;
use std::time::{Duration, Instant};

use crate::faults::Harm;
use crate::installation::Installation;
use crate::processes::LOOK;
use crate::support::PATIENCE;
use crate::traffic::Traffic;

/// What an evaluator may take with it when it is killed: what it answered since its last flush was on disk, 100 ms, and as much again as a
/// busy machine may be late with that.
const WINDOW: Duration = Duration::from_millis(500);

/// Time in which something counted twice would show, after everything is counted: several emissions.
const AFTERMATH: Duration = Duration::from_millis(400);

pub struct Books {
    /// Counted up to now, and right.
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

impl Books {
    pub async fn open(installation: &Installation) -> Self {
        // The first calls asked whether the flag is served: they count once their batch is folded.
        tokio::time::sleep(AFTERMATH).await;
        Self { counted: installation.count().await }
    }

    /// Waits until everything is counted and compares.
    pub async fn settle(&mut self, installation: &Installation, traffic: &Traffic, harm: Harm) -> Outcome {
        let calls = traffic.take();
        let is_doubtful = |at: &Instant| harm.deaths.iter().any(|death| *at + WINDOW >= *death && at <= death);
        let doubtful = calls.answered.iter().filter(|at| is_doubtful(at)).count() as u64;
        let answered = calls.answered.len() as u64;
        let least = self.counted + answered - doubtful;
        let most = self.counted + answered + calls.unanswered;
        let deadline = Instant::now() + PATIENCE;
        let mut counted = installation.count().await;
        while counted < least && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            counted = installation.count().await;
        }
        tokio::time::sleep(AFTERMATH).await;
        self.counted = installation.count().await;
        Outcome {
            answered,
            in_window: most.saturating_sub(self.counted),
            lost: least.saturating_sub(self.counted),
            counted_twice: self.counted.saturating_sub(most),
            recovery: harm.recovery,
        }
    }
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
