//! Puts decisions into the log: the recorder, pseudonyms, the spool.
//!
//! [`Recorder`] takes what the evaluator decided into memory without ever making it wait, and appends it as batches, in
//! order, some 50 ms later. [`ContextRedactor`] replaces raw keys and private attributes before anything is buffered.

pub mod limits;
pub mod pseudonym;
pub mod recorder;

pub use flagmint_log::wall_clock_us;
pub use pseudonym::ContextRedactor;
pub use recorder::{
    CallFacts, CallerId, CallerName, EnvironmentIdentity, EnvironmentRecorder, Health, InFlight, KnownContext,
    Recorder, RecorderError, Settings, Stats,
};
