//! How a command ends: the exit status tells a script what happened (0 done, 1 does not hold, 2 usage, 3 resource).

use std::process::ExitCode;

use thiserror::Error;

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum Failure {
    /// The thing checked does not hold.
    #[error("{0}")]
    DoesNotHold(String),
    /// Wrong usage or configuration.
    #[error("{0}")]
    Usage(String),
    /// A port, directory or server could not be had.
    #[error("{0}")]
    Resource(String),
}

impl Failure {
    /// A resource that could not be had, and why.
    pub fn resource(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Resource(format!("{what}: {why}"))
    }

    /// The exit status.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::DoesNotHold(_) => 1,
            Self::Usage(_) => 2,
            Self::Resource(_) => 3,
        })
    }
}
