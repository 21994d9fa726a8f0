//! The decision log: a partitioned, ordered, durable sequence of opaque batches, with the four verbs append, read, watch, trim.
//!
//! The contract lives here and knows nothing about what a batch holds, so that a backend (local segments, Kafka) can be
//! replaced without the recorder or the aggregator noticing.

mod contract;
mod error;
pub mod limits;

pub use contract::{Append, DecisionLog, Record};
pub use error::LogError;
