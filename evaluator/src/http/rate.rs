//! The per-key rate limit: a count per calendar minute, exact within one instance, one atomic word per key. What other instances
//! have counted is added as far as it is known ([`crate::configuration::shared_rates`]).

use std::sync::atomic::{AtomicU64, Ordering};

const MINUTE_S: u64 = 60;

/// Requests of one key in the current minute: the minute's number in the upper half, the count in the lower.
#[derive(Debug, Default)]
pub struct RateWindow {
    own: AtomicU64,
    /// The same of all other instances, as far as it is known here.
    others: AtomicU64,
}

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
        let minute = minute_of(now_s);
        let reset_s = (minute + 1) * MINUTE_S;
        if limit == 0 {
            return RateVerdict { admitted: true, limit: u32::MAX, remaining: u32::MAX, reset_s };
        }
        let of_others = count_in(self.others.load(Ordering::Relaxed), minute).unwrap_or(0);
        let own_limit = limit.saturating_sub(of_others);
        let mut seen = self.own.load(Ordering::Relaxed);
        loop {
            // A clock set back keeps counting in the later minute until it catches up, so it cannot reset the count.
            let current = if seen >> 32 >= minute & 0xffff_ffff { seen } else { minute << 32 };
            let used = (current & 0xffff_ffff) as u32;
            if used >= own_limit {
                return RateVerdict { admitted: false, limit, remaining: 0, reset_s };
            }
            match self.own.compare_exchange_weak(seen, current + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return RateVerdict { admitted: true, limit, remaining: own_limit - used - 1, reset_s },
                Err(now) => seen = now,
            }
        }
    }

    /// Requests admitted here in a minute, given by its number since the epoch; `None` if there were none.
    pub fn admitted_in(&self, minute: u64) -> Option<u32> {
        count_in(self.own.load(Ordering::Relaxed), minute)
    }

    /// Learns how many requests the other instances have admitted in a minute.
    pub fn learn(&self, minute: u64, requests: u32) {
        self.others.store(minute << 32 | u64::from(requests), Ordering::Relaxed);
    }
}

/// The minute in which a second falls, by its number since the epoch.
pub const fn minute_of(now_s: u64) -> u64 {
    now_s / MINUTE_S
}

fn count_in(word: u64, minute: u64) -> Option<u32> {
    let count = (word & 0xffff_ffff) as u32;
    (word >> 32 == minute & 0xffff_ffff && count > 0).then_some(count)
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
    fn what_others_admitted_counts_in_its_minute() {
        let window = RateWindow::default();
        assert_eq!((window.admit(600, 5).remaining, window.admitted_in(10)), (4, Some(1)));
        window.learn(10, 3);
        assert_eq!(window.admit(600, 5), RateVerdict { admitted: true, limit: 5, remaining: 0, reset_s: 660 });
        assert!(!window.admit(659, 5).admitted);
        window.learn(10, 100);
        assert!(!window.admit(659, 5).admitted);
        assert_eq!(window.admit(660, 5).remaining, 4, "a new minute");
        assert_eq!((window.admitted_in(10), window.admitted_in(11)), (None, Some(1)));
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
