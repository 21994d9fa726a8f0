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

/// Entries of a sparse sketch at most: its table then takes 1 kB, a quarter of the dense form.
const SPARSE_MAX: usize = 128;

/// HyperLogLog registers, sparse while few are touched.
#[derive(Clone, Debug)]
pub(super) enum UniqueSketch {
    /// The touched ones.
    Sparse(SparseRegisters),
    /// All registers.
    Dense(Registers),
}

impl Default for UniqueSketch {
    fn default() -> Self {
        Self::Sparse(SparseRegisters::default())
    }
}

/// Few registers, in a table with linear probing that is at most half full.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseRegisters {
    /// `(register + 1) << 8 | value`, 0 where free. The length is 0 or a power of two.
    slots: Vec<u32>,
    filled: usize,
}

impl SparseRegisters {
    fn raise(&mut self, mark: Mark) -> bool {
        if (self.filled + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let (tag, value) = (u32::from(mark.register) + 1, u32::from(mark.value));
        let mask = self.slots.len() - 1;
        // A register is a part of a hash already.
        let mut at = usize::from(mark.register) & mask;
        while self.slots[at] != 0 && self.slots[at] >> 8 != tag {
            at = (at + 1) & mask;
        }
        let old = self.slots[at];
        self.filled += usize::from(old == 0);
        let is_higher = old & 0xff < value;
        if is_higher {
            self.slots[at] = tag << 8 | value;
        }
        is_higher
    }

    fn grow(&mut self) {
        let slots = vec![0; (self.slots.len() * 2).max(8)];
        let old = std::mem::replace(self, Self { slots, filled: 0 });
        for mark in old.marks() {
            self.raise(mark);
        }
    }

    fn marks(&self) -> impl Iterator<Item = Mark> {
        let filled = self.slots.iter().filter(|slot| **slot != 0);
        filled.map(|slot| Mark { register: (slot >> 8) as u16 - 1, value: *slot as u8 })
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
    /// Adds marks; true if a register changed.
    pub fn raise_all(&mut self, mut marks: impl Iterator<Item = Mark>) -> bool {
        let mut is_changed = false;
        if let Self::Sparse(sparse) = self {
            while sparse.filled <= SPARSE_MAX {
                let Some(mark) = marks.next() else { return is_changed };
                is_changed |= sparse.raise(mark);
            }
            *self = Self::Dense(self.registers());
        }
        let Self::Dense(registers) = self else { unreachable!("sparse sketches became dense") };
        marks.fold(is_changed, |changed, mark| registers.raise(mark.register, mark.value) | changed)
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
            Self::Sparse(sparse) => sparse.marks().for_each(|mark| {
                registers.raise(mark.register, mark.value);
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
                prop_assert_eq!(sketch.raise_all(std::iter::once(Mark::of(value))), registers.insert(value));
            }
            prop_assert_eq!(pages.encode(), Histogram::from_dense(&dense).encode());
            prop_assert_eq!(sketch.encode(), registers.encode());
        }
    }
}
