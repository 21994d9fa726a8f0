//! Folds the log into rollup cells.
//!
//! [`fold`] is pure: records in, cells with cumulative values out. The loop around it reads the log from where the store
//! says it stands, folds, and hands the cells to the store.

pub mod fold;
pub mod limits;
mod run;

pub use run::{Failpoint, PartitionStatus, RunError, Settings, Status, Step, UnknownFailpoint, run};
