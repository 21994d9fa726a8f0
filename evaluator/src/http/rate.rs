//! The per-key rate limit: a count per calendar minute, exact within one instance, one atomic word per key.

use std::sync::atomic::{AtomicU64, Ordering};

const MINUTE_S: u64 = 60;

/// Requests of one key in the current minute: the minute's number in the upper half, the count in the lower.
#[derive(Debug, Default)]
pub struct RateWindow(AtomicU64);

/// What the limit says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateVerdict {
    /// Whether the request may go on.
    pub admitted: bool,
    /// Requests a minute.
    pub limit: u32,
    /// Requests left in this minute.
    pub remaining: u32,
    /// When the minute ends, Unix seconds.
    pub reset_s: u64,
}

impl RateWindow {
    /// Counts one request at `now_s` (Unix seconds) against `limit` a minute; 0 is no limit.
    pub fn admit(&self, now_s: u64, limit: u32) -> RateVerdict {
        let minute = now_s / MINUTE_S;
        let reset_s = (minute + 1) * MINUTE_S;
        if limit == 0 {
            return RateVerdict { admitted: true, limit: u32::MAX, remaining: u32::MAX, reset_s };
        }
        let window = minute << 32;
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            // A clock set back keeps counting in the later minute until it catches up, so it cannot reset the count.
            let current = if seen >> 32 >= minute & 0xffff_ffff { seen } else { window };
            let used = (current & 0xffff_ffff) as u32;
            if used >= limit {
                return RateVerdict { admitted: false, limit, remaining: 0, reset_s };
            }
            match self.0.compare_exchange_weak(seen, current + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return RateVerdict { admitted: true, limit, remaining: limit - used - 1, reset_s },
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_to_the_limit_and_starts_again_with_the_minute() {
        let window = RateWindow::default();
        let admitted: Vec<bool> = (0..4).map(|_| window.admit(119, 3).admitted).collect();
        assert_eq!(admitted, [true, true, true, false]);
        assert_eq!(window.admit(120, 3), RateVerdict { admitted: true, limit: 3, remaining: 2, reset_s: 180 });
        assert_eq!(window.admit(60, 3).remaining, 1, "a clock set back does not give a fresh minute");
        assert!(window.admit(0, 0).admitted);
    }

    #[test]
    fn is_exact_under_contention() {
        let window = RateWindow::default();
        let admitted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| window.admit(600, 5000).admitted).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!(admitted, 5000);
    }
}
