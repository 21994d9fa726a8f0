//! Decides flags for a context: no clock, no I/O, no allocation.
//!
//! One flag is decided by itself. All flags together share what they have in common: each condition is tested and each group
//! joined at most once.

use super::context::{BucketingKey, Context};
use super::environment::{
    CompiledEnvironment, Condition, Gradual, Group, GroupOperator, Keyed, Plan, Rollout, RuleResult, Salt, Split,
};
use super::gradual::Share;
use super::hash::{EMPTY_TEXT_BUCKET, bucket};
use super::outcome::{Decision, OutcomeId};
use super::rollout::buckets_below;

/// Room that [`CompiledEnvironment::decide_all`] reuses from call to call and environment to environment.
#[derive(Debug, Default)]
pub struct Scratch {
    decisions: Vec<Decision>,
    groups: Vec<Known>,
    conditions: Vec<Known>,
}

/// Whether a group or condition holds, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Unknown,
    Holds,
    Fails,
}

impl CompiledEnvironment {
    /// Decides one flag at `now_us`, microseconds since the epoch.
    ///
    /// # Panics
    /// If `flag` is not an index into [`Self::flags`].
    #[must_use]
    #[inline]
    pub fn decide(&self, flag: usize, context: &Context, now_us: i64) -> Decision {
        let holds = |group: u32| {
            self.groups[group as usize].holds(|condition| self.conditions[condition as usize].holds(context))
        };
        self.decision(flag, context, now_us, holds)
    }

    /// Decides every flag, in configuration order, at `now_us`, microseconds since the epoch.
    pub fn decide_all<'s>(&self, context: &Context, now_us: i64, scratch: &'s mut Scratch) -> &'s [Decision] {
        let Scratch { decisions, groups, conditions } = scratch;
        decisions.clear();
        refill(groups, self.groups.len(), Known::Unknown);
        refill(conditions, self.conditions.len(), Known::Unknown);
        let mut condition_holds = |condition: u32| {
            known(&mut conditions[condition as usize], || self.conditions[condition as usize].holds(context))
        };
        let mut holds =
            |group: u32| known(&mut groups[group as usize], || self.groups[group as usize].holds(&mut condition_holds));
        decisions.extend((0..self.flags.len()).map(|flag| self.decision(flag, context, now_us, &mut holds)));
        decisions
    }

    /// The decision, given which groups of conditions hold.
    #[inline]
    fn decision(&self, flag: usize, context: &Context, now_us: i64, mut holds: impl FnMut(u32) -> bool) -> Decision {
        let rollout = match self.flags[flag].plan {
            Plan::Fixed(outcome) => return Decision::without_bucket(outcome),
            Plan::Roll(rollout) => rollout,
            Plan::Rules { first, end, otherwise } => {
                let rules = &self.rules[first as usize..end as usize];
                match rules.iter().find(|rule| holds(rule.group)).map(|rule| rule.result) {
                    None => return Decision::without_bucket(otherwise),
                    Some(RuleResult::Serve(outcome)) => return Decision::without_bucket(outcome),
                    Some(RuleResult::Roll(rollout)) => rollout,
                }
            }
        };
        self.roll(rollout, context.key(), now_us)
    }

    #[inline]
    fn roll(&self, index: u32, key: Option<&BucketingKey>, now_us: i64) -> Decision {
        let (no_key, then) = match &self.rollouts[index as usize] {
            Rollout::Fixed(outcome) => return Decision::without_bucket(*outcome),
            Rollout::Keyed { no_key, then } => (no_key, then),
        };
        let Some(key) = key else { return Decision::without_bucket(*no_key) };
        match then {
            Keyed::Fixed(outcome) => Decision::without_bucket(*outcome),
            Keyed::Split { salt, split } => split.decision(key.bucket(*salt)),
            Keyed::Variants { salt, thresholds, short } => {
                let bucket = key.bucket(*salt);
                let reached = thresholds.iter().find(|(below, _)| bucket < *below);
                Decision { outcome: reached.map_or(*short, |(_, outcome)| *outcome), bucket: Some(bucket) }
            }
            Keyed::Gradual(gradual) => match gradual.at(now_us) {
                Ok((salt, split)) => split.decision(key.bucket(salt)),
                Err(outcome) => Decision::without_bucket(outcome),
            },
        }
    }
}

impl BucketingKey {
    #[inline]
    fn bucket(&self, salt: Salt) -> u8 {
        if self.adds && salt.adds { EMPTY_TEXT_BUCKET } else { bucket(self.hash.after(salt.state)) }
    }
}

impl Split {
    /// By index, as no processor can foresee which way a branch on a bucket goes.
    #[inline]
    fn decision(&self, bucket: u8) -> Decision {
        Decision { outcome: self.yes_no[usize::from(bucket >= self.admitted)], bucket: Some(bucket) }
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
        Ok((salt, Split { admitted: buckets_below(percentage), yes_no: self.yes_no }))
    }
}

impl Condition {
    #[inline]
    fn holds(&self, context: &Context) -> bool {
        let attributes = context.attribute_map();
        let position = attributes.find(&self.query);
        self.test.holds(position.map(|position| attributes.operand_at(position)), attributes)
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
