//! Values that many connections share: equal ones are kept once, for as long as somebody holds them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashTable;

/// Entries below which dead ones are not worth a sweep.
const SWEEP_MIN: usize = 64;

/// A set of values held by others.
pub struct Interned<T> {
    /// Keyed at random per process, so that nobody can choose colliding texts.
    hashing: RandomState,
    table: Mutex<Table<T>>,
}

struct Table<T> {
    entries: HashTable<(u64, Weak<T>)>,
    sweep_at: usize,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        let table = Table { entries: HashTable::new(), sweep_at: SWEEP_MIN };
        Self { hashing: RandomState::new(), table: Mutex::new(table) }
    }
}

impl<T> Interned<T> {
    /// The value that `is_same` knows, found by `bytes`, of which equal values have equal ones; made if nobody holds it.
    pub fn get_or_make(&self, bytes: &[u8], is_same: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let hash = self.hashing.hash_one(bytes);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        let known = table.entries.find(hash, |(other, held)| {
            found = held.upgrade().filter(|value| *other == hash && is_same(value));
            found.is_some()
        });
        if let (Some(_), Some(value)) = (known, found.take()) {
            return value;
        }
        if table.entries.len() >= table.sweep_at {
            table.sweep();
        }
        let value = Arc::new(make());
        table.entries.insert_unique(hash, (hash, Arc::downgrade(&value)), |(hash, _)| *hash);
        value
    }
}

impl<T> Table<T> {
    /// Forgets what nobody holds. Each sweep is paid for by as many insertions as it looks at.
    fn sweep(&mut self) {
        self.entries.retain(|(_, held)| held.strong_count() > 0);
        self.sweep_at = (2 * self.entries.len()).max(SWEEP_MIN);
        self.entries.shrink_to(self.sweep_at, |(hash, _)| *hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_while_held_and_forgotten_afterwards() {
        let interned = Interned::<String>::default();
        let get = |text: &str| interned.get_or_make(text.as_bytes(), |held| held == text, || text.to_owned());
        let held: Vec<_> = (0..100).map(|number| get(&format!("value {number}"))).collect();
        assert!(Arc::ptr_eq(&held[7], &get("value 7")));
        for number in 0..10_000 {
            assert_eq!(*get(&format!("passing {number}")), format!("passing {number}"));
        }
        assert!(interned.table.lock().unwrap().entries.len() <= 200, "what nobody holds is forgotten");
        assert!(held.iter().enumerate().all(|(number, value)| Arc::ptr_eq(value, &get(&format!("value {number}")))));
    }
}
