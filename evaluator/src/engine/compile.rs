//! From the configuration's JSON to a [`CompiledEnvironment`].
//!
//! Whatever depends on the configuration alone is settled here: which rules can match, which values each branch would serve and
//! under which reason, where buckets are divided. Conditions and groups of them that several flags share are kept once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::attributes::AttributeQuery;
use super::condition::Test;
use super::environment::{CompiledEnvironment, Condition, Group, GroupOperator, KeyTable};
use super::flag::FlagCompiler;
use super::values::is_truthy;

/// A configuration in the making.
pub(super) struct Compiler<'c> {
    segments: &'c Map<String, Value>,
    pub(super) environment: CompiledEnvironment,
    conditions: BTreeMap<String, u32>,
    groups: BTreeMap<(u8, Box<[u32]>), u32>,
}

impl<'c> Compiler<'c> {
    pub(super) fn new(segments: &'c Map<String, Value>) -> Self {
        Self {
            segments,
            environment: CompiledEnvironment::default(),
            conditions: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    pub(super) fn compile(mut self, flags: &[Value]) -> CompiledEnvironment {
        for (index, flag) in flags.iter().enumerate() {
            let compiled = FlagCompiler::new(&mut self, index, flag).compile();
            self.environment.flags.push(compiled);
        }
        self.environment.by_key = KeyTable::new(&self.environment.flags);
        self.environment
    }

    /// The group of a rule, or `None` if the rule can never match.
    pub(super) fn rule_group(&mut self, rule: &Map<String, Value>) -> Option<u32> {
        match rule.get("kind").and_then(Value::as_str)? {
            "segment" => self.segment_group(rule.get("segment_id")?.as_str()?),
            "custom" => {
                let conditions = rule.get("conditions")?.as_array()?;
                let operator = rule.get("logical_op").and_then(Value::as_str).unwrap_or_default().to_uppercase();
                self.group(GroupOperator::from_name(&operator), conditions)
            }
            _ => None,
        }
    }

    fn segment_group(&mut self, id: &str) -> Option<u32> {
        let segment = self.segments.get(id)?.as_object()?;
        let rules = segment.get("rules")?.as_array()?;
        if is_truthy(segment.get("force")) {
            return Some(self.intern_group(GroupOperator::All, Box::default()));
        }
        let operator = segment.get("logical_op").and_then(Value::as_str).unwrap_or_default();
        self.group(GroupOperator::from_name(operator), rules)
    }

    /// A group without conditions never matches, whatever its operator.
    fn group(&mut self, operator: GroupOperator, conditions: &[Value]) -> Option<u32> {
        if conditions.is_empty() {
            return None;
        }
        let conditions = conditions.iter().map(|condition| self.condition(condition)).collect();
        Some(self.intern_group(operator, conditions))
    }

    fn intern_group(&mut self, operator: GroupOperator, conditions: Box<[u32]>) -> u32 {
        let groups = &mut self.environment.groups;
        *self.groups.entry((operator as u8, conditions.clone())).or_insert_with(|| {
            groups.push(Group { operator, conditions });
            index_u32(groups.len() - 1)
        })
    }

    /// A condition that is no object asks nothing that could hold.
    fn condition(&mut self, condition: &Value) -> u32 {
        let member = |name| condition.get(name);
        let attribute = member("attribute").and_then(Value::as_str).unwrap_or_default();
        let operator = member("operator").and_then(Value::as_str).unwrap_or_default();
        let identity = serde_json::json!([attribute, operator, member("value").map(|value| [value])]).to_string();
        if let Some(known) = self.conditions.get(&identity) {
            return *known;
        }
        let query = AttributeQuery::new(attribute);
        self.environment.conditions.push(Condition { query, test: Test::new(operator, member("value")) });
        let index = index_u32(self.environment.conditions.len() - 1);
        self.conditions.insert(identity, index);
        index
    }
}

impl GroupOperator {
    fn from_name(name: &str) -> Self {
        match name {
            "OR" => Self::Any,
            "NOT" => Self::NotAll,
            _ => Self::All,
        }
    }
}

/// An index into one of the environment's tables.
pub(super) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a configuration holds far fewer than 2^32 items")
}
