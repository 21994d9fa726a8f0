//! Contexts read lately, by the text they came as: clients ask again and again with the same context, and reading one costs more
//! than deciding all flags for it.
//!
//! Two generations per shard, each bounded in bytes. When the young one is full it becomes the old one and the old one is
//! forgotten; what is asked for again moves back to the young one. Texts are told apart by their SHA-256, so nobody can be taken for
//! somebody else; comparing the texts would wait for memory longer than the hash takes, as ten thousand of them are in no cache.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagmint_ingest::KnownContext;
use hashbrown::HashTable;
use sha2::{Digest as _, Sha256};

use crate::engine::Context;
use crate::limits;

/// A context, read, with what may be logged of it.
#[repr(C)]
pub struct Seen {
    /// For the log; `None` only where nothing is recorded. First, beside the counts of whoever shares this and the part of the context
    /// that is read first: of thousands that come in turns none is in a cache.
    pub known: Option<KnownContext>,
    /// For the engine.
    pub context: Context,
}

impl fmt::Debug for Seen {
    /// Without what the client sent: it holds raw keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Seen").field("known", &self.known).finish_non_exhaustive()
    }
}

struct Entry<T> {
    digest: Digest,
    text_bytes: u32,
    seen: Arc<T>,
}

/// SHA-256 of a secret and a text.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Digest([u8; 32]);

impl Digest {
    fn hash(&self) -> u64 {
        u64::from_le_bytes(*self.0.first_chunk().expect("it has 32 bytes"))
    }
}

struct Generation<T> {
    entries: HashTable<Entry<T>>,
    bytes: usize,
}

impl<T> Default for Generation<T> {
    fn default() -> Self {
        Self { entries: HashTable::new(), bytes: 0 }
    }
}

struct Shard<T> {
    young: Generation<T>,
    old: Generation<T>,
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self { young: Generation::default(), old: Generation::default() }
    }
}

/// The cache of one environment: what a request's text was read as by one protocol. Flags and rules have no part in that.
pub struct SeenContexts<T = Seen> {
    /// Hashed before each text, so that nobody can choose texts that crowd one place of a table.
    secret: [u8; 16],
    shards: [Mutex<Shard<T>>; limits::CONTEXT_CACHE_SHARDS],
}

impl<T> Default for SeenContexts<T> {
    fn default() -> Self {
        Self { secret: rand::random(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

fn cost_bytes(text_bytes: usize) -> usize {
    limits::CONTEXT_CACHE_ENTRY_BYTES + limits::CONTEXT_CACHE_FACTOR * text_bytes
}

impl<T> SeenContexts<T> {
    /// The context that this text was read as; `read` is called, without holding a lock, if it is not here.
    ///
    /// # Errors
    /// Those of `read`; they are not kept.
    pub fn get_or_read<E>(&self, text: &[u8], read: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        // A text this large would push out hundreds of others.
        if cost_bytes(text.len()) > limits::CONTEXT_CACHE_BYTES / 16 {
            return read().map(Arc::new);
        }
        let digest = Digest(Sha256::new_with_prefix(self.secret).chain_update(text).finalize().into());
        if let Some(seen) = self.shard(&digest).get(&digest) {
            return Ok(seen);
        }
        let seen = Arc::new(read()?);
        let entry = Entry { digest, text_bytes: text.len() as u32, seen: Arc::clone(&seen) };
        self.shard(&digest).insert(entry);
        Ok(seen)
    }

    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Shard<T>> {
        // Other bits than those the tables use.
        let shard = &self.shards[digest.0[8] as usize % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Entry<T> {
    fn cost_bytes(&self) -> usize {
        cost_bytes(self.text_bytes as usize)
    }
}

impl<T> Shard<T> {
    fn get(&mut self, digest: &Digest) -> Option<Arc<T>> {
        let is_same = |entry: &Entry<T>| entry.digest == *digest;
        if let Some(entry) = self.young.entries.find(digest.hash(), is_same) {
            return Some(Arc::clone(&entry.seen));
        }
        let (entry, _) = self.old.entries.find_entry(digest.hash(), is_same).ok()?.remove();
        let seen = Arc::clone(&entry.seen);
        self.old.bytes -= entry.cost_bytes();
        self.insert(entry);
        Some(seen)
    }

    fn insert(&mut self, entry: Entry<T>) {
        let cost = entry.cost_bytes();
        if self.young.bytes + cost > limits::CONTEXT_CACHE_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += cost;
        self.young.entries.insert_unique(entry.digest.hash(), entry, |entry| entry.digest.hash());
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn ask(cache: &SeenContexts, text: &str, is_read: &mut bool) -> Arc<Seen> {
        let read = || {
            *is_read = true;
            Ok::<_, Infallible>(Seen { context: Context::from_json(text.as_bytes()).unwrap(), known: None })
        };
        cache.get_or_read(text.as_bytes(), read).unwrap_or_else(|never| match never {})
    }

    fn json(number: usize, filler: usize) -> String {
        format!(r#"{{"kind":"user","key":"user-{number}","filler":"{}"}}"#, "x".repeat(filler))
    }

    #[test]
    fn keeps_what_is_used_and_forgets_the_rest_within_its_bounds() {
        let cache = SeenContexts::default();
        let mut is_read = false;
        let favourite = ask(&cache, &json(0, 10), &mut is_read);
        for number in 1..40_000 {
            let seen = ask(&cache, &json(number, 100), &mut is_read);
            assert_eq!(seen.context.bucketing_key(), Some(&*format!("user-{number}")));
            is_read = false;
            assert!(Arc::ptr_eq(&favourite, &ask(&cache, &json(0, 10), &mut is_read)) && !is_read, "after {number}");
        }
        ask(&cache, &json(1, 100), &mut is_read);
        assert!(is_read, "the first of 40,000 others is still there");
        for shard in &cache.shards {
            let shard = shard.lock().unwrap();
            for generation in [&shard.young, &shard.old] {
                let cost: usize = generation.entries.iter().map(Entry::cost_bytes).sum();
                assert_eq!(cost, generation.bytes);
                assert!(cost <= limits::CONTEXT_CACHE_BYTES);
            }
        }
    }

    #[test]
    fn neither_failures_nor_huge_texts_are_kept() {
        let cache = SeenContexts::default();
        assert_eq!(cache.get_or_read(b"x", || Err(7)).err(), Some(7));
        let (mut first, mut second) = (false, false);
        ask(&cache, &json(1, 50_000), &mut first);
        ask(&cache, &json(1, 50_000), &mut second);
        assert!(first && second);
        assert!(cache.shards.iter().all(|shard| shard.lock().unwrap().young.entries.is_empty()));
    }
}
