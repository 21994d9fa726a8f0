//! A compiled configuration: immutable, shared by all threads, and laid out for deciding.

use serde_json::{Map, Value};

use super::attributes::AttributeQuery;
use super::coerce::{FlagType, normalised};
use super::compile::Compiler;
use super::condition::Test;
use super::gradual::Schedule;
use super::outcome::{Outcome, OutcomeId};
use super::words::{are_equal, name_hash};

/// The flags of one environment, compiled.
#[derive(Debug, Default)]
pub struct CompiledEnvironment {
    pub(super) flags: Vec<CompiledFlag>,
    pub(super) by_key: KeyTable,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) rules: Vec<Rule>,
    pub(super) rollouts: Vec<Rollout>,
    pub(super) groups: Vec<Group>,
    pub(super) conditions: Vec<Condition>,
}

/// One flag.
#[derive(Debug)]
pub struct CompiledFlag {
    pub(super) key: Box<str>,
    pub(super) id: Option<Box<str>>,
    pub(super) analytics_enabled: bool,
    pub(super) flag_type: Option<FlagType>,
    pub(super) plan: Plan,
    pub(super) variations: Box<[(Box<str>, Value)]>,
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
    pub(super) query: AttributeQuery,
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

/// Buckets below `admitted` (0 to 100) get the first outcome, others the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    pub(super) admitted: u8,
    pub(super) yes_no: [OutcomeId; 2],
}

#[derive(Debug)]
pub(super) struct Gradual {
    pub(super) schedule: Schedule,
    pub(super) salt: Option<Salt>,
    pub(super) zero: OutcomeId,
    pub(super) full: OutcomeId,
    pub(super) bad_start: OutcomeId,
    pub(super) invalid: OutcomeId,
    pub(super) yes_no: [OutcomeId; 2],
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
        self.by_key.find(&self.flags, key)
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

    /// The percentage that each gradual rollout in use has reached, in a fixed order; `None` for one that is unusable. While
    /// they stay the same, so do all decisions for a context.
    pub fn gradual_percentages(&self, now_us: i64) -> impl Iterator<Item = Option<f64>> {
        self.rollouts.iter().filter_map(move |rollout| match rollout {
            Rollout::Keyed { then: Keyed::Gradual(gradual), .. } => Some(gradual.schedule.percentage(now_us)),
            _ => None,
        })
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

    /// Its variations that can be told by their value alone: id and value, as served, in order. Of equal values only the first is
    /// here, and none that coercion replaces.
    #[must_use]
    pub fn variations_by_value(&self) -> &[(Box<str>, Value)] {
        &self.variations
    }

    /// Which of [`Self::variations_by_value`] has this value, as a client reports it.
    #[must_use]
    pub fn variation_of(&self, value: &Value) -> Option<usize> {
        let value = normalised(value);
        self.variations.iter().position(|(_, served)| *served == value)
    }

    /// The type of its values, if the configuration states a known one.
    #[must_use]
    pub fn flag_type(&self) -> Option<FlagType> {
        self.flag_type
    }
}

/// Finds flags by key: open addressing in a table at most half full. Keys come from the configuration, so nobody who asks for
/// one can make them collide.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    /// A power of two of them, or none.
    slots: Box<[KeySlot]>,
}

#[derive(Debug, Clone, Copy)]
struct KeySlot {
    /// The low half of the key's hash.
    tag: u32,
    /// The flag's index, or [`NO_FLAG`].
    flag: u32,
}

/// Marks a free slot. There are fewer flags than that.
const NO_FLAG: u32 = u32::MAX;

impl KeyTable {
    /// Of flags with the same key, the first is found.
    pub(super) fn new(flags: &[CompiledFlag]) -> Self {
        let capacity = (2 * flags.len()).next_power_of_two();
        let mut table = Self { slots: vec![KeySlot { tag: 0, flag: NO_FLAG }; capacity].into() };
        for (flag, index) in flags.iter().zip(0..) {
            if table.find(flags, &flag.key).is_none() {
                let hash = name_hash(flag.key.as_bytes());
                let free =
                    table.probe(hash).find(|at| table.slots[*at].flag == NO_FLAG).expect("half of them are free");
                table.slots[free] = KeySlot { tag: hash as u32, flag: index };
            }
        }
        table
    }

    #[inline]
    fn find(&self, flags: &[CompiledFlag], key: &str) -> Option<usize> {
        let hash = name_hash(key.as_bytes());
        let probed = self.probe(hash).map(|at| self.slots[at]).take_while(|slot| slot.flag != NO_FLAG);
        probed
            .filter(|slot| slot.tag == hash as u32)
            .map(|slot| slot.flag as usize)
            .find(|flag| are_equal(flags[*flag].key.as_bytes(), key.as_bytes()))
    }

    /// All slots, beginning where the high half of the hash points.
    #[inline]
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let len = self.slots.len();
        let start = (hash >> 32) as usize;
        (0..len).map(move |step| (start + step) & (len - 1))
    }
}
