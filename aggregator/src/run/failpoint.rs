//! A crash at a chosen step of the loop, so that tests can show that no step may not be crashed at.
//!
//! `FLAGMINT_FAILPOINT=after_insert:3` ends the process as SIGKILL would (`abort`: nothing is flushed, no destructor runs) when the
//! step is passed for the third time. Without it every check is one comparison.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// A step of the loop, in the order in which a record meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A partition is open: its position is known and what precedes it read.
    AfterOpen,
    /// Before the partitions are read.
    BeforeRead,
    /// Records were folded, nothing of them is emitted.
    AfterFold,
    /// An emission is complete, the store has not seen it.
    BeforeInsert,
    /// The store waits for something while it takes an emission: some of it may be there.
    DuringInsert,
    /// The store has taken an emission, the loop has not noted that.
    AfterInsert,
    /// Chunk starts were committed to the log.
    AfterCommit,
    /// A partition was taken away, its last cells are not emitted.
    AtRevoke,
}

impl Step {
    const NAMES: [(&'static str, Self); 8] = [
        ("after_open", Self::AfterOpen),
        ("before_read", Self::BeforeRead),
        ("after_fold", Self::AfterFold),
        ("before_insert", Self::BeforeInsert),
        ("during_insert", Self::DuringInsert),
        ("after_insert", Self::AfterInsert),
        ("after_commit", Self::AfterCommit),
        ("at_revoke", Self::AtRevoke),
    ];
}

/// A text that names no failpoint.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a failpoint is STEP:PASS, such as after_insert:3; steps are {}", Step::NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownFailpoint;

/// Nothing, or the step to crash at and how often it may be passed before.
#[derive(Clone, Debug, Default)]
pub struct Failpoint(Option<Arc<Armed>>);

#[derive(Debug)]
struct Armed {
    step: Step,
    passes_left: AtomicU64,
}

impl FromStr for Failpoint {
    type Err = UnknownFailpoint;

    fn from_str(text: &str) -> Result<Self, UnknownFailpoint> {
        let (name, passes) = text.split_once(':').unwrap_or((text, "1"));
        let (_, step) = Step::NAMES.into_iter().find(|(known, _)| *known == name).ok_or(UnknownFailpoint)?;
        let passes_left = passes.parse().ok().filter(|passes| *passes > 0).ok_or(UnknownFailpoint)?;
        Ok(Self(Some(Arc::new(Armed { step, passes_left: AtomicU64::new(passes_left) }))))
    }
}

impl Failpoint {
    /// Ends the process if this is the pass it is armed for.
    pub(super) fn pass(&self, step: Step) {
        if self.is_last(step) {
            std::process::abort();
        }
    }

    fn is_last(&self, step: Step) -> bool {
        let Some(armed) = &self.0 else { return false };
        armed.step == step && armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_pass_of_the_named_step() {
        let failpoint: Failpoint = "after_insert:3".parse().unwrap();
        assert!(!failpoint.is_last(Step::BeforeInsert));
        let passes = [(); 5].map(|()| failpoint.clone().is_last(Step::AfterInsert));
        assert_eq!(passes, [false, false, true, false, false], "clones count together");
        assert!("at_revoke".parse::<Failpoint>().unwrap().is_last(Step::AtRevoke), "the first pass, if none is said");
        let inert = Failpoint::default();
        assert!(!inert.is_last(Step::AfterInsert));
    }

    #[test]
    fn every_step_has_a_name_and_other_texts_are_refused() {
        for (name, step) in Step::NAMES {
            assert!(format!("{name}:1").parse::<Failpoint>().unwrap().is_last(step), "{name}");
        }
        for text in ["", "after", "after_insert:0", "after_insert:x", "after_insert:-1", ":3"] {
            assert_eq!(text.parse::<Failpoint>().unwrap_err(), UnknownFailpoint, "{text}");
        }
    }
}
