//! The faults: each is done and, where that is somebody's work, undone; the load goes on all the while.

use std::fmt;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::installation::Installation;
use crate::servers;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of a process that folds, at any moment.
    Killed,
    /// The same at a step of its loop.
    KilledAt(&'static str),
    /// SIGSTOP, and SIGCONT seconds later.
    Stopped,
    /// SIGTERM under load.
    Terminated,
    /// SIGKILL of Postgres, which comes back seconds later.
    PostgresKilled,
}

/// What a fault did, as far as the books must know.
#[derive(Debug)]
pub struct Harm {
    /// When processes ended that had evaluated.
    pub deaths: Vec<Instant>,
    pub recovery: Duration,
}

impl Fault {
    pub const EMBEDDED: [Self; 9] = [
        Self::Killed,
        Self::KilledAt("after_open"),
        Self::KilledAt("before_read"),
        Self::KilledAt("after_fold"),
        Self::KilledAt("before_insert"),
        Self::KilledAt("after_insert"),
        Self::Stopped,
        Self::Terminated,
        Self::PostgresKilled,
    ];

    /// Does it, and returns when what is evaluated is counted again.
    pub async fn inject(self, installation: &mut Installation, random: &mut StdRng) -> Harm {
        let a_while = Duration::from_millis(random.random_range(500..3000));
        let mut started = Instant::now();
        let mut deaths = Vec::new();
        let process = installation.aggregator();
        match self {
            Self::Killed => {
                deaths.push(process.kill().await);
                process.start().await;
            }
            Self::KilledAt(step) => {
                deaths.push(process.kill().await);
                // A partition is opened once.
                let pass = if step == "after_open" { 1 } else { random.random_range(1..40) };
                process.start_to_fail(&format!("{step}:{pass}")).await;
                started = Instant::now();
                deaths.push(started);
                process.start().await;
            }
            Self::Stopped => {
                process.signal(libc::SIGSTOP);
                tokio::time::sleep(a_while).await;
                process.signal(libc::SIGCONT);
            }
            Self::Terminated => {
                process.terminate().await;
                process.start().await;
            }
            Self::PostgresKilled => servers::kill("FLAGMINT_TEST_POSTGRES_CONTROL", a_while).await,
        }
        installation.wait_until_fresh().await;
        Harm { deaths, recovery: started.elapsed() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed => f.write_str("SIGKILL"),
            Self::KilledAt(step) => write!(f, "SIGKILL {}", step.replace('_', " ")),
            Self::Stopped => f.write_str("SIGSTOP, SIGCONT"),
            Self::Terminated => f.write_str("SIGTERM"),
            Self::PostgresKilled => f.write_str("SIGKILL of Postgres"),
        }
    }
}
