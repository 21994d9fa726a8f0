//! Attributes (management API 3): the schema of contexts, for the rule builder, and which values may not be logged.
//!
//! Those of the system are the same for all organizations: an organization can deactivate them, nothing else. What is private is part of
//! the snapshot of every environment of the organization, beside what is evaluated: evaluators load it, and no client is sent it.

pub(crate) mod create;
pub(crate) mod deactivate;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod update;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::caller::Caller;
use crate::conditions;
use crate::db::{FromRow, Json, PgConnection, query, query_as, query_scalar};
use crate::error::{ApiError, Problems};
use crate::limits::{ATTRIBUTE_KEY_CHARS, MAX_NAME_CHARS, MAX_SUGGESTIONS};
use crate::publish::notify;
use crate::scope::OrganizationWrite;
use crate::text::{check_description, check_name};

/// What may be known of a user, an organization or a device.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct Attribute {
    id: Uuid,
    /// As rules name it, `user.country`.
    key: String,
    label: String,
    /// `string`, `number`, `boolean`, `date` or `array`.
    r#type: String,
    /// `user`, `organization`, `device` or `custom`.
    category: String,
    /// Which operators the rule builder offers.
    #[schema(value_type = Vec<String>)]
    operators: Json<Vec<String>>,
    /// Of the organization itself; the others are the system's.
    is_custom: bool,
    /// Whether the rule builder offers it.
    is_active: bool,
    /// Whether its values are replaced by pseudonyms before anything is logged.
    private: bool,
    #[schema(value_type = Option<Vec<Value>>)]
    suggestions: Option<Json<Vec<Value>>>,
    placeholder: Option<String>,
    description: Option<String>,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<DateTime<Utc>>,
}

/// What the organization `$1` sees, under the names of [`Attribute`].
const VISIBLE: &str = "(SELECT a.id, a.key, a.label, a.type, a.category, a.operators, a.organization_id IS NOT NULL AS is_custom,
        NOT EXISTS (SELECT 1 FROM inactive_attributes i WHERE i.attribute_id = a.id AND i.organization_id = $1) AS is_active,
        a.private, a.suggestions, a.placeholder, a.description, a.created_by, a.created_at, a.updated_at, a.deleted_at
    FROM attributes a WHERE (a.organization_id = $1 OR a.organization_id IS NULL) AND a.deleted_at IS NULL) AS visible";

/// Keys of the private attributes of the organization `$1`, sorted, as an array. Deactivating one does not unmask it.
pub(crate) const PRIVATE_KEYS: &str = "ARRAY(SELECT a.key FROM attributes a
    WHERE a.organization_id = $1 AND a.private AND a.deleted_at IS NULL ORDER BY a.key)";

/// The members of an attribute that its makers choose, apart from the key; what is left out stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Definition {
    label: Option<String>,
    /// `string`, `number`, `boolean`, `date` or `array`.
    r#type: Option<String>,
    /// `user`, `organization`, `device` or `custom`.
    category: Option<String>,
    operators: Option<Vec<String>>,
    /// Whether its values are replaced by pseudonyms before anything is logged.
    private: Option<bool>,
    /// Strings, numbers and booleans.
    #[serde(default, deserialize_with = "crate::request::present")]
    #[schema(value_type = Option<Vec<Value>>)]
    suggestions: Option<Option<Vec<Value>>>,
    #[serde(default, deserialize_with = "crate::request::present")]
    #[schema(value_type = Option<String>)]
    placeholder: Option<Option<String>>,
    #[serde(default, deserialize_with = "crate::request::present")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
}

const TYPES: &[&str] = &["string", "number", "boolean", "date", "array"];
const CATEGORIES: &[&str] = &["user", "organization", "device", "custom"];

impl Definition {
    fn check(&self, problems: &mut Problems) {
        if let Some(label) = &self.label {
            check_name(problems, "label", label);
        }
        check_word(problems, "type", self.r#type.as_deref(), TYPES);
        check_word(problems, "category", self.category.as_deref(), CATEGORIES);
        if let Some(operators) = &self.operators {
            conditions::check_operators(problems, "operators", operators);
        }
        let suggestions = self.suggestions.iter().flatten();
        let fits = |value: &Value| match value {
            Value::String(text) => text.chars().count() <= MAX_NAME_CHARS,
            Value::Number(_) | Value::Bool(_) => true,
            _ => false,
        };
        let fit = suggestions.clone().all(|values| values.len() <= MAX_SUGGESTIONS && values.iter().all(fits));
        let rule = format!(
            "must be at most {MAX_SUGGESTIONS} numbers, booleans and strings of at most {MAX_NAME_CHARS} characters"
        );
        problems.check(fit, "suggestions", &rule);
        let fits = self.placeholder.iter().flatten().all(|text| text.chars().count() <= MAX_NAME_CHARS);
        problems.check(fits, "placeholder", &format!("must have at most {MAX_NAME_CHARS} characters"));
        check_description(problems, "description", self.description.as_ref().and_then(Option::as_deref));
    }
}

/// Notes a problem unless `word` is left out or one of `known`.
fn check_word(problems: &mut Problems, path: &str, word: Option<&str>, known: &[&str]) {
    let is_known = word.is_none_or(|word| known.contains(&word));
    problems.check(is_known, path, &format!("must be one of {}", known.join(", ")));
}

/// 2 to 255 lower-case letters, digits, dots and underscores: published.
fn is_key(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    ATTRIBUTE_KEY_CHARS.contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The attribute called `key`.
///
/// # Errors
/// 404.
async fn find(connection: &mut PgConnection, caller: &Caller, key: &str) -> Result<Attribute, ApiError> {
    let found = query_as(&format!("SELECT * FROM {VISIBLE} WHERE key = $2"))
        .bind(caller.organization)
        .bind(key)
        .fetch_optional(connection)
        .await?;
    found.ok_or(ApiError::NotFound("Attribute"))
}

/// The same, if it is the organization's own.
///
/// # Errors
/// 404; 403 for one of the system's.
async fn find_own(connection: &mut PgConnection, caller: &Caller, key: &str) -> Result<Attribute, ApiError> {
    let attribute = find(connection, caller, key).await?;
    if attribute.is_custom { Ok(attribute) } else { Err(ApiError::SystemAttribute) }
}

/// What differs between two states of a thing: the members of both that are not the same.
fn changes(before: &Attribute, after: &Attribute) -> Result<(Value, Value), ApiError> {
    let object = |attribute: &Attribute| match serde_json::to_value(attribute) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(ApiError::Internal(error.to_string())),
    };
    let (mut before, mut after) = (object(before)?, object(after)?);
    before.remove("updated_at");
    after.retain(|name, value| name != "updated_at" && before.get(name) != Some(value));
    before.retain(|name, _| after.contains_key(name));
    Ok((before.into(), after.into()))
}

/// Makes evaluators treat as private what is private now: every snapshot of the organization that says otherwise is changed and told.
/// It is no new version, since nothing that is evaluated changes. The organization is locked, so a project made meanwhile begins with
/// what this leaves.
async fn publish_private(write: &mut OrganizationWrite) -> Result<(), ApiError> {
    let organization = write.caller.organization;
    // In the order in which publishes lock them, so that neither waits for the other for ever.
    let stale: Vec<Uuid> = query_scalar(&format!(
        "SELECT environment_id FROM environment_snapshots
         WHERE organization_id = $1 AND private_attributes <> {PRIVATE_KEYS} ORDER BY environment_id FOR UPDATE"
    ))
    .bind(organization)
    .fetch_all(&mut *write.tx)
    .await?;
    query(&format!(
        "UPDATE environment_snapshots SET private_attributes = {PRIVATE_KEYS},
                updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
         WHERE organization_id = $1 AND environment_id = ANY($2)"
    ))
    .bind(organization)
    .bind(&stale)
    .execute(&mut *write.tx)
    .await?;
    for environment in stale {
        notify(&mut write.tx, "flagmint_config", environment).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["ab", "user.home_city2", "__", &"a".repeat(255)] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "a", "Ab", "a-b", "a b", "ä.", &"a".repeat(256)] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
