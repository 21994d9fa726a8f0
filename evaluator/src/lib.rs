//! Decides flags (engine) and serves decisions to applications (the data plane).

pub mod engine;
