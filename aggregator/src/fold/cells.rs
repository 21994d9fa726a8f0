//! A set of cells of one table: found by key, updated by slot number, and emitted when they have changed.

use std::hash::{BuildHasher, Hash};

use super::hash::Seeded;
use super::index::Index;
use super::prefetch::prefetch;

/// Stands for "no slot looked up yet".
pub(super) const ABSENT: u32 = u32::MAX;

/// Cells in the order of their creation, so that the same records always give the same rows in the same order.
#[derive(Debug)]
pub(super) struct Cells<K, V> {
    hashing: Seeded,
    index: Index,
    keys: Vec<K>,
    /// Apart from the keys, which are wider and looked at once per batch: what every decision touches stays in the caches.
    slots: Vec<Slot<V>>,
    dirty: Vec<u32>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    is_dirty: bool,
}

impl<K: Hash + Eq, V> Cells<K, V> {
    /// No cells.
    pub fn new(hashing: Seeded) -> Self {
        Self { hashing, index: Index::EMPTY, keys: Vec::new(), slots: Vec::new(), dirty: Vec::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The hash by which a key is found.
    #[inline]
    pub fn hash(&self, key: &K) -> u64 {
        self.hashing.hash_one(key)
    }

    /// Has that fetched which a look-up of a key with this hash begins with.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Has the cell fetched that a key with this hash probably has.
    #[inline]
    pub fn prefetch_hashed(&self, hash: u64) {
        if let Some(slot) = self.index.find(hash, |_| true) {
            prefetch(&self.keys, slot as usize);
            self.prefetch(slot);
        }
    }

    /// Has the value in a slot fetched, if there is one.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        prefetch(&self.slots, slot as usize);
    }

    /// The slot of a key, made with `value` if new.
    pub fn slot_with(&mut self, key: K, value: impl FnOnce() -> V) -> u32 {
        self.slot_hashed(self.hash(&key), key, value)
    }

    /// The same, for a key whose hash is known.
    #[inline]
    pub fn slot_hashed(&mut self, hash: u64, key: K, value: impl FnOnce() -> V) -> u32 {
        let keys = &self.keys;
        if let Some(slot) = self.index.find(hash, |slot| keys[slot as usize] == key) {
            return slot;
        }
        let slot = self.slots.len() as u32;
        self.index.insert(hash, slot);
        self.keys.push(key);
        self.slots.push(Slot { value: value(), is_dirty: false });
        slot
    }

    /// The slot of a key, if there is one.
    pub fn find(&self, key: &K) -> Option<u32> {
        self.index.find(self.hash(key), |slot| self.keys[slot as usize] == *key)
    }

    /// The value in a slot, to be changed: the cell will be emitted.
    #[inline]
    pub fn change(&mut self, slot: u32) -> &mut V {
        let cell = &mut self.slots[slot as usize];
        if !cell.is_dirty {
            cell.is_dirty = true;
            self.dirty.push(slot);
        }
        &mut cell.value
    }

    /// The cell in a slot.
    pub fn get(&self, slot: u32) -> (&K, &V) {
        (&self.keys[slot as usize], &self.slots[slot as usize].value)
    }

    /// How many cells have changed since [`Self::take_dirty`].
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// The slots of the cells changed since the last call, in order of creation.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.iter().for_each(|slot| self.slots[*slot as usize].is_dirty = false);
        dirty
    }
}

impl<K: Hash + Eq, V: Default> Cells<K, V> {
    /// The slot of a key, made if new.
    pub fn slot(&mut self, key: K) -> u32 {
        self.slot_with(key, V::default)
    }
}
