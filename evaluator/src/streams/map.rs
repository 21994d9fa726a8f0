//! The values of all flags as a connection was sent them, shared by all connections that were sent the same.

use std::sync::Arc;

/// One environment's flags for some contexts.
#[derive(Debug, PartialEq, Eq)]
pub struct FlagMap {
    /// `{"key":value,…}`.
    pub values: Box<str>,
    /// `{"key":bool,…}`: which flags have Analytics Tracking on.
    pub analytics: Arc<str>,
}

impl FlagMap {
    /// The message of a socket.
    #[must_use]
    pub fn message(&self) -> String {
        ["{\"type\":\"flags\",\"flags\":", &self.values, "}"].concat()
    }

    /// The event of a stream.
    #[must_use]
    pub fn event(&self) -> String {
        ["event: flags\ndata: {\"flags\":", &self.values, ",\"analytics\":", &self.analytics, "}\n\n"].concat()
    }
}
