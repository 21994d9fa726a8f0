//! The fold by itself, and the loop around it on a real log and a real store.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod assignments;
mod fold;
mod run;
mod sums;
mod support;
