//! What every crate shares: ids, decisions, batches and their codecs, rollup tables, sketches, limits. Pure: no clock,
//! no I/O, no randomness, no logging.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod batch;
pub mod context_key;
pub mod decision;
pub mod ids;
pub mod limits;
pub mod rollup;
pub mod sketch;
