//! SDK keys that failed lately. Some clients retry a refusal without end; closing on them late slows them down.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::directory::KeyHash;
use crate::limits::{FAILED_KEY_MEMORY, FAILED_KEYS_MAX};

/// When each failed last.
#[derive(Debug, Default)]
pub struct FailedKeys(Mutex<HashMap<KeyHash, Instant>>);

impl FailedKeys {
    /// Notes a failure; whether the key had failed within [`FAILED_KEY_MEMORY`] before.
    pub fn note(&self, key: KeyHash, now: Instant) -> bool {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < FAILED_KEY_MEMORY;
        if failed.len() >= FAILED_KEYS_MAX && !failed.contains_key(&key) {
            failed.retain(|_, at| is_recent(at));
            // Somebody tries keys by the thousand: all of them are slowed down.
            if failed.len() >= FAILED_KEYS_MAX {
                return true;
            }
        }
        failed.insert(key, now).is_some_and(|at| is_recent(&at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_remembered_for_a_minute() {
        let failed = FailedKeys::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let found: Vec<bool> =
            [0, 1, 61, 60 + 61].into_iter().map(|seconds| failed.note([1; 32], at(seconds))).collect();
        assert_eq!(found, [false, true, false, false]);
        assert!(!failed.note([2; 32], at(121)));
    }

    #[test]
    fn memory_is_bounded() {
        let failed = FailedKeys::default();
        let start = Instant::now();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        for number in 0..FAILED_KEYS_MAX {
            assert!(!failed.note(key(number), start));
        }
        assert!(failed.note(key(FAILED_KEYS_MAX), start), "slowed down for want of room");
        assert!(!failed.note(key(FAILED_KEYS_MAX), start + FAILED_KEY_MEMORY), "room is made by time");
        assert_eq!(failed.0.lock().unwrap().len(), 1);
    }
}
