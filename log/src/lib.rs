//! The decision log: a partitioned, ordered, durable sequence of opaque batches, with the four verbs append, read, watch, trim,
//! and a word on who is to read what.
//!
//! The contract lives here and knows nothing about what a batch holds, so that a backend (local segments, Kafka) can be
//! replaced without the recorder or the aggregator noticing. [`LocalLog`] is the backend of the embedded mode.
//!
//! ```
//! use bytes::Bytes;
//! use flagmint_log::{Append, DecisionLog, LocalLog, Options};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let directory = tempfile::tempdir().unwrap();
//! let log = LocalLog::open(Options::new(directory.path(), 2)).unwrap();
//! let batch = Append { partition: 1, header: Bytes::from_static(b"codec 1"), payload: Bytes::from_static(b"rows") };
//! let offset = log.append(batch).await.unwrap();
//! let records = log.read(1, offset, 1 << 20).await.unwrap();
//! assert_eq!(records[0].payload, "rows");
//! # });
//! ```

mod clock;
pub mod conformance;
mod contract;
mod error;
pub mod kafka;
pub mod limits;
pub mod local;

pub use clock::wall_clock_us;
pub use contract::{Append, Assignment, DecisionLog, Record};
pub use error::LogError;
pub use kafka::{KafkaLog, KafkaOptions, SideTopics, UsageEvent};
pub use local::{LocalLog, Options};
