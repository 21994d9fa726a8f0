//! Compiles one flag: the order of its branches, and the outcome of each.

use flagmint_schemas::decision::{ErrorCode, Exit, Reason};
use serde_json::{Map, Value};

use super::coerce::{Coerced, FlagType, coerce, json_text, normalised};
use super::compile::{Compiler, index_u32};
use super::environment::{CompiledFlag, Plan, Rollout, Rule, RuleResult};
use super::outcome::{Outcome, OutcomeId, reason_of};
use super::values::{is_truthy, number, text};

/// One flag in the making.
pub(super) struct FlagCompiler<'c, 'a> {
    compiler: &'c mut Compiler<'a>,
    index: usize,
    flag: &'c Value,
    flag_type: Option<FlagType>,
    variations: Vec<Variation<'c>>,
    /// Where this flag's outcomes begin.
    first_outcome: usize,
}

struct Variation<'c> {
    id: &'c Value,
    key: Option<&'c str>,
    value: Option<&'c Value>,
    coerced: Coerced,
}

/// What an outcome serves.
#[derive(Clone, Copy)]
pub(super) enum Served<'v> {
    Fallback,
    Boolean(bool),
    /// The variation at this position.
    Variation(usize),
    /// A value that is never coerced, because the flag's type is unknown.
    AsStored(Option<&'v Value>),
}

/// Which rule and rollout led to an outcome.
#[derive(Clone, Copy, Default)]
pub(super) struct Path<'c> {
    pub(super) rule_id: Option<&'c Value>,
    pub(super) rollout_id: Option<&'c str>,
}

/// The parts of a flag that have to have the right shape.
struct Parts<'c> {
    rules: Vec<&'c Map<String, Value>>,
    variations: Vec<&'c Map<String, Value>>,
    rollouts: Option<&'c Map<String, Value>>,
}

impl<'c, 'a> FlagCompiler<'c, 'a> {
    pub(super) fn new(compiler: &'c mut Compiler<'a>, index: usize, flag: &'c Value) -> Self {
        let flag_type = flag.get("type").and_then(Value::as_str).and_then(FlagType::from_name);
        let first_outcome = compiler.environment.outcomes.len();
        Self { compiler, index, flag, flag_type, variations: Vec::new(), first_outcome }
    }

    pub(super) fn compile(mut self) -> CompiledFlag {
        let plan = match (self.flag_type, Parts::of(self.flag)) {
            (Some(flag_type), Some(parts)) => {
                self.variations = variations(&parts, flag_type);
                self.plan(&parts)
            }
            (Some(_), None) => Plan::Fixed(self.outcome(Served::Fallback, Exit::Exception, Path::default())),
            (None, _) => {
                let stored = Served::AsStored(self.flag.get("default_value"));
                Plan::Fixed(self.outcome(stored, Exit::Exception, Path::default()))
            }
        };
        let string = |name| self.flag.get(name).and_then(Value::as_str).map(Box::from);
        CompiledFlag {
            key: string("key").unwrap_or_default(),
            id: string("id"),
            analytics_enabled: is_truthy(self.flag.get("analytics_enabled")),
            flag_type: self.flag_type,
            plan,
            variations: self.variations_by_value(),
        }
    }

    fn variations_by_value(&self) -> Box<[(Box<str>, Value)]> {
        let mut found: Vec<(Box<str>, Value)> = Vec::new();
        for Variation { id, coerced, .. } in &self.variations {
            if !coerced.replaced && found.iter().all(|(_, value)| *value != coerced.value) {
                found.push((text(Some(id)).into(), coerced.value.clone()));
            }
        }
        found.into()
    }

    fn plan(&mut self, parts: &Parts<'c>) -> Plan {
        let is_active = self.flag.get("is_active") != Some(&Value::Bool(false));
        let off = self.flag.get("off_variation_id").and_then(|id| self.variation(id));
        if let (false, Some(off)) = (is_active, off) {
            return Plan::Fixed(self.outcome(Served::Variation(off), Exit::OffVariation, Path::default()));
        }
        if !parts.rules.is_empty() {
            return self.targeted(parts, is_active);
        }
        if !is_active {
            return Plan::Fixed(self.outcome(Served::Fallback, Exit::InactiveFallback, Path::default()));
        }
        if let Some((id, rollout)) = parts.rollouts.and_then(|rollouts| rollouts.iter().next()) {
            let path = Path { rule_id: None, rollout_id: Some(id) };
            return Plan::Roll(self.rollout(rollout, path));
        }
        Plan::Fixed(self.untargeted())
    }

    /// An active flag with neither rules nor rollouts.
    fn untargeted(&mut self) -> OutcomeId {
        let is_on = |it: &Variation<'_>| it.value.is_some_and(|value| *value == true || *value == "true");
        match self.variations.iter().position(is_on) {
            Some(on) if self.flag_type == Some(FlagType::Boolean) => {
                self.outcome(Served::Variation(on), Exit::OnVariation, Path::default())
            }
            _ => self.outcome(Served::Fallback, Exit::StaticFallback, Path::default()),
        }
    }

    fn targeted(&mut self, parts: &Parts<'c>, is_active: bool) -> Plan {
        let mut compiled = Vec::new();
        for rule in parts.rules_in_order() {
            if let Some(group) = self.compiler.rule_group(rule) {
                let result = self.rule_result(rule, parts.rollouts);
                compiled.push(Rule { group, result });
            }
        }
        let exit = if is_active { Exit::NoMatch } else { Exit::InactiveNoMatch };
        let otherwise = self.outcome(Served::Fallback, exit, Path::default());
        if compiled.is_empty() {
            return Plan::Fixed(otherwise);
        }
        let rules = &mut self.compiler.environment.rules;
        let first = index_u32(rules.len());
        rules.extend(compiled);
        Plan::Rules { first, end: index_u32(rules.len()), otherwise }
    }

    fn rule_result(&mut self, rule: &'c Map<String, Value>, rollouts: Option<&'c Map<String, Value>>) -> RuleResult {
        let path = Path { rule_id: rule.get("id"), rollout_id: None };
        let truthy = |name| rule.get(name).filter(|id| is_truthy(Some(id)));
        if let Some(id) = truthy("variation_id") {
            return RuleResult::Serve(match self.variation(id) {
                Some(variation) => self.outcome(Served::Variation(variation), Exit::RuleVariation, path),
                None => self.outcome(Served::Fallback, Exit::RuleVariationMissing, path),
            });
        }
        let Some(id) = truthy("rollout_id") else {
            return RuleResult::Serve(self.outcome(Served::Fallback, Exit::RuleWithoutResult, path));
        };
        let found = rollouts.and_then(|rollouts| rollouts.get_key_value(&text(Some(id))));
        match found.filter(|(_, rollout)| is_truthy(Some(rollout))) {
            Some((id, rollout)) => RuleResult::Roll(self.rollout(rollout, Path { rollout_id: Some(id), ..path })),
            None => RuleResult::Serve(self.outcome(Served::Fallback, Exit::RuleRolloutMissing, path)),
        }
    }

    fn rollout(&mut self, rollout: &Value, path: Path<'c>) -> u32 {
        let compiled: Rollout = self.compile_rollout(rollout, path);
        let rollouts = &mut self.compiler.environment.rollouts;
        rollouts.push(compiled);
        index_u32(rollouts.len() - 1)
    }

    pub(super) fn is_boolean(&self) -> bool {
        self.flag_type == Some(FlagType::Boolean)
    }

    /// The position of the variation with this id.
    pub(super) fn variation(&self, id: &Value) -> Option<usize> {
        self.variations.iter().position(|variation| is_same_id(variation.id, id))
    }

    /// The number of the outcome that serves this; equal outcomes are one.
    pub(super) fn outcome(&mut self, served: Served<'_>, exit: Exit, path: Path<'_>) -> OutcomeId {
        let Coerced { value, replaced } = self.coerced(served);
        let (mut reason, mut error_code) = reason_of(exit);
        if replaced && reason != Reason::Error {
            (reason, error_code) = (Reason::Error, Some(ErrorCode::TypeMismatch));
        }
        let variation = self.variation_recorded(served, &value);
        let variation_id = variation.map(|variation| Box::from(text(Some(variation.id))));
        let variant = variation.and_then(|variation| variation.key).map(Box::from).or_else(|| variation_id.clone());
        let outcome = Outcome {
            flag: self.index,
            value_json: json_text(&value).into(),
            value,
            reason,
            error_code,
            exit,
            variation_id,
            variant,
            rule_id: path.rule_id.filter(|id| !id.is_null()).map(|id| text(Some(id)).into()),
            rollout_id: path.rollout_id.map(Box::from),
        };
        let outcomes = &mut self.compiler.environment.outcomes;
        let known = outcomes[self.first_outcome..].iter().position(|it| *it == outcome);
        let index = known.map_or(outcomes.len(), |position| self.first_outcome + position);
        if known.is_none() {
            outcomes.push(outcome);
        }
        OutcomeId(index_u32(index))
    }

    fn coerced(&self, served: Served<'_>) -> Coerced {
        let coerced = |value| match self.flag_type {
            Some(flag_type) => coerce(value, flag_type),
            None => Coerced { value: value.map_or(Value::Null, normalised), replaced: false },
        };
        match served {
            Served::Fallback => coerced(self.flag.get("default_value")),
            Served::Boolean(value) => Coerced { value: Value::Bool(value), replaced: false },
            Served::Variation(position) => self.variations[position].coerced.clone(),
            Served::AsStored(value) => coerced(value),
        }
    }

    /// The variation itself where one was chosen, otherwise the first whose value is the one served.
    fn variation_recorded(&self, served: Served<'_>, value: &Value) -> Option<&Variation<'c>> {
        let by_value = || self.variations.iter().find(|it| !it.coerced.replaced && it.coerced.value == *value);
        match served {
            Served::Variation(position) => Some(&self.variations[position]),
            _ => by_value(),
        }
    }
}

impl<'c> Parts<'c> {
    /// `None` if the flag is unreadable.
    fn of(flag: &'c Value) -> Option<Self> {
        let flag = flag.as_object()?;
        let rules = objects(flag.get("targeting_rules"))?;
        let are_objects = |rule: &&Map<String, Value>| match rule.get("conditions") {
            Some(Value::Array(conditions)) => conditions.iter().all(Value::is_object),
            _ => true,
        };
        if !rules.iter().all(are_objects) {
            return None;
        }
        let rollouts = match flag.get("rollouts") {
            None | Some(Value::Null) => None,
            Some(rollouts) => Some(rollouts.as_object()?),
        };
        Some(Self { rules, variations: objects(flag.get("variations"))?, rollouts })
    }

    /// By ascending `order_index`, ties as listed. An index that is no number counts as 0.
    fn rules_in_order(&self) -> Vec<&'c Map<String, Value>> {
        let order = |rule: &Map<String, Value>| {
            let index = number(rule.get("order_index"));
            if index.is_nan() { 0.0 } else { index + 0.0 }
        };
        let mut rules = self.rules.clone();
        rules.sort_by(|a, b| order(a).total_cmp(&order(b)));
        rules
    }
}

/// The items of a list of objects; empty if absent or `null`, `None` if it is anything else.
fn objects(list: Option<&Value>) -> Option<Vec<&Map<String, Value>>> {
    match list {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(Value::as_object).collect(),
        Some(_) => None,
    }
}

/// If two variations share an id, the last one's value stands in the first one's place. One without an id is never found.
fn variations<'c>(parts: &Parts<'c>, flag_type: FlagType) -> Vec<Variation<'c>> {
    let mut variations: Vec<Variation<'c>> = Vec::new();
    for stored in &parts.variations {
        let value = stored.get("value");
        let id = stored.get("id").unwrap_or(&Value::Null);
        let key = stored.get("key").and_then(Value::as_str).filter(|key| !key.is_empty());
        let variation = Variation { id, key, value, coerced: coerce(value, flag_type) };
        match variations.iter_mut().find(|earlier| is_same_id(earlier.id, id)) {
            Some(earlier) => *earlier = variation,
            None => variations.push(variation),
        }
    }
    variations
}

/// ECMAScript's `===` for what can be an id: strings, and numbers by value. `null` is the id of nothing.
fn is_same_id(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::String(_) | Value::Bool(_), _) => a == b,
        _ => false,
    }
}
