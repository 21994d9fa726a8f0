//! Batches of events that came lately, so that one whose reply was lost and that is sent again is not counted twice.
//!
//! A batch is known by its key and its bytes, and remembered as half a SHA-256 of them. Bounded: with more batches in a window
//! than are remembered the oldest is forgotten early. One process remembers its own: a client that repeats a batch to another
//! instance is counted twice.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flagmint_schemas::ids::KeyId;
use sha2::{Digest as _, Sha256};

use crate::limits::{REPEAT_WINDOW, REPEATS_MAX};

/// The batches of the last minutes.
pub struct Repeats {
    window: Duration,
    batches_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    known: HashSet<u128>,
    by_age: VecDeque<(Instant, u128)>,
}

impl Default for Repeats {
    fn default() -> Self {
        Self { window: REPEAT_WINDOW, batches_max: REPEATS_MAX, held: Mutex::default() }
    }
}

impl Repeats {
    /// Remembers a batch; false if it is remembered already.
    pub fn is_new(&self, key: KeyId, body: &[u8], now: Instant) -> bool {
        let digest = Sha256::new().chain_update(key.0.as_bytes()).chain_update(body).finalize();
        let name = u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(&(came, oldest)) = held.by_age.front() {
            let is_expired = now.saturating_duration_since(came) >= self.window;
            if !is_expired && held.by_age.len() < self.batches_max {
                break;
            }
            if !is_expired {
                metrics::counter!("flagmint_evaluator_events_forgotten_early_total").increment(1);
            }
            held.by_age.pop_front();
            held.known.remove(&oldest);
        }
        let is_new = held.known.insert(name);
        if is_new {
            held.by_age.push_back((now, name));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(number: u128) -> KeyId {
        KeyId(Uuid::from_u128(number))
    }

    #[test]
    fn a_batch_is_new_once_in_its_window() {
        let repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.is_new(key(1), b"a", start));
        assert!(!repeats.is_new(key(1), b"a", start));
        assert!(repeats.is_new(key(2), b"a", start), "another key");
        assert!(repeats.is_new(key(1), b"b", start), "other bytes");
        assert!(!repeats.is_new(key(1), b"a", start + REPEAT_WINDOW - Duration::from_millis(1)));
        assert!(repeats.is_new(key(1), b"a", start + REPEAT_WINDOW));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let repeats = Repeats { batches_max: 100, ..Repeats::default() };
        let start = Instant::now();
        for number in 0..1000_u32 {
            assert!(repeats.is_new(key(1), &number.to_be_bytes(), start));
        }
        let held = |repeats: &Repeats| {
            let held = repeats.held.lock().unwrap();
            (held.known.len(), held.by_age.len())
        };
        assert_eq!(held(&repeats), (100, 100));
        assert!(!repeats.is_new(key(1), &999_u32.to_be_bytes(), start));
        assert!(repeats.is_new(key(1), &0_u32.to_be_bytes(), start));
    }
}
