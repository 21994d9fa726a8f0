//! Hashing without randomness: seeded by the log's epoch for tables, unseeded and for ever the same for sketches.
//!
//! Words of eight bytes are folded in by a 64 x 64 -> 128 bit multiplication whose halves are xored (the mixing step of wyhash). The
//! order of a table never shows in what the fold emits, so the seed only keeps outsiders from choosing colliding keys.

use std::hash::{BuildHasher, Hasher};

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
const FINISHER: u64 = 0xD6E8_FEB8_6659_FD93;

/// Builds hashers with one seed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seeded(pub u64);

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0 ^ MULTIPLIER)
    }
}

/// The state of one hash.
#[derive(Debug)]
pub(super) struct Mixer(u64);

fn fold_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Mixer {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = fold_multiply(self.0 ^ word, MULTIPLIER).wrapping_add(word.rotate_left(32));
    }
}

impl Hasher for Mixer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    #[inline]
    fn write_i64(&mut self, value: i64) {
        self.mix(value.cast_unsigned());
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        fold_multiply(self.0, FINISHER)
    }
}

/// The hash of a context's key for distinct counts. Stored registers depend on it: it never changes.
pub(super) fn stable(text: &[u8]) -> u64 {
    let mut mixer = Seeded(0).build_hasher();
    mixer.write(text);
    mixer.finish()
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::sketch::unique::{Registers, STANDARD_ERROR};

    use super::*;

    #[test]
    fn stable_hashes_never_change() {
        // Computed by an independent implementation.
        let golden = [
            ("", 0xae0d_7445_68e8_e175_u64),
            ("user-1", 0xdc87_7930_989d_b304),
            ("0123456789abcdef", 0xd38f_23e8_80bc_4fb7),
        ];
        let found: Vec<u64> = golden.iter().map(|(text, _)| stable(text.as_bytes())).collect();
        assert_eq!(found, golden.map(|(_, hash)| hash), "{found:#x?}");
    }

    #[test]
    fn stable_hashes_are_spread_evenly() {
        let mut registers = Registers::default();
        for n in 0..100_000 {
            registers.insert(stable(format!("user-{n}").as_bytes()));
        }
        let error = (registers.estimate() as f64 / 100_000.0 - 1.0).abs();
        assert!(error < 4.0 * STANDARD_ERROR, "{registers:?}");
    }
}
