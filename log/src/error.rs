//! What can go wrong in a log, by what the caller must do about it.

use thiserror::Error;

/// Error of a log operation. The kind says what the caller must do, the text says why to a person.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LogError {
    /// Try the same call again later.
    #[error("the log cannot take this now: {0}")]
    Retry(String),
    /// The same call can never succeed.
    #[error("the log refuses this: {0}")]
    Refuse(String),
    /// The log can no longer be trusted with this operation; a person must act.
    #[error("the log has failed: {0}")]
    Fatal(String),
}
