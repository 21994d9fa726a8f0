//! The outcomes of an environment, and where decisions with them went lately.
//!
//! Each batch tells the same outcomes again, most of them for the same minute as the batch before. So outcomes have numbers, found in a table that the caches hold,
//! and for the last few classes of calls the cells are kept by number.

use std::hash::{BuildHasher, Hash, Hasher};

use flagmint_schemas::batch::OutcomeColumns;
use flagmint_schemas::ids::{FlagId, RuleId, VariationId};
use uuid::Uuid;

use super::cells::ABSENT;
use super::chunk::DecisionSlots;
use super::hash::Seeded;
use super::index::Index;
use super::keys::ClassKey;
use super::prefetch::prefetch;
use crate::limits::RECENT_CLASSES;

/// What tells decisions of one class apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutcomeKey {
    pub flag: FlagId,
    pub variation: VariationId,
    pub rule: RuleId,
    pub reason: u8,
    pub error_code: u8,
    pub analytics_enabled: bool,
}

/// Looked up for each outcome of each batch, so half of each id must do: ids are made by the control plane, and that half differs in all of them.
impl Hash for OutcomeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.variation.0.as_u64_pair().1 ^ (u64::from(self.reason) << 8) ^ u64::from(self.error_code));
        state.write_u64(self.flag.0.as_u64_pair().1 ^ self.rule.0.as_u64_pair().1.rotate_left(32));
    }
}

impl OutcomeKey {
    /// By row of a batch's outcomes.
    pub fn of_rows(outcomes: &OutcomeColumns) -> impl Fn(usize) -> Self {
        let (flags, variations, rules) = (outcomes.flag(), outcomes.variation(), outcomes.rule());
        let (reasons, error_codes) = (outcomes.reason(), outcomes.error_code());
        let analytics_enabled = outcomes.analytics_enabled();
        move |row| Self {
            flag: FlagId(Uuid::from_bytes(flags[row])),
            variation: VariationId(Uuid::from_bytes(variations[row])),
            rule: RuleId(Uuid::from_bytes(rules[row])),
            reason: reasons[row],
            error_code: error_codes[row],
            analytics_enabled: analytics_enabled[row] == 1,
        }
    }
}

/// The outcomes of one environment that have cells.
#[derive(Debug)]
pub(super) struct Outcomes {
    hashing: Seeded,
    index: Index,
    keys: Vec<OutcomeKey>,
    recent: Vec<Recent>,
    /// Which of them was made last.
    newest: usize,
}

/// Cells of one class.
#[derive(Debug)]
struct Recent {
    class: ClassKey,
    /// By number of the outcome; those that were not asked for are missing, or have no decision.
    slots: Vec<DecisionSlots>,
}

impl Outcomes {
    /// None yet.
    pub const fn new(hashing: Seeded) -> Self {
        Self { hashing, index: Index::EMPTY, keys: Vec::new(), recent: Vec::new(), newest: 0 }
    }

    /// Finds all outcomes of a batch: their numbers by row, `ABSENT` for those that have no cells yet.
    pub fn find_all(&self, outcomes: &OutcomeColumns, hashes: &mut Vec<u64>, numbers: &mut Vec<u32>) {
        let key = OutcomeKey::of_rows(outcomes);
        hashes.clear();
        hashes.extend((0..outcomes.len()).map(|row| self.hashing.hash_one(key(row))));
        hashes.iter().for_each(|hash| self.index.prefetch(*hash));
        numbers.clear();
        numbers.extend(hashes.iter().enumerate().map(|(row, hash)| self.find(*hash, &key(row))));
    }

    fn find(&self, hash: u64, key: &OutcomeKey) -> u32 {
        self.index.find(hash, |number| self.keys[number as usize] == *key).unwrap_or(ABSENT)
    }

    /// Has that fetched which [`Self::slots`] will look at, if what follows is of the class that the last batch was of.
    pub fn prefetch_slots(&self, numbers: &[u32]) {
        if let Some(recent) = self.recent.get(self.newest) {
            numbers.iter().for_each(|number| prefetch(&recent.slots, *number as usize));
        }
    }

    /// The number of an outcome that gets a cell; its hash is the one that [`Self::find_all`] found.
    pub fn number(&mut self, hash: u64, key: OutcomeKey) -> u32 {
        // The batch may name it twice.
        let known = self.find(hash, &key);
        if known != ABSENT {
            return known;
        }
        let number = self.keys.len() as u32;
        self.index.insert(hash, number);
        self.keys.push(key);
        number
    }

    /// Where decisions of a class with this outcome went, if that is remembered.
    #[inline]
    pub fn slots(&self, class: &ClassKey, number: u32) -> Option<DecisionSlots> {
        let recent = self.recent.iter().find(|recent| recent.class == *class)?;
        recent.slots.get(number as usize).filter(|slots| slots.decision != ABSENT).copied()
    }

    /// Remembers where they go, in place of what is oldest.
    pub fn remember(&mut self, class: &ClassKey, number: u32, slots: DecisionSlots) {
        let at = match self.recent.iter().position(|recent| recent.class == *class) {
            Some(at) => at,
            None if self.recent.len() < RECENT_CLASSES => {
                self.newest = self.recent.len();
                self.recent.push(Recent { class: *class, slots: Vec::new() });
                self.newest
            }
            None => {
                self.newest = (self.newest + 1) % RECENT_CLASSES;
                let oldest = &mut self.recent[self.newest];
                oldest.class = *class;
                oldest.slots.clear();
                self.newest
            }
        };
        let of_class = &mut self.recent[at].slots;
        if of_class.len() <= number as usize {
            of_class.resize(number as usize + 1, DecisionSlots::UNKNOWN);
        }
        of_class[number as usize] = slots;
    }
}
