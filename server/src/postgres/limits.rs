//! The limits of the embedded PostgreSQL, each with its reason.

use std::time::Duration;

/// Oldest major version accepted of an installed server: the oldest that our SQL is tested with (Debian 12 has it).
pub(super) const LOWEST_MAJOR: u32 = 15;

/// How long a start may take. Recovery after a crash took 2.2 s at most when measured, with 128 MB of WAL as its bound; a slow disk
/// gets twenty times that.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a start is tried again while a predecessor that was killed still leaves. 1.6 s were seen on a loaded machine.
pub(super) const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the lock of the home is tried: a killed program leaves its own within some milliseconds, and a person who starts a
/// second program by mistake should not wait.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between two looks at a starting or stopping server: short beside its 30 ms, long beside the cost of reading one small file.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long a fast shutdown may take before an immediate one. The whole program has 10 s to stop.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest path of a unix socket in bytes: `sockaddr_un.sun_path` has 108, one of them for the final NUL.
pub(super) const SOCKET_PATH_BYTES: usize = 107;

/// How much of the server's log an error quotes: its last words are what matters.
pub(super) const LOG_TAIL_BYTES: u64 = 2_000;

/// How many files are synced at a time: enough to share the journal's commits, few enough for any limit on threads.
pub(super) const SYNC_THREADS: usize = 16;
