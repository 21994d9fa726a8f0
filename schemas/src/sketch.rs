//! Mergeable sketches of distributions and of distinct counts, the same in every store.

pub mod latency;
pub mod unique;
