//! The wall clock in the unit of the log, for all that stamps events or records.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
#[must_use]
pub fn wall_clock_us() -> i64 {
    // A clock before 1970 or after the year 294,000 is as wrong as any; the log keeps append times monotone by itself.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
