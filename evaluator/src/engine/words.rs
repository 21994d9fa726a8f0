//! Texts eight bytes at a time: a hash for names, and comparisons that most often need not read beyond one word.
//!
//! Names and values are short; calling `memcmp` or `memcpy` for a dozen bytes costs more than the bytes.

/// Bytes of a word.
const WORD_BYTES: usize = 8;

/// The first eight bytes of a text, padded with zeros: tells most texts apart without reading them. The order is any fixed one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head(u64);

impl Head {
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.first_chunk().map_or_else(|| short_word(bytes), |word| u64::from_le_bytes(*word)))
    }

    /// Whether two texts are equal, given their heads and lengths; they are read only if they are longer than a head.
    #[inline]
    pub(super) fn are_equal<'t>(
        a: (Self, usize),
        b: (Self, usize),
        texts: impl FnOnce() -> (&'t [u8], &'t [u8]),
    ) -> bool {
        a == b
            && (a.1 <= WORD_BYTES || {
                let (a, b) = texts();
                a == b
            })
    }
}

/// The end that a text is asked to have, with its last eight bytes apart if it has as many.
#[derive(Debug, Clone)]
pub(super) struct Suffix {
    text: Box<[u8]>,
    last: Option<[u8; WORD_BYTES]>,
}

impl Suffix {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.as_bytes().into(), last: text.as_bytes().last_chunk().copied() }
    }

    #[inline]
    pub(super) fn ends(&self, text: &[u8]) -> bool {
        if self.last.is_some() && text.last_chunk() != self.last.as_ref() {
            return false;
        }
        text.ends_with(&self.text)
    }
}

/// Whether two short texts are equal.
#[inline]
pub(super) fn are_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<WORD_BYTES>(), b.last_chunk()) else {
        return short_word(a) == short_word(b);
    };
    let (words_a, words_b) = (a.as_chunks::<WORD_BYTES>().0, b.as_chunks().0);
    words_a.iter().zip(words_b).all(|(a, b)| a == b) && last_a == last_b
}

/// A hash for names, eight bytes at a time: the halves of a product of 128 bits, joined, as in wyhash. Every bit of a name reaches
/// every bit of it. Collisions cost time, never correctness.
#[inline]
pub(super) fn name_hash(name: &[u8]) -> u64 {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state.rotate_left(23) ^ word) * FACTOR;
        product as u64 ^ (product >> u64::BITS) as u64
    };
    let state = name.len() as u64;
    let Some(last) = name.last_chunk() else { return mix(state, short_word(name)) };
    // The last word overlaps the one before it.
    let words = name[..name.len() - 1].as_chunks::<WORD_BYTES>().0;
    let state = words.iter().fold(state, |state, word| mix(state, u64::from_le_bytes(*word)));
    mix(state, u64::from_le_bytes(*last))
}

/// Fewer than eight bytes as a number, the first one lowest.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // Where both overlap they agree.
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
    }
    let at = |index: usize| u64::from(bytes[index]) << (8 * index);
    if len == 0 { 0 } else { at(0) | at(len / 2) | at(len - 1) }
}

#[cfg(test)]
mod tests {
    use super::{Head, Suffix, are_equal, name_hash};

    /// Texts of all lengths around a word, each with every one-byte change.
    fn variants() -> Vec<Vec<u8>> {
        let mut variants = Vec::new();
        for len in 0..20u8 {
            let text: Vec<u8> = (1..=len).collect();
            for at in 0..text.len() {
                let mut changed = text.clone();
                changed[at] = 0;
                variants.push(changed);
            }
            variants.push(text);
        }
        variants
    }

    #[test]
    fn short_cuts_agree_with_comparing_byte_by_byte() {
        for a in &variants() {
            let suffix = Suffix::new(std::str::from_utf8(a).expect("ASCII"));
            for b in &variants() {
                assert_eq!(are_equal(a, b), a == b, "{a:?} {b:?}");
                assert_eq!(
                    Head::are_equal((Head::of(a), a.len()), (Head::of(b), b.len()), || (a, b)),
                    a == b,
                    "{a:?} {b:?}"
                );
                assert_eq!(suffix.ends(b), b.ends_with(a), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn names_that_differ_in_a_byte_or_in_length_hash_apart() {
        let mut hashes: Vec<u64> = variants().iter().map(|text| name_hash(text)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), variants().len());
    }
}
