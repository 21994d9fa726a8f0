//! The server's idea of now for leases: the wall clock, shifted where a test asks for it (data-plane.md 7.8).

use std::sync::atomic::{AtomicI64, Ordering};

use flagmint_ingest::wall_clock_us;

/// The most that a test may shift the clock, either way: a hundred years, so that sums stay far from overflow.
const OFFSET_MS_MAX: i64 = 100 * 366 * 86_400_000;

/// The wall clock and its offset.
#[derive(Debug, Default)]
pub struct Clock {
    offset_ms: AtomicI64,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, epoch milliseconds.
    pub wall_clock_ms: i64,
    /// What is added to it.
    pub offset_ms: i64,
}

impl Reading {
    /// The time that leases are written with, epoch milliseconds.
    #[must_use]
    pub const fn effective_now_ms(self) -> i64 {
        self.wall_clock_ms + self.offset_ms
    }
}

impl Clock {
    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading { wall_clock_ms: wall_clock_us() / 1000, offset_ms: self.offset_ms.load(Ordering::Relaxed) }
    }

    /// The time that leases are written with, epoch milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.read().effective_now_ms()
    }

    /// Shifts it by so much more.
    pub fn advance(&self, by_ms: i64) {
        let shifted = |offset: i64| Some(offset.saturating_add(by_ms).clamp(-OFFSET_MS_MAX, OFFSET_MS_MAX));
        let _ = self.offset_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shifted);
    }

    /// Back to the wall clock.
    pub fn reset(&self) {
        self.offset_ms.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_add_up_within_bounds_and_are_taken_back() {
        let clock = Clock::default();
        clock.advance(5);
        clock.advance(-2);
        assert_eq!(clock.read().offset_ms, 3);
        clock.advance(i64::MAX);
        assert!(clock.now_ms() > 0);
        clock.advance(i64::MIN);
        assert_eq!(clock.read().offset_ms, -OFFSET_MS_MAX);
        clock.reset();
        assert_eq!(clock.read().offset_ms, 0);
    }
}
