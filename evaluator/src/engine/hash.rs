//! The bucket of a key: `string-hash` of the key and the salt, modulo 100.
//!
//! Source: the JavaScript package `string-hash`, a 32-bit variant of Bernstein's hash (times 33, XOR) that runs from the last
//! UTF-16 code unit to the first. The salt comes last in the text and therefore first in the hash, so the state after it
//! is a constant of the configuration; and one key meets many salts, so several states advance over it side by side.

/// Start of the hash.
const SEED: u32 = 5381;
/// Buckets are 0 to 99.
const BUCKETS: u32 = 100;
/// The bucket of the empty text.
pub(super) const EMPTY_TEXT_BUCKET: u8 = (SEED % BUCKETS) as u8;
/// States advanced at once: four SSE2 registers, enough to hide the latency of one step behind the others.
pub(super) const LANES: usize = 16;

/// The hash's state, an unsigned 32-bit number, after a text.
#[must_use]
pub fn hash(text: &str) -> u32 {
    KeyUnits::new(text).hash_after(SEED)
}

/// The bucket, 0 to 99, of a finished hash.
#[must_use]
pub const fn bucket(hash: u32) -> u8 {
    (hash % BUCKETS) as u8
}

#[inline]
const fn step(state: u32, unit: u16) -> u32 {
    (state << 5).wrapping_add(state) ^ unit as u32
}

/// The UTF-16 code units of a key in the order in which they are hashed: from the last to the first.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyUnits(Box<[u16]>);

impl KeyUnits {
    pub(super) fn new(key: &str) -> Self {
        if key.is_ascii() {
            return Self(key.bytes().rev().map(u16::from).collect());
        }
        let mut units: Vec<u16> = key.encode_utf16().collect();
        units.reverse();
        Self(units.into())
    }

    /// The hash of the key and a salt, given the state after the salt.
    #[inline]
    pub(super) fn hash_after(&self, salt_state: u32) -> u32 {
        // Each step waits for the one before it, so what can be saved is the loop around them.
        let (chunks, rest) = self.0.as_chunks::<6>();
        let over_chunk = |state, chunk: &[u16; 6]| chunk.iter().fold(state, |state, &unit| step(state, unit));
        let state = chunks.iter().fold(salt_state, over_chunk);
        rest.iter().fold(state, |state, &unit| step(state, unit))
    }

    /// As [`Self::hash_after`] for several salts.
    #[inline]
    pub(super) fn hash_lanes(&self, states: &mut [u32; LANES]) {
        for &unit in &self.0 {
            for state in states.iter_mut() {
                *state = step(*state, unit);
            }
        }
    }
}
