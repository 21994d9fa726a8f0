//! A compiled configuration: immutable, shared by all threads, and laid out for deciding.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde_json::{Map, Value};

use super::attributes::{AttributeQuery, name_hash};
use super::coerce::FlagType;
use super::compile::Compiler;
use super::condition::Test;
use super::gradual::Schedule;
use super::outcome::{Outcome, OutcomeId};

/// The flags of one environment, compiled.
#[derive(Debug, Default)]
pub struct CompiledEnvironment {
    pub(super) flags: Vec<CompiledFlag>,
    pub(super) by_key: HashMap<Box<str>, usize, BuildHasherDefault<KeyHasher>>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) rules: Vec<Rule>,
    pub(super) rollouts: Vec<Rollout>,
    pub(super) groups: Vec<Group>,
    pub(super) conditions: Vec<Condition>,
    pub(super) queries: Vec<AttributeQuery>,
}

/// One flag.
#[derive(Debug)]
pub struct CompiledFlag {
    pub(super) key: Box<str>,
    pub(super) id: Option<Box<str>>,
    pub(super) analytics_enabled: bool,
    pub(super) flag_type: Option<FlagType>,
    pub(super) plan: Plan,
}

/// How a flag is decided.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plan {
    /// Whoever asks.
    Fixed(OutcomeId),
    /// By this rollout, for everybody.
    Roll(u32),
    /// By the first of `rules[first..end]` that matches.
    Rules { first: u32, end: u32, otherwise: OutcomeId },
}

/// A targeting rule that can match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) group: u32,
    pub(super) result: RuleResult,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum RuleResult {
    Serve(OutcomeId),
    Roll(u32),
}

/// Conditions joined by a logical operator. Equal groups of different flags are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) operator: GroupOperator,
    /// Indices into `conditions`.
    pub(super) conditions: Box<[u32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum GroupOperator {
    All,
    Any,
    NotAll,
}

/// A condition on an attribute. Equal conditions of different flags are one.
#[derive(Debug)]
pub(super) struct Condition {
    /// Index into `queries`.
    pub(super) query: u32,
    pub(super) test: Test,
}

/// A rollout as reached from one place: a rule, or the flag itself.
#[derive(Debug)]
pub(super) enum Rollout {
    /// Decides without a key.
    Fixed(OutcomeId),
    Keyed {
        no_key: OutcomeId,
        then: Keyed,
    },
}

/// A rollout once there is a key.
#[derive(Debug)]
pub(super) enum Keyed {
    Fixed(OutcomeId),
    Split { salt: Salt, split: Split },
    Variants { salt: Salt, thresholds: Box<[(u8, OutcomeId)]>, short: OutcomeId },
    Gradual(Box<Gradual>),
}

/// A rollout's salt: what is left of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Salt {
    /// The hash's state after the salt.
    pub(super) state: u32,
    /// Absent, `null`, a number or a boolean: ECMAScript's `+` adds a number or boolean key to it.
    pub(super) adds: bool,
}

/// Buckets below `admitted` (0 to 100) get `yes`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    pub(super) admitted: u8,
    pub(super) yes: OutcomeId,
    pub(super) no: OutcomeId,
}

#[derive(Debug)]
pub(super) struct Gradual {
    pub(super) schedule: Schedule,
    pub(super) salt: Option<Salt>,
    pub(super) zero: OutcomeId,
    pub(super) full: OutcomeId,
    pub(super) bad_start: OutcomeId,
    pub(super) invalid: OutcomeId,
    pub(super) yes: OutcomeId,
    pub(super) no: OutcomeId,
}

impl CompiledEnvironment {
    /// Compiles flags and segments, both in the form of the compiled configuration. Never fails: a flag that cannot be read
    /// serves its fallback, with exit `exception` and `PARSE_ERROR`.
    #[must_use]
    pub fn compile(flags: &[Value], segments: &Map<String, Value>) -> Self {
        Compiler::new(segments).compile(flags)
    }

    /// The flags in configuration order.
    #[must_use]
    pub fn flags(&self) -> &[CompiledFlag] {
        &self.flags
    }

    /// The index of the flag with this key.
    #[must_use]
    #[inline]
    pub fn flag_index(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Every possible result of every flag; an [`OutcomeId`] is an index into it.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The outcome of that number.
    ///
    /// # Panics
    /// If `id` is of another environment.
    #[must_use]
    #[inline]
    pub fn outcome(&self, id: OutcomeId) -> &Outcome {
        &self.outcomes[id.0 as usize]
    }

    /// When the share of any gradual rollout in use next changes after `now_us`, both in microseconds since the epoch.
    #[must_use]
    pub fn next_gradual_step_us(&self, now_us: i64) -> Option<i64> {
        let schedule = |rollout: &Rollout| match rollout {
            Rollout::Keyed { then: Keyed::Gradual(gradual), .. } => gradual.schedule.next_change_us(now_us),
            _ => None,
        };
        self.rollouts.iter().filter_map(schedule).min()
    }
}

impl CompiledFlag {
    /// The key, unique in the project; empty if the configuration has none.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The flag's UUID, if the configuration holds it.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether its decisions are counted in analytics.
    #[must_use]
    pub fn analytics_enabled(&self) -> bool {
        self.analytics_enabled
    }

    /// The type of its values, if the configuration states a known one.
    #[must_use]
    pub fn flag_type(&self) -> Option<FlagType> {
        self.flag_type
    }
}

/// Hashes flag keys. They come from the configuration, so nobody can choose them to collide.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= name_hash(bytes);
    }

    /// Ends a string in `str`'s hash; a table of nothing but strings can do without.
    #[inline]
    fn write_u8(&mut self, _: u8) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
