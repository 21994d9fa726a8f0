//! A set of cells of one table: found by key, updated by slot number, and emitted when they have changed.

use std::hash::Hash;

use indexmap::{Equivalent, IndexMap};

use super::hash::Seeded;

/// Stands for "no slot looked up yet".
pub(super) const ABSENT: u32 = u32::MAX;

/// Cells in the order of their creation, so that the same records always give the same rows in the same order.
#[derive(Debug)]
pub(super) struct Cells<K, V> {
    map: IndexMap<K, Slot<V>, Seeded>,
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
        Self { map: IndexMap::with_hasher(hashing), dirty: Vec::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The slot of a key, made with `value` if new.
    pub fn slot_with(&mut self, key: K, value: impl FnOnce() -> V) -> u32 {
        let entry = self.map.entry(key);
        let slot = entry.index();
        entry.or_insert_with(|| Slot { value: value(), is_dirty: false });
        slot as u32
    }

    /// The slot of a key that may be given in another form.
    pub fn find<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<u32> {
        self.map.get_index_of(key).map(|slot| slot as u32)
    }

    /// The value in a slot, to be changed: the cell will be emitted.
    #[inline]
    pub fn change(&mut self, slot: u32) -> &mut V {
        let cell = &mut self.map[slot as usize];
        if !cell.is_dirty {
            cell.is_dirty = true;
            self.dirty.push(slot);
        }
        &mut cell.value
    }

    /// The value in a slot, to be changed if `change` says so.
    #[inline]
    pub fn change_if(&mut self, slot: u32, change: impl FnOnce(&mut V) -> bool) {
        let cell = &mut self.map[slot as usize];
        if change(&mut cell.value) && !cell.is_dirty {
            cell.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// The cell in a slot.
    pub fn get(&self, slot: u32) -> (&K, &V) {
        let (key, cell) = self.map.get_index(slot as usize).expect("slots are never removed");
        (key, &cell.value)
    }

    /// The slots of the cells changed since the last call, in order of creation.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.iter().for_each(|slot| self.map[*slot as usize].is_dirty = false);
        dirty
    }
}

impl<K: Hash + Eq, V: Default> Cells<K, V> {
    /// The slot of a key, made if new.
    pub fn slot(&mut self, key: K) -> u32 {
        self.slot_with(key, V::default)
    }
}
