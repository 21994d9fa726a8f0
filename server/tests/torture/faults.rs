//! The faults: each is done and, where that is somebody's work, undone; the load goes on all the while.

mod inject;

use std::fmt;
use std::time::{Duration, Instant};

use crate::relay::Cut;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of a process that folds, at any moment; it is started again at once.
    Killed,
    /// The same at a step of its loop.
    KilledAt(&'static str),
    /// The same, but it stays away: others have to take its partitions over.
    TakenOver,
    /// SIGSTOP, and SIGCONT seconds later: where partitions are shared out, when others have them.
    Stopped,
    /// SIGTERM under load.
    Terminated,
    /// Processes that fold come and go every second.
    Storm,
    /// Somebody else folds all partitions as well.
    TwoOwners,
    /// The store no longer knows how far the fold is: all of the log is folded again into what is there.
    Replayed,
    /// A connection to the store is cut.
    Cut(&'static str),
    /// A record is appended to Kafka, but the answer does not arrive.
    AppendAnswerLost,
    /// The group has a commit, but the answer does not arrive.
    CommitAnswerLost,
    /// SIGKILL of a process that evaluates.
    EvaluatorKilled,
    /// The wall clock of one of them is ten minutes off for a while.
    ClockOff,
    /// SIGKILL of ClickHouse, which comes back seconds later.
    ClickHouseKilled,
    /// SIGKILL of the Kafka broker, which comes back seconds later.
    BrokerKilled,
    /// SIGKILL of Postgres, which comes back seconds later.
    PostgresKilled,
    /// The topic of the decisions is deleted, and made again seconds later.
    TopicMadeAgain,
    /// Each sync to the disk that the numbers are kept on takes long.
    SlowDisk,
}

/// What a fault did, as far as the books must know.
#[derive(Debug)]
pub struct Harm {
    /// When evaluators ended, and which.
    pub deaths: Vec<(Instant, usize)>,
    pub recovery: Duration,
}

impl Fault {
    /// Those of an installation of one process.
    pub const ONE: [Self; 10] = [
        Self::Killed,
        Self::KilledAt("after_open"),
        Self::KilledAt("before_read"),
        Self::KilledAt("after_fold"),
        Self::KilledAt("before_insert"),
        Self::KilledAt("after_insert"),
        Self::Stopped,
        Self::Terminated,
        Self::PostgresKilled,
        Self::SlowDisk,
    ];

    /// Those of an installation of many.
    pub const MANY: [Self; 27] = [
        Self::Killed,
        Self::KilledAt("after_open"),
        Self::KilledAt("before_read"),
        Self::KilledAt("after_fold"),
        Self::KilledAt("before_insert"),
        Self::KilledAt("during_insert"),
        Self::KilledAt("after_insert"),
        Self::KilledAt("after_commit"),
        Self::KilledAt("at_revoke"),
        Self::TakenOver,
        Self::Stopped,
        Self::Terminated,
        Self::Storm,
        Self::TwoOwners,
        Self::Replayed,
        Self::Cut(Self::CUTS[0].0),
        Self::Cut(Self::CUTS[1].0),
        Self::Cut(Self::CUTS[2].0),
        Self::AppendAnswerLost,
        Self::CommitAnswerLost,
        Self::EvaluatorKilled,
        Self::ClockOff,
        Self::ClickHouseKilled,
        Self::BrokerKilled,
        Self::PostgresKilled,
        Self::TopicMadeAgain,
        Self::SlowDisk,
    ];

    /// Where connections to the store are cut, by name.
    const CUTS: [(&'static str, Cut); 3] = [
        ("insert broken off", Cut::CellsWithinBody),
        ("insert's answer lost", Cut::CellsBeforeAnswer),
        ("positions' answer lost", Cut::PositionsBeforeAnswer),
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "SIGKILL",
            Self::KilledAt(step) => return write!(f, "SIGKILL {}", step.replace('_', " ")),
            Self::TakenOver => "SIGKILL, others take over",
            Self::Stopped => "SIGSTOP, SIGCONT",
            Self::Terminated => "SIGTERM",
            Self::Storm => "rebalance storm",
            Self::TwoOwners => "two owners",
            Self::Replayed => "replay from the beginning",
            Self::Cut(name) => name,
            Self::AppendAnswerLost => "append's answer lost",
            Self::CommitAnswerLost => "commit's answer lost",
            Self::EvaluatorKilled => "SIGKILL of an evaluator",
            Self::ClockOff => "clock 10 minutes off",
            Self::ClickHouseKilled => "SIGKILL of ClickHouse",
            Self::BrokerKilled => "SIGKILL of Kafka",
            Self::PostgresKilled => "SIGKILL of Postgres",
            Self::TopicMadeAgain => "topic made again",
            Self::SlowDisk => "slow disk",
        })
    }
}
