//! When a call came, by the wall clock and by the steady one.

use std::time::Instant;

use flagmint_ingest::wall_clock_us;

/// The moment a request or message was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// By the steady clock: latencies are counted from here.
    pub at: Instant,
    /// By the wall clock, microseconds since the Unix epoch.
    pub time_us: i64,
}

impl Received {
    /// Just now.
    pub fn now() -> Self {
        Self { at: Instant::now(), time_us: wall_clock_us() }
    }

    /// Unix time in seconds.
    pub fn seconds(&self) -> u64 {
        self.time_us.unsigned_abs() / 1_000_000
    }

    /// Microseconds since then.
    pub fn latency_us(&self) -> u32 {
        u32::try_from(self.at.elapsed().as_micros()).unwrap_or(u32::MAX)
    }
}
