//! What the recorder knows of contexts between calls and within a batch: whose attributes are due to be told, and which row of the
//! batch's dictionary is whose.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicI64, Ordering};

use flagmint_schemas::batch::ObservedContext;
use flagmint_schemas::context_key::ContextKey;
use flagmint_schemas::limits::ATTRIBUTES_INTERVAL_US;
use hashbrown::HashTable;
use hashbrown::hash_table;

/// A context that is asked for again and again, with what may be logged of it.
///
/// Its attributes go into the log once in [`ATTRIBUTES_INTERVAL_US`], its key with every call: what readers of the log count by is in
/// each record, what they show of a context need not be. Nothing is counted by attributes.
#[derive(Debug)]
pub struct KnownContext {
    observed: ObservedContext,
    /// The period of event time in which the attributes were told last.
    told: AtomicI64,
}

const NEVER: i64 = i64::MIN;
const DAY_US: i64 = 86_400_000_000;

impl From<ObservedContext> for KnownContext {
    fn from(observed: ObservedContext) -> Self {
        Self { observed, told: AtomicI64::new(NEVER) }
    }
}

impl KnownContext {
    /// What may be logged of it.
    #[must_use]
    pub const fn observed(&self) -> &ObservedContext {
        &self.observed
    }

    /// The number of the period that a time is in. One begins each [`ATTRIBUTES_INTERVAL_US`], for every context at another moment, so that they
    /// are not all told at once, and one with each day, so that whatever day a context is counted on has its attributes.
    fn period(&self, event_time_us: i64) -> i64 {
        let shift = match &self.observed.key {
            ContextKey::Pseudonym(pseudonym) => (pseudonym.bits() % ATTRIBUTES_INTERVAL_US as u64).cast_signed(),
            ContextKey::Text(_) | ContextKey::None => 0,
        };
        event_time_us.saturating_add(shift).div_euclid(ATTRIBUTES_INTERVAL_US) + event_time_us.div_euclid(DAY_US)
    }

    /// What to record of it with a call of this time. Two calls at once may both tell the attributes.
    #[must_use]
    pub fn tell(&self, event_time_us: i64) -> ObservedContext {
        let ObservedContext { kind, key, user_hash, attributes } = &self.observed;
        let period = self.period(event_time_us);
        // Looked at first, so that a context many threads ask for is not written to by each.
        let is_due = self.told.load(Ordering::Relaxed) != period;
        if is_due {
            self.told.store(period, Ordering::Relaxed);
        }
        let attributes = if is_due { attributes.clone() } else { None };
        ObservedContext { kind: kind.clone(), key: key.clone(), user_hash: *user_hash, attributes }
    }
}

/// The rows of a batch's dictionary of contexts by whom they are of.
#[derive(Default)]
pub(super) struct ContextRows {
    rows: HashTable<u32>,
    /// Bytes of texts that the contexts bring into the batch.
    text_bytes: usize,
    /// For keys that clients choose, so that nobody can choose ones that crowd one place of the table.
    hashing: RandomState,
}

impl ContextRows {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.text_bytes = 0;
    }

    /// Bytes of texts that the contexts bring into the batch.
    pub(super) const fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The row of this context in `contexts`, added if it is not there yet. A row that says nothing of the attributes learns them from a
    /// later call; one that says others stays, and the context gets another row.
    pub(super) fn row(&mut self, contexts: &mut Vec<ObservedContext>, context: ObservedContext) -> u32 {
        let Self { rows, text_bytes, hashing } = self;
        let hash = |context: &ObservedContext| hash(hashing, context);
        let is_same = |row: &u32| is_same(&contexts[*row as usize], &context);
        match rows.entry(hash(&context), is_same, |row| hash(&contexts[*row as usize])) {
            hash_table::Entry::Occupied(mut found) => {
                let known = &mut contexts[*found.get() as usize].attributes;
                match (&*known, context.attributes.is_some()) {
                    (_, false) => {}
                    (None, true) => {
                        *text_bytes += attributes_bytes(&context);
                        *known = context.attributes;
                    }
                    (known, true) if *known == context.attributes => {}
                    (Some(_), true) => {
                        *found.get_mut() = contexts.len() as u32;
                        *text_bytes += key_bytes(&context) + attributes_bytes(&context);
                        contexts.push(context);
                    }
                }
                *found.get()
            }
            hash_table::Entry::Vacant(place) => {
                let row = contexts.len() as u32;
                *text_bytes += key_bytes(&context) + attributes_bytes(&context);
                contexts.push(context);
                *place.insert(row).get()
            }
        }
    }
}

/// Whether they are of one context, whatever they say of its attributes.
fn is_same(one: &ObservedContext, other: &ObservedContext) -> bool {
    one.key == other.key && one.user_hash == other.user_hash && one.kind == other.kind
}

fn hash(hashing: &RandomState, context: &ObservedContext) -> u64 {
    match &context.key {
        // Bits of a keyed hash already.
        ContextKey::Pseudonym(pseudonym) => pseudonym.bits(),
        ContextKey::Text(text) => hashing.hash_one(text),
        ContextKey::None => context.user_hash,
    }
}

fn key_bytes(context: &ObservedContext) -> usize {
    if let ContextKey::Text(text) = &context.key { text.len() } else { 0 }
}

fn attributes_bytes(context: &ObservedContext) -> usize {
    context.attributes_json().len()
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::batch::Attributes;

    use super::*;

    const PSEUDONYM: &str = "p1_00112233445566778899aabbccddeeff";

    fn context(key: &str, attributes_json: &str) -> ObservedContext {
        let attributes = Attributes::told(attributes_json, 0);
        ObservedContext { kind: "user".into(), key: ContextKey::of(key), user_hash: 7, attributes }
    }

    #[test]
    fn attributes_are_told_once_in_an_interval_and_on_every_day() {
        let text = "u1";
        let known = KnownContext::from(context(text, r#"{"plan":"pro"}"#));
        let day_us = 20_000 * 86_400_000_000;
        let times_us = [-1, 0, 1, 299_999_999, 300_000_000, 86_399_999_999, 86_400_000_000, 86_400_000_001];
        let is_told = |us: i64| {
            let told = known.tell(day_us + us);
            assert_eq!(ObservedContext { attributes: None, ..told.clone() }, context(text, ""));
            told.attributes.is_some()
        };
        assert_eq!(times_us.map(is_told), [true, true, false, false, true, true, true, false]);
        let bounds = KnownContext::from(context(PSEUDONYM, "{}"));
        assert!([i64::MIN, i64::MAX].map(|us| bounds.tell(us).attributes.is_some()).iter().all(|is_told| *is_told));
    }

    /// Each is told once in the interval, but not all at its beginning.
    #[test]
    fn contexts_are_told_at_moments_of_their_own() {
        const STEPS: i64 = 100;
        let known: Vec<KnownContext> = (0..1000_u128)
            .map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834))
            .map(|bits| context(&format!("p1_{bits:032x}"), "{}").into())
            .collect();
        let told_at = |step: i64| {
            let us = 20_000 * DAY_US + ATTRIBUTES_INTERVAL_US * step / STEPS;
            known.iter().filter(|context| context.tell(us).attributes.is_some()).count()
        };
        assert_eq!(told_at(0), known.len());
        let told: Vec<usize> = (1..=STEPS).map(told_at).collect();
        assert_eq!(told.iter().sum::<usize>(), known.len());
        assert!(told.iter().all(|told| *told < 40), "{told:?}");
    }

    #[test]
    fn rows_are_told_apart_by_all_but_attributes() {
        let (mut rows, mut contexts) = (ContextRows::default(), Vec::new());
        let asked = [
            (context(PSEUDONYM, ""), 0),
            (context("u1", "{}"), 1),
            (context(PSEUDONYM, r#"{"a":1}"#), 0),
            (context(PSEUDONYM, ""), 0),
            (context(PSEUDONYM, r#"{"a":2}"#), 2),
            (context(PSEUDONYM, ""), 2),
            (ObservedContext { user_hash: 8, ..context(PSEUDONYM, "") }, 3),
            (ObservedContext { kind: "multi".into(), ..context(PSEUDONYM, "") }, 4),
            (context("", ""), 5),
            (context("u1", "{}"), 1),
            (context("", ""), 5),
        ];
        for (context, row) in asked {
            assert_eq!(rows.row(&mut contexts, context.clone()), row, "{context:?}");
        }
        assert_eq!(contexts[0], context(PSEUDONYM, r#"{"a":1}"#), "it learned its attributes");
        assert_eq!((contexts.len(), rows.text_bytes()), (6, 7 + 7 + 2 + 2));
        rows.clear();
        assert_eq!(rows.row(&mut Vec::new(), context("u1", "")), 0);
    }
}
