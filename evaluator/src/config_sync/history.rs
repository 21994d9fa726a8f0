//! The deltas at hand of one environment: those seen since the start, and those before them once a client asked for them.
//!
//! They are contiguous and end at the version in force, or are none. Bounded in versions and bytes, oldest dropped first: a
//! client further behind gets the whole configuration instead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::payload::Delta;
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_VERSIONS_MAX};

/// The deltas at hand.
#[derive(Debug, Default)]
pub struct History {
    held: Mutex<Held>,
    /// Taken while older deltas are fetched, so that they are fetched once; true when they have been.
    pub(crate) fetched: tokio::sync::Mutex<bool>,
}

#[derive(Debug, Default)]
struct Held {
    deltas: VecDeque<Arc<Delta>>,
    bytes: usize,
}

impl History {
    /// Adds what newer publishes changed. If that does not follow what is held, what is held is forgotten.
    pub fn extend(&self, newer: impl IntoIterator<Item = Delta>) {
        let mut held = self.held();
        for delta in newer {
            if held.deltas.back().is_some_and(|last| last.to_version() + 1 != delta.to_version()) {
                *held = Held::default();
            }
            held.bytes += delta.bytes();
            held.deltas.push_back(Arc::new(delta));
        }
        while held.deltas.len() > HISTORY_VERSIONS_MAX || held.bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = held.deltas.pop_front() else { break };
            held.bytes -= oldest.bytes();
        }
    }

    /// Adds what was before: deltas in ascending order that end at the version before the first one held (at
    /// `current_version` if none is). Takes as many of the latest as there is room for.
    pub fn prepend(&self, older: impl DoubleEndedIterator<Item = Delta>, current_version: u64) {
        let mut held = self.held();
        for delta in older.rev() {
            let next = held.deltas.front().map_or(current_version + 1, |first| first.to_version());
            let has_room = held.deltas.len() < HISTORY_VERSIONS_MAX && held.bytes + delta.bytes() <= HISTORY_BYTES_MAX;
            if delta.to_version() >= next {
                continue; // Arrived by `extend` meanwhile.
            }
            if delta.to_version() + 1 != next || !has_room {
                break;
            }
            held.bytes += delta.bytes();
            held.deltas.push_front(Arc::new(delta));
        }
    }

    /// The version from which on deltas are held; `None` if none is.
    #[must_use]
    pub fn from_version(&self) -> Option<u64> {
        self.held().deltas.front().map(|first| first.to_version() - 1)
    }

    /// The deltas that lead from one version to a later one; `None` if one is missing.
    #[must_use]
    pub fn between(&self, from: u64, to: u64) -> Option<Vec<Arc<Delta>>> {
        let held = self.held();
        let first = held.deltas.front()?.to_version();
        let start = usize::try_from((from + 1).checked_sub(first)?).ok()?;
        let end = usize::try_from((to + 1).checked_sub(first)?).ok()?;
        (start < end && end <= held.deltas.len()).then(|| held.deltas.range(start..end).cloned().collect())
    }

    /// Forgets everything; what is asked for next is fetched again.
    pub async fn clear(&self) {
        let mut fetched = self.fetched.lock().await;
        *self.held() = Held::default();
        *fetched = false;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(to_version: u64) -> Delta {
        Delta::parse(to_version, 0, r#"{"upserts":[],"deletes":["x"],"segments":{}}"#).expect("a delta")
    }

    fn versions(history: &History, from: u64, to: u64) -> Option<Vec<u64>> {
        Some(history.between(from, to)?.iter().map(|delta| delta.to_version()).collect())
    }

    #[test]
    fn only_what_is_contiguous_is_given_out() {
        let history = History::default();
        assert_eq!(versions(&history, 1, 2), None);
        history.extend([delta(5), delta(6)]);
        assert_eq!(versions(&history, 4, 6), Some(vec![5, 6]));
        assert_eq!(versions(&history, 5, 6), Some(vec![6]));
        for (from, to) in [(3, 6), (4, 7), (6, 6), (7, 6), (0, 1)] {
            assert_eq!(versions(&history, from, to), None, "{from} {to}");
        }
        history.prepend([delta(2), delta(3), delta(4), delta(5)].into_iter(), 6);
        assert_eq!(versions(&history, 1, 6), Some(vec![2, 3, 4, 5, 6]));
        history.extend([delta(9)]);
        assert_eq!(versions(&history, 5, 6), None, "a gap forgets what was before it");
        assert_eq!(versions(&history, 8, 9), Some(vec![9]));
        history.prepend([delta(6), delta(7)].into_iter(), 9);
        assert_eq!(history.from_version(), Some(8), "8 is missing");
    }

    #[test]
    fn it_is_bounded_in_versions_and_bytes() {
        let history = History::default();
        let many = HISTORY_VERSIONS_MAX as u64 + 10;
        history.extend((2..=many + 1).map(delta));
        assert_eq!(history.from_version(), Some(11));
        let large = format!(r#"{{"upserts":[],"deletes":["{}"],"segments":{{}}}}"#, "x".repeat(HISTORY_BYTES_MAX / 5));
        let large = |version| Delta::parse(version, 0, &large).expect("a delta");
        history.extend((many + 2..many + 5).map(large));
        assert_eq!(history.from_version(), Some(many + 2));
        history.prepend([large(many + 2)].into_iter(), many + 4);
        assert_eq!(history.from_version(), Some(many + 2), "no room");
    }
}
