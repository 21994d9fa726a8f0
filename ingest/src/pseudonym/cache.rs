//! Contexts pseudonymised lately, by fingerprint: two generations per shard, each bounded in entries and bytes.
//!
//! When the young generation is full it becomes the old one and the old one is forgotten; what is asked for again moves
//! back to the young one. Nothing is tracked per use, and a full cache forgets in two memory operations.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use flagmint_schemas::batch::ObservedContext;

use crate::limits;

/// Takes the fingerprint, which is a hash already, for the hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only `write_u128` is called by the hash of a u128; this keeps the type honest for any other key.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

#[derive(Debug, Default)]
struct Generation {
    contexts: HashMap<u128, Arc<ObservedContext>, BuildHasherDefault<Identity>>,
    bytes: usize,
}

impl Generation {
    fn insert(&mut self, fingerprint: u128, context: Arc<ObservedContext>) {
        self.bytes += size_of::<(u128, ObservedContext)>()
            + context.kind.len()
            + context.key.len()
            + context.attributes_json.len();
        self.contexts.insert(fingerprint, context);
    }

    fn is_full(&self) -> bool {
        self.contexts.len() >= limits::CONTEXT_CACHE_ENTRIES || self.bytes >= limits::CONTEXT_CACHE_BYTES
    }

    fn clear(&mut self) {
        self.contexts.clear();
        self.bytes = 0;
    }
}

#[derive(Debug, Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

impl Shard {
    fn get(&mut self, fingerprint: u128) -> Option<Arc<ObservedContext>> {
        if let Some(context) = self.young.contexts.get(&fingerprint) {
            return Some(Arc::clone(context));
        }
        let context = Arc::clone(self.old.contexts.get(&fingerprint)?);
        self.insert(fingerprint, Arc::clone(&context));
        Some(context)
    }

    fn insert(&mut self, fingerprint: u128, context: Arc<ObservedContext>) {
        if self.young.is_full() {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(fingerprint, context);
    }
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache([Mutex<Shard>; limits::CONTEXT_CACHE_SHARDS]);

impl Cache {
    /// The context with this fingerprint; `make` is called, without holding a lock, if it is not here.
    pub(super) fn get_or_insert(
        &self,
        fingerprint: u128,
        make: impl FnOnce() -> ObservedContext,
    ) -> Arc<ObservedContext> {
        // The table uses the low bits.
        let shard = &self.0[(fingerprint >> 96) as usize % self.0.len()];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = lock().get(fingerprint) {
            return context;
        }
        let context = Arc::new(make());
        lock().insert(fingerprint, Arc::clone(&context));
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(number: u128) -> ObservedContext {
        ObservedContext {
            kind: String::new(),
            key: number.to_string(),
            user_hash: 0,
            attributes_json: String::new(),
            attributes_omitted: 0,
        }
    }

    #[test]
    fn keeps_what_is_used_and_forgets_the_rest_within_its_bounds() {
        let cache = Cache::default();
        let favourite = cache.get_or_insert(1, || context(1));
        for number in 2..20 * limits::CONTEXT_CACHE_ENTRIES as u128 {
            cache.get_or_insert(number, || context(number));
            let again = cache.get_or_insert(1, || panic!("the favourite was forgotten"));
            assert!(Arc::ptr_eq(&favourite, &again));
        }
        let shard = cache.0[0].lock().unwrap();
        assert!(shard.young.contexts.len() + shard.old.contexts.len() <= 2 * limits::CONTEXT_CACHE_ENTRIES);
        assert!(!shard.young.contexts.contains_key(&2) && !shard.old.contexts.contains_key(&2));
    }

    #[test]
    fn large_contexts_fill_it_sooner() {
        let cache = Cache::default();
        for number in 0..64 {
            let attributes_json = "x".repeat(limits::CONTEXT_CACHE_BYTES / 4);
            cache.get_or_insert(number, || ObservedContext { attributes_json, ..context(number) });
        }
        let shard = cache.0[0].lock().unwrap();
        assert!(shard.young.bytes + shard.old.bytes <= 3 * limits::CONTEXT_CACHE_BYTES);
    }
}
