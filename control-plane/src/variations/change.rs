//! A bulk change of a flag's variations, worked out in memory: what they will be, and whether they may be that.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Variation;
use crate::error::{ApiError, Problems};
use crate::limits::{MAX_KEY_CHARS, MAX_VARIATIONS};
use crate::text::{check_description, check_name};
use crate::values::FlagType;

/// A bulk change.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Change {
    pub(super) updates: Vec<Update>,
    #[serde(rename = "deletedIds", default)]
    pub(super) deleted_ids: Option<Vec<Uuid>>,
    /// What is served in `environmentId` while the flag is inactive; `null` for none.
    #[serde(rename = "offVariationId", default, deserialize_with = "given")]
    #[schema(value_type = Option<Uuid>)]
    pub(super) off_variation_id: Option<Option<Uuid>>,
    /// Needed with `offVariationId`.
    #[serde(rename = "environmentId")]
    pub(super) environment_id: Option<Uuid>,
}

/// A variation as it shall be, whole.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Update {
    /// Which one; a new one without.
    pub(super) id: Option<Uuid>,
    pub(super) key: String,
    pub(super) name: String,
    /// The flag's.
    r#type: String,
    pub(super) value: Value,
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) is_default: bool,
    #[serde(default)]
    pub(super) order_index: i32,
}

/// Tells a member that is `null` from one that is left out.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Uuid>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Change {
    pub(super) fn deleted(&self) -> &[Uuid] {
        self.deleted_ids.as_deref().unwrap_or_default()
    }

    /// Checks the change against the flag's `current` variations.
    ///
    /// # Errors
    /// 400, 404 for a variation the flag does not have, 409 for two of one key.
    pub(super) fn check(&self, flag_type: FlagType, current: &[Variation]) -> Result<(), ApiError> {
        self.check_members(flag_type)?;
        let known = |id: &Uuid| current.iter().any(|variation| variation.id == *id);
        let named = self.updates.iter().filter_map(|update| update.id.as_ref()).chain(self.deleted());
        let off = self.off_variation_id.iter().flatten();
        if !named.chain(off).all(known) {
            return Err(ApiError::NotFound("Variation"));
        }
        self.check_result(current)
    }

    fn check_members(&self, flag_type: FlagType) -> Result<(), ApiError> {
        let mut problems = Problems::default();
        for (index, update) in self.updates.iter().enumerate() {
            let at = |member: &str| format!("updates[{index}].{member}");
            let fits = (1..=MAX_KEY_CHARS).contains(&update.key.trim().chars().count());
            problems.check(fits, &at("key"), &format!("must have 1 to {MAX_KEY_CHARS} characters"));
            check_name(&mut problems, &at("name"), &update.name);
            check_description(&mut problems, &at("description"), update.description.as_deref());
            let same = FlagType::parse(&update.r#type) == Some(flag_type);
            problems.check(same, &at("type"), &format!("must be the flag's type, {}", flag_type.name()));
            if let Err(message) = flag_type.check(&update.value) {
                problems.add(at("value"), message);
            }
            let repeated = update.id.is_some() && self.updates[..index].iter().any(|other| other.id == update.id);
            problems.check(!repeated, &at("id"), "is named twice");
            let deleted = update.id.is_some_and(|id| self.deleted().contains(&id));
            problems.check(!deleted, &at("id"), "is deleted by the same request");
        }
        let off = self.off_variation_id.is_none() || self.environment_id.is_some();
        problems.check(off, "environmentId", "is required with offVariationId");
        let kept = self.off_variation_id.flatten().is_none_or(|id| !self.deleted().contains(&id));
        problems.check(kept, "offVariationId", "is deleted by the same request");
        problems.finish()
    }

    /// What must hold of the variations together once the change is made.
    fn check_result(&self, current: &[Variation]) -> Result<(), ApiError> {
        let kept: Vec<&Variation> = current
            .iter()
            .filter(|variation| !self.deleted().contains(&variation.id))
            .filter(|variation| self.updates.iter().all(|update| update.id != Some(variation.id)))
            .collect();
        let mut problems = Problems::default();
        let count = kept.len() + self.updates.len();
        problems.check(count >= 2, "updates", "a flag needs at least two variations");
        problems.check(count <= MAX_VARIATIONS, "updates", &format!("a flag has at most {MAX_VARIATIONS} variations"));
        let made_default = self.updates.iter().filter(|update| update.is_default).count();
        let keeps_default = kept.iter().any(|variation| variation.is_default);
        problems.check(made_default <= 1, "updates", "there can be one default variation only");
        problems.check(made_default >= 1 || keeps_default, "updates", "one variation must be the default");
        problems.finish()?;

        let mut keys: Vec<&str> = kept.iter().map(|variation| variation.key.as_str()).collect();
        for update in &self.updates {
            if keys.contains(&update.key.as_str()) {
                return Err(ApiError::conflict(format!("two variations have the key {:?}", update.key)));
            }
            keys.push(&update.key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use serde_json::json;

    fn current() -> Vec<Variation> {
        let variation = |id, key: &str, is_default| Variation {
            id: Uuid::from_u128(id),
            flag_id: Uuid::nil(),
            project_id: Uuid::nil(),
            key: key.to_owned(),
            name: key.to_owned(),
            description: None,
            r#type: "string".to_owned(),
            value: json!(key),
            is_default,
            order_index: 0,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            deleted_at: None,
        };
        vec![variation(1, "a", true), variation(2, "b", false)]
    }

    fn outcome(change: Value) -> String {
        let change: Change = serde_json::from_value(change).unwrap();
        match change.check(FlagType::String, &current()) {
            Ok(()) => "ok".to_owned(),
            Err(ApiError::Validation(details)) => {
                details.into_iter().map(|detail| detail.path).collect::<Vec<_>>().join(" ")
            }
            Err(ApiError::NotFound(_)) => "404".to_owned(),
            Err(ApiError::Conflict { .. }) => "409".to_owned(),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn update(id: Option<u128>, key: &str, is_default: bool) -> Value {
        let mut update = json!({"key": key, "name": key, "type": "string", "value": "x", "description": null, "is_default": is_default});
        if let Some(id) = id {
            update["id"] = json!(Uuid::from_u128(id));
        }
        update
    }

    #[test]
    fn what_may_be_changed() {
        let [a, b, other] = [1, 2, 3].map(Uuid::from_u128);
        let check = |change: Value, expected: &str| assert_eq!(outcome(change.clone()), expected, "{change}");
        check(json!({"updates": []}), "ok");
        check(json!({"updates": [update(None, "c", false)]}), "ok");
        check(json!({"updates": [update(None, "c", true)]}), "ok"); // Unsets a's.
        check(json!({"updates": [update(Some(1), "b", true), update(Some(2), "a", false)]}), "ok"); // Keys swapped.
        check(json!({"updates": [update(None, "a", true)], "deletedIds": [a]}), "ok"); // Key of a deleted one.
        check(json!({"updates": [update(Some(1), "a", false)]}), "updates"); // No default left.
        check(json!({"updates": [update(Some(1), "a", true), update(Some(2), "b", true)]}), "updates");
        check(json!({"updates": [], "deletedIds": [b]}), "updates"); // One left.
        check(json!({"updates": [], "deletedIds": [a, b]}), "updates updates");
        check(json!({"updates": [update(Some(3), "c", false)]}), "404");
        check(json!({"updates": [], "deletedIds": [other]}), "404");
        check(json!({"updates": [], "offVariationId": other, "environmentId": other}), "404");
        check(json!({"updates": [], "offVariationId": a}), "environmentId");
        check(json!({"updates": [], "offVariationId": null}), "environmentId");
        check(json!({"updates": [], "offVariationId": null, "environmentId": other}), "ok");
        check(json!({"updates": [update(None, "b", false)]}), "409");
        check(json!({"updates": [update(None, "c", false), update(None, "c", false)]}), "409");
        check(json!({"updates": [update(Some(1), "a", true), update(Some(1), "c", false)]}), "updates[1].id");
        check(json!({"updates": [update(Some(2), "b", false)], "deletedIds": [b]}), "updates[0].id");
        let new = update(None, "c", false);
        check(
            json!({"updates": [new], "deletedIds": [b], "offVariationId": b, "environmentId": other}),
            "offVariationId",
        );
    }

    #[test]
    fn members_are_checked() {
        let check = |member: &str, value: Value, path: &str| {
            let mut update = update(None, "c", false);
            update[member] = value;
            assert_eq!(outcome(json!({"updates": [update]})), path, "{update}");
        };
        check("key", json!(""), "updates[0].key");
        check("key", json!("x".repeat(129)), "updates[0].key");
        check("name", json!(" "), "updates[0].name");
        check("type", json!("number"), "updates[0].type");
        check("value", json!(1), "updates[0].value");
        check("value", json!(null), "updates[0].value");
        check("description", json!("x".repeat(4_001)), "updates[0].description");
    }
}
