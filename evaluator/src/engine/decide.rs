//! Decides flags for a context: no clock, no I/O, no allocation.
//!
//! One flag is decided by itself. All flags together share what they have in common: each attribute is looked up, each condition
//! tested and each group joined at most once, and the hashes of all rollouts reached advance over the key side by side.

use super::attributes::Operand;
use super::context::{BucketingKey, Context};
use super::environment::{
    CompiledEnvironment, Condition, Gradual, Group, GroupOperator, Keyed, Plan, Rollout, RuleResult, Salt, Split,
};
use super::gradual::Share;
use super::hash::{EMPTY_TEXT_BUCKET, LANES, bucket};
use super::outcome::{Decision, OutcomeId};
use super::rollout::buckets_below;

/// Room that [`CompiledEnvironment::decide_all`] reuses from call to call and environment to environment.
#[derive(Debug, Default)]
pub struct Scratch {
    decisions: Vec<Decision>,
    hashes: Vec<PendingHash>,
    groups: Vec<Known>,
    conditions: Vec<Known>,
    attributes: Vec<Found>,
}

/// Whether a group or condition holds, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Unknown,
    Holds,
    Fails,
}

/// Where the attribute of a query is, as far as it is known.
#[derive(Debug, Clone, Copy)]
enum Found {
    Unknown,
    Missing,
    At(u32),
}

/// How far a flag can be decided without hashing.
enum Step {
    Done(Decision),
    Hash { salt_state: u32, pick: Pick },
}

/// What a bucket chooses from.
#[derive(Debug, Clone, Copy)]
enum Pick {
    Split(Split),
    /// The rollout of that index, of strategy `variant`.
    Variants(u32),
}

#[derive(Debug, Clone, Copy)]
struct PendingHash {
    flag: u32,
    salt_state: u32,
    pick: Pick,
}

impl CompiledEnvironment {
    /// Decides one flag at `now_us`, microseconds since the epoch.
    ///
    /// # Panics
    /// If `flag` is not an index into [`Self::flags`].
    #[must_use]
    pub fn decide(&self, flag: usize, context: &Context, now_us: i64) -> Decision {
        let holds = |group: u32| {
            let attributes = context.attribute_map();
            self.groups[group as usize].holds(|condition| {
                let Condition { query, test } = &self.conditions[condition as usize];
                let position = attributes.find(&self.queries[*query as usize]);
                test.holds(position.map(|position| attributes.operand_at(position)), attributes)
            })
        };
        match (self.step(flag, context, now_us, holds), context.key()) {
            (Step::Done(decision), _) => decision,
            (Step::Hash { salt_state, pick }, Some(key)) => self.pick(pick, bucket(key.units.hash_after(salt_state))),
            (Step::Hash { pick, .. }, None) => unreachable!("nothing is hashed without a key: {pick:?}"),
        }
    }

    /// Decides every flag, in configuration order, at `now_us`, microseconds since the epoch.
    pub fn decide_all<'s>(&self, context: &Context, now_us: i64, scratch: &'s mut Scratch) -> &'s [Decision] {
        let Scratch { decisions, hashes, groups, conditions, attributes } = scratch;
        decisions.clear();
        hashes.clear();
        refill(groups, self.groups.len(), Known::Unknown);
        refill(conditions, self.conditions.len(), Known::Unknown);
        refill(attributes, self.queries.len(), Found::Unknown);
        let mut condition_holds = |condition: u32| {
            known(&mut conditions[condition as usize], || {
                let Condition { query, test } = &self.conditions[condition as usize];
                test.holds(self.operand(*query, context, attributes), context.attribute_map())
            })
        };
        for flag in 0..self.flags.len() {
            let holds = |group: u32| {
                known(&mut groups[group as usize], || self.groups[group as usize].holds(&mut condition_holds))
            };
            match self.step(flag, context, now_us, holds) {
                Step::Done(decision) => decisions.push(decision),
                Step::Hash { salt_state, pick } => {
                    hashes.push(PendingHash { flag: flag as u32, salt_state, pick });
                    decisions.push(Decision::without_bucket(OutcomeId(u32::MAX)));
                }
            }
        }
        if let Some(key) = context.key() {
            self.finish(hashes, key, decisions);
        }
        decisions
    }

    /// Hashes all that is pending, a few lanes at a time. Lanes without work hash from 0 and are not read.
    fn finish(&self, hashes: &[PendingHash], key: &BucketingKey, decisions: &mut [Decision]) {
        for batch in hashes.chunks(LANES) {
            let mut states = [0; LANES];
            for (state, pending) in states.iter_mut().zip(batch) {
                *state = pending.salt_state;
            }
            key.units.hash_lanes(&mut states);
            for (state, pending) in states.iter().zip(batch) {
                decisions[pending.flag as usize] = self.pick(pending.pick, bucket(*state));
            }
        }
    }

    fn operand<'m>(&self, query: u32, context: &'m Context, attributes: &mut [Found]) -> Option<&'m Operand> {
        let found = &mut attributes[query as usize];
        if let Found::Unknown = found {
            let position = context.attribute_map().find(&self.queries[query as usize]);
            *found = position.map_or(Found::Missing, |position| Found::At(position as u32));
        }
        match *found {
            Found::At(position) => Some(context.attribute_map().operand_at(position as usize)),
            Found::Unknown | Found::Missing => None,
        }
    }

    #[inline]
    fn step(&self, flag: usize, context: &Context, now_us: i64, mut holds: impl FnMut(u32) -> bool) -> Step {
        let rollout = match self.flags[flag].plan {
            Plan::Fixed(outcome) => return Step::Done(Decision::without_bucket(outcome)),
            Plan::Roll(rollout) => rollout,
            Plan::Rules { first, end, otherwise } => {
                let rules = &self.rules[first as usize..end as usize];
                match rules.iter().find(|rule| holds(rule.group)).map(|rule| rule.result) {
                    None => return Step::Done(Decision::without_bucket(otherwise)),
                    Some(RuleResult::Serve(outcome)) => return Step::Done(Decision::without_bucket(outcome)),
                    Some(RuleResult::Roll(rollout)) => rollout,
                }
            }
        };
        self.roll(rollout, context.key(), now_us)
    }

    #[inline]
    fn roll(&self, index: u32, key: Option<&BucketingKey>, now_us: i64) -> Step {
        let (no_key, then) = match &self.rollouts[index as usize] {
            Rollout::Fixed(outcome) => return Step::Done(Decision::without_bucket(*outcome)),
            Rollout::Keyed { no_key, then } => (no_key, then),
        };
        let Some(key) = key else { return Step::Done(Decision::without_bucket(*no_key)) };
        let (salt, pick) = match then {
            Keyed::Fixed(outcome) => return Step::Done(Decision::without_bucket(*outcome)),
            Keyed::Split { salt, split } => (*salt, Pick::Split(*split)),
            Keyed::Variants { salt, .. } => (*salt, Pick::Variants(index)),
            Keyed::Gradual(gradual) => match gradual.at(now_us) {
                Ok((salt, split)) => (salt, Pick::Split(split)),
                Err(outcome) => return Step::Done(Decision::without_bucket(outcome)),
            },
        };
        if key.adds && salt.adds {
            return Step::Done(self.pick(pick, EMPTY_TEXT_BUCKET));
        }
        Step::Hash { salt_state: salt.state, pick }
    }

    #[inline]
    fn pick(&self, pick: Pick, bucket: u8) -> Decision {
        let outcome = match pick {
            Pick::Split(Split { admitted, yes, no }) => {
                if bucket < admitted {
                    yes
                } else {
                    no
                }
            }
            Pick::Variants(index) => self.variant(index, bucket),
        };
        Decision { outcome, bucket: Some(bucket) }
    }

    fn variant(&self, index: u32, bucket: u8) -> OutcomeId {
        let Rollout::Keyed { then: Keyed::Variants { thresholds, short, .. }, .. } = &self.rollouts[index as usize]
        else {
            unreachable!("only a variant rollout is picked from as one")
        };
        thresholds.iter().find(|(below, _)| bucket < *below).map_or(*short, |(_, outcome)| *outcome)
    }
}

impl Gradual {
    /// The split at this moment, or the outcome where there is none.
    fn at(&self, now_us: i64) -> Result<(Salt, Split), OutcomeId> {
        let percentage = match self.schedule.share(now_us) {
            Share::BadStart => return Err(self.bad_start),
            Share::Invalid => return Err(self.invalid),
            Share::Percentage(percentage) if percentage <= 0.0 => return Err(self.zero),
            Share::Percentage(percentage) if percentage >= 100.0 => return Err(self.full),
            Share::Percentage(percentage) => percentage,
        };
        let salt = self.salt.ok_or(self.invalid)?;
        Ok((salt, Split { admitted: buckets_below(percentage), yes: self.yes, no: self.no }))
    }
}

impl Group {
    #[inline]
    fn holds(&self, mut condition: impl FnMut(u32) -> bool) -> bool {
        let mut conditions = self.conditions.iter();
        match self.operator {
            GroupOperator::All => conditions.all(|index| condition(*index)),
            GroupOperator::Any => conditions.any(|index| condition(*index)),
            GroupOperator::NotAll => !conditions.all(|index| condition(*index)),
        }
    }
}

fn refill<T: Copy>(items: &mut Vec<T>, len: usize, value: T) {
    items.clear();
    items.resize(len, value);
}

/// What is known, after finding out if it is not.
#[inline]
fn known(state: &mut Known, holds: impl FnOnce() -> bool) -> bool {
    if *state == Known::Unknown {
        *state = if holds() { Known::Holds } else { Known::Fails };
    }
    *state == Known::Holds
}
