//! Where in a list a key is: a table of hashes and places, nothing else.
//!
//! Nearly every look-up of a busy log misses the caches. A place of this table holds 32 bits of a hash beside the place in the list, so one look tells that a key is
//! not there, and [`Index::prefetch`] can fetch the places of many keys at once before the first of them is looked for. Source of the method:
//! linear probing, Knuth, "The Art of Computer Programming", volume 3, 6.4, algorithm L.

use super::prefetch::prefetch;

/// Places in a list by hash.
#[derive(Debug)]
pub(super) struct Index {
    /// Upper half: the hash's; lower half: the place plus one, 0 where there is none. A power of two of them.
    entries: Vec<u64>,
    len: usize,
}

/// Entries at first.
const ENTRIES_MIN: usize = 16;

/// Bits of a hash that choose where the search begins, and tell it from others.
const fn tag(hash: u64) -> u64 {
    hash >> 32
}

impl Index {
    /// Without a key.
    pub const EMPTY: Self = Self { entries: Vec::new(), len: 0 };

    /// Has that fetched which a search for a hash looks at first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.entries, self.start(hash));
    }

    /// The place of a key with this hash that `is_it`.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let mut at = self.start(hash);
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            let place = (entry as u32) - 1;
            if entry >> 32 == tag(hash) && is_it(place) {
                return Some(place);
            }
            at = self.after(at);
        }
    }

    /// Takes in a key that is not there yet, with its place.
    pub fn insert(&mut self, hash: u64, place: u32) {
        // Two thirds full at most: a search then looks at two entries on average, which mostly share a cache line.
        if self.len * 3 >= self.entries.len() * 2 {
            self.grow();
        }
        self.put(tag(hash) << 32 | u64::from(place + 1));
        self.len += 1;
    }

    fn put(&mut self, entry: u64) {
        let mut at = self.start(entry);
        while self.entries[at] != 0 {
            at = self.after(at);
        }
        self.entries[at] = entry;
    }

    #[cold]
    fn grow(&mut self) {
        let entries = (self.entries.len() * 2).max(ENTRIES_MIN);
        let before = std::mem::replace(&mut self.entries, vec![0; entries]);
        before.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.put(entry));
    }

    #[inline]
    const fn start(&self, hash: u64) -> usize {
        tag(hash) as usize & self.entries.len().wrapping_sub(1)
    }

    #[inline]
    const fn after(&self, at: usize) -> usize {
        (at + 1) & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_was_put_in(hashes in prop::collection::vec(0..64_u64, 0..300), far in any::<bool>()) {
            // Hashes that collide in all bits, or in those that choose the entry.
            let hash = |of: u64| if far { of << 58 } else { of << 32 };
            let (mut index, mut keys) = (Index::EMPTY, Vec::<u64>::new());
            for (number, of) in hashes.into_iter().enumerate() {
                let key = (of << 32) | (number as u64 % 3);
                let expected = keys.iter().position(|other| *other == key).map(|place| place as u32);
                index.prefetch(hash(of));
                prop_assert_eq!(index.find(hash(of), |place| keys[place as usize] == key), expected);
                if expected.is_none() {
                    index.insert(hash(of), keys.len() as u32);
                    keys.push(key);
                }
            }
        }
    }
}
