//! Sketches under construction: cheap to update one value at a time, small while small, with the stored forms of
//! `flagmint_schemas::sketch`.

use flagmint_schemas::sketch::latency::{BUCKETS, Histogram};
use flagmint_schemas::sketch::unique::{Registers, register_of};

const PAGE: usize = 32;
const PAGES: usize = BUCKETS / PAGE;

/// A latency histogram in pages of one doubling each: latencies of one flag fall into few doublings, and a page is found without a search.
#[derive(Clone, Debug)]
pub(super) struct LatencyPages {
    /// Index into `pages` plus one, 0 for a doubling without values.
    page_of: [u8; PAGES],
    pages: Vec<[u64; PAGE]>,
}

impl Default for LatencyPages {
    fn default() -> Self {
        Self { page_of: [0; PAGES], pages: Vec::new() }
    }
}

impl LatencyPages {
    /// Adds `weight` values to a bucket.
    #[inline]
    pub fn add(&mut self, bucket: u16, weight: u64) {
        let (page, within) = (usize::from(bucket) / PAGE, usize::from(bucket) % PAGE);
        let mut index = usize::from(self.page_of[page]);
        if index == 0 {
            self.pages.push([0; PAGE]);
            index = self.pages.len();
            self.page_of[page] = index as u8;
        }
        self.pages[index - 1][within] += weight;
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut dense = [0; BUCKETS];
        for (counts, index) in dense.chunks_exact_mut(PAGE).zip(self.page_of) {
            if index > 0 {
                counts.copy_from_slice(&self.pages[usize::from(index) - 1]);
            }
        }
        Histogram::from_dense(&dense).encode()
    }
}

/// Entries of a sparse sketch at most; beyond, searching costs more than the 4 kB of a dense one.
const SPARSE_MAX: usize = 96;

/// HyperLogLog registers, sparse while few are touched.
#[derive(Clone, Debug)]
pub(super) enum UniqueSketch {
    /// (register, value), ascending.
    Sparse(Vec<(u16, u8)>),
    /// All registers.
    Dense(Registers),
}

impl Default for UniqueSketch {
    fn default() -> Self {
        Self::Sparse(Vec::new())
    }
}

/// What one hash does to a sketch: computed once per context, applied once per decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    register: u16,
    value: u8,
}

impl Mark {
    /// The mark of a hash.
    #[inline]
    pub fn of(hash: u64) -> Self {
        let (register, value) = register_of(hash);
        Self { register, value }
    }
}

impl UniqueSketch {
    /// Adds a mark; true if a register changed.
    #[inline]
    pub fn raise(&mut self, mark: Mark) -> bool {
        match self {
            Self::Dense(registers) => registers.raise(mark.register, mark.value),
            Self::Sparse(_) => self.raise_sparse(mark),
        }
    }

    #[cold]
    fn raise_sparse(&mut self, mark: Mark) -> bool {
        let Self::Sparse(entries) = self else { unreachable!("called for sparse sketches only") };
        match entries.binary_search_by_key(&mark.register, |entry| entry.0) {
            Ok(found) => {
                let changed = mark.value > entries[found].1;
                entries[found].1 = entries[found].1.max(mark.value);
                changed
            }
            Err(place) => {
                entries.insert(place, (mark.register, mark.value));
                if entries.len() > SPARSE_MAX {
                    *self = Self::Dense(self.registers());
                }
                true
            }
        }
    }

    fn registers(&self) -> Registers {
        let mut registers = Registers::default();
        self.merge_into(&mut registers);
        registers
    }

    /// Merges this sketch into `registers`.
    pub fn merge_into(&self, registers: &mut Registers) {
        match self {
            Self::Dense(own) => registers.merge_max(own),
            Self::Sparse(entries) => entries.iter().for_each(|(register, value)| {
                registers.raise(*register, *value);
            }),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Dense(registers) => registers.encode(),
            Self::Sparse(_) => self.registers().encode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::sketch::latency::bucket_of;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stored_forms_are_those_of_the_plain_sketches(values in prop::collection::vec(any::<u64>(), 0..400)) {
            let (mut pages, mut dense) = (LatencyPages::default(), vec![0; BUCKETS]);
            let (mut sketch, mut registers) = (UniqueSketch::default(), Registers::default());
            for value in values {
                let bucket = bucket_of(value >> (value % 60));
                pages.add(bucket, 3);
                dense[usize::from(bucket)] += 3;
                prop_assert_eq!(sketch.raise(Mark::of(value)), registers.insert(value));
            }
            prop_assert_eq!(pages.encode(), Histogram::from_dense(&dense).encode());
            prop_assert_eq!(sketch.encode(), registers.encode());
        }
    }
}
