//! Who a decision is for: the context as sent, its attribute map and its bucketing key.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::attributes::{AttributeMap, AttributeValue};
use super::hash::KeyHash;
use super::values::{is_truthy, text};

/// Why a context cannot be used. The caller must refuse the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// A list, a string, a number or a boolean (`INVALID_CONTEXT`).
    #[error("the context is not an object")]
    NotAnObject,
    /// Not JSON, nested deeper than 128 levels, a number beyond the doubles, or a lone surrogate (`PARSE_ERROR`).
    #[error("the context is not readable JSON: {0}")]
    Unreadable(String),
}

/// The kind a context states. Anything but the three known kinds is `Other`, absent included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextKind {
    /// `"kind": "user"`
    User,
    /// `"kind": "organization"`
    Organization,
    /// `"kind": "multi"`
    Multi,
    /// No kind, or one that the evaluator does not know.
    Other,
}

/// A context, read once and then shared by the decisions of all flags.
#[derive(Debug, Clone)]
pub struct Context {
    members: Map<String, Value>,
    kind: ContextKind,
    attributes: AttributeMap,
    key: Option<BucketingKey>,
    /// Looked up once, as every call asks for it.
    source: Option<Box<str>>,
}

/// The text that rollouts hash, and how it behaves when joined with a salt.
#[derive(Debug, Clone)]
pub(super) struct BucketingKey {
    pub(super) text: Box<str>,
    pub(super) hash: KeyHash,
    /// A number or boolean in the context: ECMAScript's `+` adds it to a salt that is no string, instead of joining.
    pub(super) adds: bool,
}

impl Context {
    /// The context without members: fallbacks and unconditional results only.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_members(Map::new())
    }

    /// Reads the JSON of a context; `null` is an empty one.
    ///
    /// # Errors
    /// [`ContextError`], by what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, ContextError> {
        let value = serde_json::from_slice(json).map_err(|error| ContextError::Unreadable(error.to_string()))?;
        Self::from_value(value)
    }

    /// Takes a context already parsed; `null` is an empty one.
    ///
    /// # Errors
    /// [`ContextError::NotAnObject`]
    pub fn from_value(value: Value) -> Result<Self, ContextError> {
        match value {
            Value::Null => Ok(Self::empty()),
            Value::Object(members) => Ok(Self::from_members(members)),
            _ => Err(ContextError::NotAnObject),
        }
    }

    /// Takes the members of a context, in the order received.
    #[must_use]
    pub fn from_members(members: Map<String, Value>) -> Self {
        let kind = match members.get("kind").and_then(Value::as_str) {
            Some("user") => ContextKind::User,
            Some("organization") => ContextKind::Organization,
            Some("multi") => ContextKind::Multi,
            _ => ContextKind::Other,
        };
        let attributes = flatten(&members, kind);
        let key = bucketing_key(&members, kind).map(|value| {
            let text = text(Some(value));
            BucketingKey { hash: KeyHash::new(&text), adds: value.is_number() || value.is_boolean(), text: text.into() }
        });
        let source =
            members.get("custom").and_then(|custom| custom.get("source")).and_then(Value::as_str).map(Box::from);
        Self { members, kind, attributes, key, source }
    }

    /// The context as sent.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// The kind it states.
    #[must_use]
    pub fn kind(&self) -> ContextKind {
        self.kind
    }

    /// The key that rollouts hash, as text, if there is one.
    #[must_use]
    pub fn bucketing_key(&self) -> Option<&str> {
        self.key.as_ref().map(|key| &*key.text)
    }

    /// The user that analytics count: `user.key`, else `userKey`, else `key`, strings only, and never an organization's key.
    #[must_use]
    pub fn user_key(&self) -> Option<&str> {
        let of_user = self.members.get("user").and_then(|user| user.get("key")).and_then(Value::as_str);
        let top_level = |name| self.members.get(name).and_then(Value::as_str);
        let own = || if self.kind == ContextKind::Organization { None } else { top_level("key") };
        of_user.or_else(|| top_level("userKey")).or_else(own)
    }

    /// `custom.source` as sent: how the client calls itself (`SDK`, `API`).
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The attributes that conditions can see, in map order, by full name (`user.plan`). Names are unique.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = (&str, AttributeValue<'_>)> {
        (0..self.attributes.len()).map(|position| (self.attributes.name(position), self.attributes.value(position)))
    }

    pub(super) fn attribute_map(&self) -> &AttributeMap {
        &self.attributes
    }

    pub(super) fn key(&self) -> Option<&BucketingKey> {
        self.key.as_ref()
    }
}

/// The value that rollouts hash, if it is truthy.
fn bucketing_key(members: &Map<String, Value>, kind: ContextKind) -> Option<&Value> {
    let key = match kind {
        ContextKind::User => members.get("key"),
        ContextKind::Multi if is_truthy(members.get("user")) => members["user"].get("key"),
        ContextKind::Organization | ContextKind::Multi => first_string([
            members.get("user_id"),
            members.get("user.key"),
            members.get("user").and_then(|it| it.get("key")),
        ]),
        ContextKind::Other => unkinded_key(members),
    };
    key.filter(|key| is_truthy(Some(key)))
}

/// As the attribute map of an unknown kind holds them: `user_id`, `user.key`, and `user` where the map is the context itself.
fn unkinded_key(members: &Map<String, Value>) -> Option<&Value> {
    if !is_nested(members) {
        return first_string([
            members.get("user_id"),
            members.get("user.key"),
            members.get("user").and_then(|it| it.get("key")),
        ]);
    }
    let user_key = members.get("user").and_then(Value::as_object).and_then(|user| user.get("key"));
    first_string([members.get("user_id"), user_key])
}

fn first_string<const N: usize>(candidates: [Option<&Value>; N]) -> Option<&Value> {
    candidates.into_iter().flatten().find(|value| value.is_string())
}

/// Whether a context of no known kind groups its attributes by kind: no flat names, and one of the three groups is there.
fn is_nested(members: &Map<String, Value>) -> bool {
    let is_flat =
        members.keys().any(|name| ["user.", "organization.", "custom."].iter().any(|prefix| name.starts_with(prefix)));
    !is_flat && ["user", "organization", "custom"].iter().any(|group| is_truthy(members.get(*group)))
}

fn flatten(members: &Map<String, Value>, kind: ContextKind) -> AttributeMap {
    let mut flat = Flattening::new(members);
    match kind {
        ContextKind::User => flat.kind("user.", members),
        ContextKind::Organization => flat.kind("organization.", members),
        ContextKind::Multi => flat.groups(members),
        ContextKind::Other if is_nested(members) => {
            flat.groups(members);
            flat.custom(members.get("custom"));
            flat.others(members);
        }
        ContextKind::Other => flat.as_is(members),
    }
    flat.map.seal();
    flat.map
}

/// The attribute map in the making.
struct Flattening {
    map: AttributeMap,
    /// Where the `custom.` attributes of each object or list begin and end: only they can meet a name again.
    customs: Vec<std::ops::Range<usize>>,
}

impl Flattening {
    fn new(members: &Map<String, Value>) -> Self {
        // Most contexts are flat or one group of attributes; a wrong guess costs one reallocation.
        const TEXT_BYTES_PER_MEMBER: usize = 40;
        let nested = |value: &Value| value.as_object().map_or(1, Map::len);
        let expected: usize = members.values().map(nested).sum();
        Self { map: AttributeMap::with_capacity(expected, expected * TEXT_BYTES_PER_MEMBER), customs: Vec::new() }
    }

    fn as_is(&mut self, members: &Map<String, Value>) {
        for (name, value) in members {
            self.map.push("", name, value);
        }
    }

    fn groups(&mut self, members: &Map<String, Value>) {
        for (group, prefix) in [("user", "user."), ("organization", "organization.")] {
            if let Some(Value::Object(members)) = members.get(group) {
                self.kind(prefix, members);
            }
        }
    }

    /// All members but `kind`, prefixed; a `custom` object or list is spread without the prefix.
    fn kind(&mut self, prefix: &str, members: &Map<String, Value>) {
        for (name, value) in members {
            match (name.as_str(), value) {
                ("kind", _) => {}
                ("custom", Value::Object(_) | Value::Array(_)) => self.custom(Some(value)),
                _ => {
                    self.map.push(prefix, name, value);
                }
            }
        }
    }

    /// The members that belong to no group: bare, without `kind`, lists and objects.
    fn others(&mut self, members: &Map<String, Value>) {
        for (name, value) in members {
            let is_group = matches!(name.as_str(), "user" | "organization" | "custom" | "kind");
            if !is_group && !value.is_array() && !value.is_object() {
                self.map.push("", name, value);
            }
        }
    }

    fn custom(&mut self, custom: Option<&Value>) {
        let start = self.map.len();
        match custom {
            Some(Value::Object(members)) => {
                let earlier = self.earlier_customs();
                for (name, value) in members.iter().filter(|(name, _)| *name != "kind") {
                    self.custom_member(&earlier, name, value);
                }
            }
            Some(Value::Array(items)) => {
                let earlier = self.earlier_customs();
                for (index, value) in items.iter().enumerate() {
                    self.custom_member(&earlier, &index.to_string(), value);
                }
            }
            _ => return,
        }
        self.customs.push(start..self.map.len());
    }

    fn custom_member(&mut self, earlier: &BTreeMap<String, usize>, name: &str, value: &Value) {
        match earlier.get(name) {
            Some(&position) => self.map.replace(position, value),
            None => {
                self.map.push("custom.", name, value);
            }
        }
    }

    /// Names and positions of the `custom.` attributes so far; empty, and free, for the first `custom`.
    fn earlier_customs(&self) -> BTreeMap<String, usize> {
        let bare = |position: usize| self.map.name(position).strip_prefix("custom.").unwrap_or_default().to_owned();
        self.customs.iter().cloned().flatten().map(|position| (bare(position), position)).collect()
    }
}
