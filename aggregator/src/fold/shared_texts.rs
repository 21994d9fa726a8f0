//! Texts that many contexts have in common, each kept once as long as it comes often.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::hash::Seeded;

/// Texts remembered at most: attributes that tell no more than a country and a plan have dozens of values, and those that tell a name have none in common.
const REMEMBERED: usize = 256;

/// The texts that came last, by a hash of a part of each. What they are shared with keeps them; forgetting one costs a copy of it.
#[derive(Debug)]
pub(super) struct SharedTexts {
    hashing: Seeded,
    recent: Vec<Arc<str>>,
}

impl SharedTexts {
    /// None yet.
    pub const fn new(hashing: Seeded) -> Self {
        Self { hashing, recent: Vec::new() }
    }

    /// This text.
    #[inline]
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if self.recent.is_empty() {
            self.recent.resize_with(REMEMBERED, Default::default);
        }
        let recent = &mut self.recent[place(self.hashing, text.as_bytes())];
        if **recent != *text {
            *recent = text.into();
        }
        Arc::clone(recent)
    }
}

/// Where a text is remembered: by its length, its ends and its middle, as the whole may be long.
fn place(hashing: Seeded, text: &[u8]) -> usize {
    let mut hasher = hashing.build_hasher();
    let words = [Some(0), (text.len() / 2).checked_sub(4), text.len().checked_sub(8)];
    for word in words.into_iter().flatten().filter_map(|start| text[start..].first_chunk::<8>()) {
        hasher.write_u64(u64::from_le_bytes(*word));
    }
    hasher.write_usize(text.len());
    (hasher.finish() >> 32) as usize % REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_was_given_and_kept_once() {
        let mut texts = SharedTexts::new(Seeded(1));
        let given: Vec<String> = (0..3000).map(|n| "{\"name\":1}".repeat(n % 7) + &(n / 7).to_string()).collect();
        for text in &given {
            assert_eq!(*texts.share(text), **text);
            assert!(Arc::ptr_eq(&texts.share(text), &texts.share(text)), "{text}");
        }
        assert_eq!((&*texts.share(""), &*texts.share("{}")), ("", "{}"));
    }
}
