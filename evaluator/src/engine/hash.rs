//! The bucket of a key: `string-hash` of the key and the salt, modulo 100.
//!
//! Source: the JavaScript package `string-hash`, a 32-bit variant of Bernstein's hash (times 33, XOR) that runs from the last
//! UTF-16 code unit to the first. The salt comes last in the text and therefore first in the hash, so the state after it
//! is a constant of the configuration, and what an ASCII key does to such a state has a closed form ([`AsciiKey`]).

/// Start of the hash.
const SEED: u32 = 5381;
/// What a step multiplies the state by.
const FACTOR: u32 = 33;
/// Buckets are 0 to 99.
const BUCKETS: u32 = 100;
/// The bucket of the empty text.
pub(super) const EMPTY_TEXT_BUCKET: u8 = (SEED % BUCKETS) as u8;

/// The hash's state, an unsigned 32-bit number, after a text.
#[must_use]
pub fn hash(text: &str) -> u32 {
    reversed_units(text).iter().fold(SEED, |state, &unit| step(state, unit))
}

/// The bucket, 0 to 99, of a finished hash.
#[must_use]
pub const fn bucket(hash: u32) -> u8 {
    (hash % BUCKETS) as u8
}

#[inline]
const fn step(state: u32, unit: u16) -> u32 {
    // Times `FACTOR`, in a form that every vector unit has.
    (state << 5).wrapping_add(state) ^ unit as u32
}

/// The UTF-16 code units in the order in which they are hashed: from the last to the first.
fn reversed_units(text: &str) -> Box<[u16]> {
    let mut units: Box<[u16]> = text.encode_utf16().collect();
    units.reverse();
    units
}

/// What a key does to the state of the hash.
#[derive(Debug, Clone)]
pub(super) enum KeyHash {
    Ascii(AsciiKey),
    /// Its reversed units.
    Other(Box<[u16]>),
}

impl KeyHash {
    pub(super) fn new(key: &str) -> Self {
        if key.is_ascii() {
            return Self::Ascii(AsciiKey::new(key.as_bytes()));
        }
        Self::Other(reversed_units(key))
    }

    /// The hash of the key and a salt, given the state after the salt.
    #[inline]
    pub(super) fn after(&self, salt_state: u32) -> u32 {
        match self {
            Self::Ascii(key) => key.after(salt_state),
            Self::Other(units) => units.iter().fold(salt_state, |state, &unit| step(state, unit)),
        }
    }
}

/// A key of ASCII characters: any salt's hash without going through the key again.
///
/// With a unit `c` below 128, a step is `33 h + d` (modulo 2^32), where `d = (x ^ c) - x` and `x` is `33 h` modulo 128. So after
/// a key of `n` units the state is `33^n h + t`, and `t` depends on `h` modulo 128 alone. `33 = 1 + 2^5` leaves bits 0 to 4 to
/// themselves and adds bits 0 and 1 to bits 5 and 6, and each bit's share of `d` is a summand of its own. So bits 2, 3 and 4
/// of `h` act on `t` independently of the other bits: `t` is the sum of a term of bits 0, 1, 5 and 6 and a term of bits 2 to 4.
#[derive(Debug, Clone)]
pub(super) struct AsciiKey {
    /// `33^n`
    power: u32,
    /// First by bits 0 and 1, and 5 and 6 moved down to 2 and 3; then by bits 2 to 4, less what is there for zeros.
    terms: [u32; MIXING + SEPARATE],
}

/// Combinations of the bits 0, 1, 5 and 6.
const MIXING: usize = 16;
/// Combinations of the bits 2, 3 and 4.
const SEPARATE: usize = 8;

impl AsciiKey {
    fn new(key: &[u8]) -> Self {
        let starts: [u32; MIXING + SEPARATE] = std::array::from_fn(|index| {
            let bits = if index < MIXING { index & 0b11 | (index >> 2) << 5 } else { (index - MIXING) << 2 };
            bits as u32
        });
        let mut terms = starts;
        let mut power = 1u32;
        // All states side by side in vector registers: no step waits for that of another.
        for &byte in key.iter().rev() {
            for state in &mut terms {
                *state = step(*state, u16::from(byte));
            }
            power = power.wrapping_mul(FACTOR);
        }
        for (term, start) in terms.iter_mut().zip(starts) {
            *term = term.wrapping_sub(power.wrapping_mul(start));
        }
        let zero = terms[0];
        for term in &mut terms[MIXING..] {
            *term = term.wrapping_sub(zero);
        }
        Self { power, terms }
    }

    #[inline]
    fn after(&self, state: u32) -> u32 {
        let mixing = self.terms[(state & 0b11 | state >> 3 & 0b1100) as usize];
        let separate = self.terms[MIXING + (state >> 2 & 0b111) as usize];
        state.wrapping_mul(self.power).wrapping_add(mixing).wrapping_add(separate)
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyHash, hash, reversed_units, step};

    #[test]
    fn the_closed_form_agrees_with_going_through_the_key() {
        let ascii: String = (0..128u8).map(char::from).collect();
        let mut keys = vec![ascii.repeat(3)];
        keys.extend((0..128).map(|start| ascii[start..].to_owned()));
        keys.extend((0..128).map(|end| ascii[..end].chars().rev().collect()));
        keys.extend(["", "a", "0f8fad5b-d9cb-469f-a165-70867728950e", "ключ", "a€b", "𝒳y"].map(str::to_owned));
        for key in keys {
            let (key_hash, units) = (KeyHash::new(&key), reversed_units(&key));
            // An odd factor takes every value of the low bits along with ever different high ones.
            for state in (0..1024u32).map(|n| n.wrapping_mul(0x9e37_79b1)) {
                let expected = units.iter().fold(state, |state, &unit| step(state, unit));
                assert_eq!(key_hash.after(state), expected, "{key:?} after {state}");
            }
        }
    }

    #[test]
    fn the_salt_comes_first_in_the_hash_of_both() {
        assert_eq!(KeyHash::new("user-1").after(hash("salt")), hash("user-1salt"));
    }
}
