//! How many connections there can be: each needs a descriptor, and so do the log, the rollups and Postgres.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors that are not for clients.
const RESERVED: u64 = 512;

/// Raises the limit of descriptors as far as the system lets us; how many of them clients may have.
pub fn connections_max() -> u32 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files stays as it is");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(descriptors.saturating_sub(RESERVED).max(descriptors / 2)).unwrap_or(u32::MAX)
}
