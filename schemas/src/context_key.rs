//! The key a context is logged under.
//!
//! Nearly all are pseudonyms, `p1_` and 32 hexadecimal digits (data-plane.md section 11). They are kept as the number they spell: nothing to
//! allocate, copied in two words, and nothing else to fetch when two are compared.

use std::fmt;
use std::sync::Arc;

/// What a context is told from others by; see [`ContextKey::of`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContextKey {
    /// The context has none.
    #[default]
    None,
    /// A pseudonym.
    Pseudonym(Pseudonym),
    /// Anything else, such as a raw key of an environment that opted in; never empty, and no spelling of a pseudonym.
    Text(Arc<str>),
}

/// 128 bits of a keyed hash; as a text, `p1_` and its hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pseudonym {
    high: u64,
    low: u64,
}

impl Pseudonym {
    /// What stands before the digits.
    pub const PREFIX: &'static str = "p1_";

    /// The first 128 bits of a hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// The bytes its digits spell.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        ((self.high as u128) << 64 | self.low as u128).to_be_bytes()
    }

    /// Bits of it that are as good as random.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.low
    }

    /// What stands for the user of this pseudonym where users are counted: its lower half, but never 0, which means "no user key".
    #[must_use]
    pub fn user_hash(self) -> u64 {
        self.low.max(1)
    }

    /// Its text.
    #[must_use]
    pub fn spelled(self) -> [u8; Self::PREFIX.len() + 32] {
        let mut text = *b"p1_00000000000000000000000000000000";
        for (digits, byte) in text[Self::PREFIX.len()..].as_chunks_mut::<2>().0.iter_mut().zip(self.to_bytes()) {
            *digits = [HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 0xf)]];
        }
        text
    }

    /// The number that a pseudonym in its one canonical spelling stands for.
    fn parse(text: &[u8]) -> Option<Self> {
        let digits: &[u8; 32] = text.strip_prefix(Self::PREFIX.as_bytes())?.try_into().ok()?;
        let (mut bits, mut invalid) = (0_u128, 0);
        for &digit in digits {
            let value = DIGITS[usize::from(digit)];
            invalid |= value;
            bits = bits << 4 | u128::from(value & 0xf);
        }
        (invalid < NO_DIGIT).then(|| Self::from_bytes(bits.to_be_bytes()))
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.spelled()).map_err(|_| fmt::Error)?)
    }
}

impl ContextKey {
    /// The key with this spelling; none if it is empty.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self::None;
        }
        Pseudonym::parse(text.as_bytes()).map_or_else(|| Self::Text(text.into()), Self::Pseudonym)
    }

    /// The hash of the user's key if this is it: the lower half of its pseudonym, never 0; 0 if there is none. Texts do not tell.
    #[must_use]
    pub fn user_hash(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Pseudonym(pseudonym) => Some(pseudonym.user_hash()),
            Self::Text(_) => None,
        }
    }

    /// Whether the context has no key, and so cannot be told from others.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ContextKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Pseudonym(pseudonym) => pseudonym.fmt(formatter),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

const NO_DIGIT: u8 = 0x80;

/// The value of each lower-case hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[HEXADECIMAL[value] as usize] = value as u8;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_they_came() {
        let text = "p1_00112233445566778899aabbccddeeff";
        let bytes = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
        assert_eq!(ContextKey::of(text), ContextKey::Pseudonym(Pseudonym::from_bytes(bytes)));
        assert_eq!(
            (ContextKey::of(text).to_string(), Pseudonym::from_bytes(bytes).to_bytes()),
            (text.to_owned(), bytes)
        );
        assert!(text.starts_with(Pseudonym::PREFIX));
        let others = ["p1_", "p1_00112233445566778899AABBCCDDEEFF", "p2_00112233445566778899aabbccddeeff", "user-7"];
        let others =
            others.into_iter().chain(["p1_00112233445566778899aabbccddeeff0", "p1_0g112233445566778899aabbccddeeff"]);
        for text in others {
            assert_eq!(ContextKey::of(text), ContextKey::Text(text.into()));
            assert_eq!(ContextKey::of(text).to_string(), text);
        }
        assert_eq!((ContextKey::of(""), ContextKey::None.to_string()), (ContextKey::None, String::new()));
    }
}
