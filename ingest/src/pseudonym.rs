//! Pseudonyms: what of a context may be logged (data-plane.md section 11).
//!
//! A targeting key or private value becomes `p1_` and the first 128 bits of HMAC-SHA256 (RFC 2104) over its kind, a zero byte and
//! its text, under the environment's own key: stable, so it can be counted, and not reversible without the key.

use std::collections::HashSet;

use flagmint_schemas::batch::{Attributes, ObservedContext};
use flagmint_schemas::context_key::{ContextKey, Pseudonym};
use flagmint_schemas::limits::CONTEXT_ATTRIBUTES_MAX;
use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::limits;

/// Names of attributes that are private everywhere, in any case.
const PRIVATE: [&str; 7] = ["email", "name", "firstname", "lastname", "phone", "ip", "address"];

/// Names whose values are targeting keys wherever they stand.
const TARGETING: [&str; 4] = ["key", "user_id", "userKey", "targetingKey"];

/// Groups of a context whose members are attributes of their own.
const GROUPS: [&str; 3] = ["user", "organization", "custom"];

/// Turns contexts into what may be logged of them, under the pseudonym key of one environment.
#[derive(Debug)]
pub struct ContextRedactor {
    /// Keyed once; a clone of it saves two of the four hash blocks of each HMAC.
    mac: Hmac<Sha256>,
    /// Which of the environment's keys it is; 0 if nobody said.
    key_number: u32,
    log_raw: bool,
    /// What is private by the schema: the last parts of its names, in lower case.
    private: HashSet<String>,
}

impl ContextRedactor {
    /// A redactor for the environment with this pseudonym key; `log_raw` is the environment's opt-in to raw logging.
    #[must_use]
    pub fn new(environment_key: [u8; 32], log_raw: bool) -> Self {
        Self {
            mac: Hmac::new_from_slice(&environment_key).expect("HMAC takes keys of any length"),
            key_number: 0,
            log_raw,
            private: HashSet::new(),
        }
    }

    /// The same with a key that records name by this number.
    #[must_use]
    pub fn with_key_number(mut self, key_number: u32) -> Self {
        self.key_number = key_number;
        self
    }

    /// What records name the key by.
    pub(crate) const fn key_number(&self) -> u32 {
        self.key_number
    }

    /// The same with attributes that the organization's schema marks as private. As in rules (evaluation.md 4.4), `user.salary` is
    /// whatever has this last part, in any group and any case.
    #[must_use]
    pub fn with_private<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.private.extend(names.into_iter().map(|name| last_part(name).to_lowercase()));
        self
    }

    /// Whether the other one makes the same of every context.
    #[must_use]
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        // Keys are alike that make the same of one text.
        let key = |redactor: &Self| redactor.digest("", "");
        let rules = |redactor: &Self| (redactor.log_raw, redactor.key_number);
        rules(self) == rules(other) && self.private == other.private && key(self) == key(other)
    }

    /// The pseudonym of a targeting key or private value; `kind` is `user`, `organization` or `attr:` and the bare name.
    #[must_use]
    pub fn pseudonym(&self, kind: &str, text: &str) -> Pseudonym {
        Pseudonym::from_bytes(*self.digest(kind, text).first_chunk().expect("a digest has 32 bytes"))
    }

    fn digest(&self, kind: &str, text: &str) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// What may be logged of a context as sent. Costs some microseconds: keep it for the next call with that context.
    #[must_use]
    pub fn observe(&self, context: &Map<String, Value>) -> ObservedContext {
        let stated = context.get("kind").and_then(Value::as_str);
        let kind =
            ["user", "organization", "multi"].into_iter().find(|known| stated == Some(known)).unwrap_or_default();
        let key = targeting_key(context, kind);
        let (attributes, omitted) = self.attributes(context, kind, key.as_ref());
        let logged = key.as_ref().map_or(ContextKey::None, |key| self.key(key.kind, &key.text));
        let user_hash = match (&logged, user_key(context, kind)) {
            (_, None) => 0,
            // Most contexts are of their user, whose pseudonym is then known.
            (ContextKey::Pseudonym(pseudonym), Some(user)) if key.is_some_and(|key| key.is_user(user)) => {
                pseudonym.user_hash()
            }
            (_, Some(user)) => self.pseudonym("user", user).user_hash(),
        };
        ObservedContext {
            kind: kind.into(),
            key: logged,
            user_hash,
            attributes: Attributes::told(Value::Object(attributes).to_string(), omitted),
        }
    }

    fn key(&self, kind: &str, text: &str) -> ContextKey {
        let is_loggable = self.log_raw && text.len() <= limits::RAW_VALUE_BYTES_MAX;
        if is_loggable { ContextKey::of(text) } else { ContextKey::Pseudonym(self.pseudonym(kind, text)) }
    }

    fn attributes(
        &self,
        context: &Map<String, Value>,
        kind: &str,
        key: Option<&TargetingKey>,
    ) -> (Map<String, Value>, u32) {
        let mut attributes = Map::new();
        let mut omitted: u32 = 0;
        for attribute in flatten(context, kind) {
            if key.is_some_and(|key| key.name == attribute.name) {
                continue;
            }
            let has_room = attributes.len() < CONTEXT_ATTRIBUTES_MAX;
            if has_room && attribute.name.chars().count() <= limits::ATTRIBUTE_NAME_CHARACTERS_MAX {
                let value = self.attribute(&attribute);
                attributes.insert(attribute.name, value);
            } else {
                omitted = omitted.saturating_add(1);
            }
        }
        (attributes, omitted)
    }

    fn attribute(&self, attribute: &Attribute<'_>) -> Value {
        let Attribute { bare, value, owner, .. } = *attribute;
        if self.log_raw {
            let is_small = value.to_string().len() <= limits::RAW_VALUE_BYTES_MAX;
            return if is_small { value.clone() } else { type_name(value) };
        }
        if TARGETING.contains(&bare) {
            return scalar_text(value)
                .map_or_else(|| type_name(value), |text| self.pseudonym(owner, &text).to_string().into());
        }
        if self.is_private(bare) {
            let text = scalar_text(value).unwrap_or_else(|| value.to_string());
            return self.pseudonym(&format!("attr:{bare}"), &text).to_string().into();
        }
        match value {
            Value::String(text) if text.chars().count() > limits::ATTRIBUTE_CHARACTERS_MAX => type_name(value),
            Value::String(_) | Value::Number(_) | Value::Bool(_) => value.clone(),
            _ => type_name(value),
        }
    }

    fn is_private(&self, bare: &str) -> bool {
        PRIVATE.iter().any(|name| name.eq_ignore_ascii_case(bare))
            || (!self.private.is_empty() && self.private.contains(&last_part(bare).to_lowercase()))
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// One attribute of a context as sent.
struct Attribute<'a> {
    /// `plan`, `user.plan`, …
    name: String,
    /// Its last part.
    bare: &'a str,
    value: &'a Value,
    /// Whose key it would be, if it were one.
    owner: &'static str,
}

/// The members of a context, those of its groups included.
fn flatten<'a>(context: &'a Map<String, Value>, kind: &str) -> impl Iterator<Item = Attribute<'a>> {
    let top = if kind == "organization" { "organization" } else { "user" };
    context.iter().filter(|(name, _)| *name != "kind").flat_map(move |(name, value)| {
        let group = value.as_object().filter(|_| GROUPS.contains(&name.as_str()));
        let owner = if name.starts_with("organization") { "organization" } else { top };
        let members = group.into_iter().flatten().map(move |(member, value)| Attribute {
            name: format!("{name}.{member}"),
            bare: member,
            value,
            owner,
        });
        let bare = GROUPS.iter().find_map(|group| name.strip_prefix(group)?.strip_prefix('.')).unwrap_or(name);
        let own = group.is_none().then(|| Attribute { name: name.clone(), bare, value, owner });
        own.into_iter().chain(members)
    })
}

/// The key a context is observed under.
struct TargetingKey {
    /// The attribute that holds it.
    name: &'static str,
    /// `user` or `organization`.
    kind: &'static str,
    text: String,
}

impl TargetingKey {
    /// Whether it is that of this user.
    fn is_user(&self, user: &str) -> bool {
        self.kind == "user" && self.text == user
    }
}

/// An organization's own key for an organization, else the user's, else the organization's within.
fn targeting_key(context: &Map<String, Value>, kind: &str) -> Option<TargetingKey> {
    let (user, organization) = ("user", "organization");
    let own = if kind == organization { organization } else { user };
    [
        ("user.key", user),
        ("userKey", user),
        ("key", own),
        ("user_id", user),
        ("user.user_id", user),
        ("targetingKey", user),
        ("organization.key", organization),
    ]
    .into_iter()
    .filter(|(name, _)| kind != organization || *name == "key" || *name == "organization.key")
    .find_map(|(name, kind)| {
        let text = scalar_text(member(context, name)?).filter(|text| !text.is_empty())?;
        Some(TargetingKey { name, kind, text })
    })
}

/// The user that analytics count (data-plane.md section 8): strings only, never an organization's key.
fn user_key<'a>(context: &'a Map<String, Value>, kind: &str) -> Option<&'a str> {
    let own = || context.get("key").filter(|_| kind != "organization");
    let of_user = context.get("user").and_then(|user| user.get("key")).and_then(Value::as_str);
    of_user
        .or_else(|| context.get("userKey").and_then(Value::as_str))
        .or_else(|| own().and_then(Value::as_str))
        .filter(|key| !key.is_empty())
}

/// A member by full name, written flat or within its group.
fn member<'a>(context: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let within = || name.split_once('.').and_then(|(group, bare)| context.get(group)?.get(bare));
    context.get(name).or_else(within)
}

/// The text of a value as ECMAScript writes it; none for lists, objects and null.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number_text(number)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `1.0` is `1` there.
fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

fn type_name(value: &Value) -> Value {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    name.into()
}

#[cfg(test)]
mod tests;
