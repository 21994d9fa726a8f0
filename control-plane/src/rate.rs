//! Sliding-window rate limits in memory, per instance, with bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::MAX_LIMITER_KEYS;

/// Slots that together cover one window and the slot it began in.
const SLOTS: u64 = 13;

/// Admits at most `limit` events per key in any minute. Events are counted in slots of 5 s, so an event is forgotten 60
/// to 65 s after it happened: never too early.
#[derive(Debug)]
pub struct SlidingWindow<K> {
    limit: u16,
    slot: Duration,
    origin: Instant,
    keys: Mutex<HashMap<K, Counts>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    newest: u64,
    slots: [u16; SLOTS as usize],
}

impl Counts {
    /// Forgets what is older than the window that ends with slot `now`.
    fn advance(&mut self, now: u64) {
        for slot in (self.newest + 1)..=now.min(self.newest + SLOTS) {
            self.slots[(slot % SLOTS) as usize] = 0;
        }
        self.newest = self.newest.max(now);
    }

    fn total(&self) -> u16 {
        self.slots.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The slot from which on a further event will be admitted.
    fn free_from(&self, limit: u16) -> u64 {
        let mut left = self.total();
        for slot in self.newest.saturating_sub(SLOTS - 1)..=self.newest {
            left -= self.slots[(slot % SLOTS) as usize];
            if left < limit {
                return slot + SLOTS;
            }
        }
        self.newest + SLOTS
    }
}

impl<K: Hash + Eq> SlidingWindow<K> {
    /// A limit of `limit` events per minute and key.
    pub fn per_minute(limit: u16, origin: Instant) -> Self {
        let slot = Duration::from_secs(60) / (SLOTS as u32 - 1);
        Self { limit, slot, origin, keys: Mutex::new(HashMap::new()) }
    }

    /// Counts one event of `key`, or says in how many whole seconds it will be admitted.
    ///
    /// # Errors
    /// The limit is reached; the event is not counted.
    pub fn admit(&self, key: K, now: Instant) -> Result<(), u64> {
        let elapsed = now.saturating_duration_since(self.origin);
        let slot = u64::try_from(elapsed.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX - SLOTS);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_LIMITER_KEYS && !keys.contains_key(&key) {
            keys.retain(|_, counts| counts.newest + SLOTS > slot);
            // Still full: somebody floods us with new keys. Starting over gives each key its limit once more, which is
            // less than such a flood is worth; refusing would lock everybody out.
            if keys.len() >= MAX_LIMITER_KEYS {
                metrics::counter!("flagmint_control_plane_limiter_resets_total").increment(1);
                keys.clear();
            }
        }
        let counts = keys.entry(key).or_default();
        counts.advance(slot);
        if counts.total() >= self.limit {
            let free = self.slot * u32::try_from(counts.free_from(self.limit)).unwrap_or(u32::MAX);
            return Err(free.saturating_sub(elapsed).as_secs_f64().ceil().max(1.0) as u64);
        }
        counts.slots[(slot % SLOTS) as usize] += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_a_minute_and_no_more() {
        let origin = Instant::now();
        let limiter = SlidingWindow::per_minute(5, origin);
        let at = |seconds: u64| origin + Duration::from_secs(seconds);
        for second in [0, 10, 20, 30, 40] {
            assert_eq!(limiter.admit("a", at(second)), Ok(()));
        }
        assert_eq!(limiter.admit("a", at(50)), Err(15));
        assert_eq!(limiter.admit("b", at(50)), Ok(()));
        assert_eq!(limiter.admit("a", at(64)), Err(1));
        assert_eq!(limiter.admit("a", at(65)), Ok(()));
        assert_eq!(limiter.admit("a", at(66)), Err(9));
        assert_eq!(limiter.admit("a", at(10_000)), Ok(()));
    }

    #[test]
    fn no_window_holds_more_than_the_limit() {
        let origin = Instant::now();
        let limiter = SlidingWindow::per_minute(5, origin);
        let admitted: Vec<u64> = (0..600_000_u64)
            .step_by(700)
            .filter(|ms| limiter.admit((), origin + Duration::from_millis(*ms)).is_ok())
            .collect();
        assert!(admitted.windows(6).all(|six| six[5] - six[0] >= 60_000), "{admitted:?}");
        assert!(admitted.len() >= 45, "{}", admitted.len());
    }

    #[test]
    fn memory_is_bounded() {
        let origin = Instant::now();
        let limiter = SlidingWindow::per_minute(5, origin);
        for key in 0..MAX_LIMITER_KEYS + 10 {
            assert_eq!(limiter.admit(key, origin), Ok(()));
        }
        assert!(limiter.keys.lock().unwrap().len() <= MAX_LIMITER_KEYS);
    }
}
