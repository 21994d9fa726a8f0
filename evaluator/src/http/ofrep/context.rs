//! The context of an OFREP request, turned into one of ours (data-plane.md 9.3).

use serde_json::{Map, Value};

use super::error::OfrepError;
use crate::engine::Context;
use crate::http::error::DataPlaneError;

const TARGETING_KEY: &str = "targetingKey";

/// The context in a request's body.
///
/// # Errors
/// If the body is not JSON, or has no object `context`, or its `targetingKey` is no string.
pub fn context_of(body: &[u8]) -> Result<Context, OfrepError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| OfrepError::Plane(DataPlaneError::Parse(format!("body is not JSON: {error}"))))?;
    let context = match body {
        Value::Object(mut members) => members.swap_remove("context"),
        _ => None,
    };
    match context {
        Some(Value::Object(members)) => mapped(members).map(Context::from_members),
        Some(_) => Err(OfrepError::InvalidContext("context must be an object")),
        None => Err(OfrepError::InvalidContext("body has no member context")),
    }
}

/// The members as our evaluator reads them; `targetingKey` stays among them, so that rules can name it.
fn mapped(mut members: Map<String, Value>) -> Result<Map<String, Value>, OfrepError> {
    let targeting_key = match members.get(TARGETING_KEY) {
        None => None,
        Some(Value::String(key)) => Some(key.clone()),
        Some(_) => return Err(OfrepError::InvalidContext("context.targetingKey must be a string")),
    };
    let targeting_key = targeting_key.map(Value::String);
    match shape(&members) {
        Shape::User => put_if_absent(&mut members, "key", targeting_key),
        Shape::Organization => {}
        Shape::Multi => {
            if let Some(Value::Object(user)) = members.get_mut("user") {
                put_if_absent(user, "key", targeting_key);
            }
        }
        Shape::Flat => put_if_absent(&mut members, "user.key", targeting_key),
        Shape::Nested => {
            if targeting_key.is_some()
                && let Value::Object(user) = members.entry("user").or_insert_with(|| Map::new().into())
            {
                put_if_absent(user, "key", targeting_key);
            }
        }
        Shape::Free => return Ok(as_user(members, targeting_key)),
    }
    Ok(members)
}

/// How a context says who it is about.
enum Shape {
    User,
    Organization,
    Multi,
    /// Names such as `user.plan`.
    Flat,
    /// Objects `user`, `organization` or `custom`.
    Nested,
    /// OFREP's own: a targeting key and free members.
    Free,
}

fn shape(members: &Map<String, Value>) -> Shape {
    match members.get("kind").and_then(Value::as_str) {
        Some("user") => return Shape::User,
        Some("organization") => return Shape::Organization,
        Some("multi") => return Shape::Multi,
        _ => {}
    }
    let is_flat = |name: &String| ["user.", "organization.", "custom."].iter().any(|prefix| name.starts_with(prefix));
    if members.keys().any(is_flat) {
        return Shape::Flat;
    }
    let is_object = |name: &&str| members.get(*name).is_some_and(Value::is_object);
    if ["user", "organization", "custom"].iter().any(is_object) { Shape::Nested } else { Shape::Free }
}

fn put_if_absent(members: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value
        && !members.contains_key(name)
    {
        members.insert(name.to_owned(), value);
    }
}

/// A user with these members. Its key is the targeting key, if there is one, whatever else the members call `key`.
fn as_user(mut members: Map<String, Value>, targeting_key: Option<Value>) -> Map<String, Value> {
    let mut user = Map::with_capacity(members.len() + 2);
    user.insert("kind".into(), "user".into());
    members.shift_remove("kind");
    if let Some(key) = targeting_key {
        user.insert("key".into(), key);
        members.shift_remove("key");
    }
    user.extend(members);
    user
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(context: Value, expected: Value) {
        let body = json!({ "context": context }).to_string();
        let found = context_of(body.as_bytes()).unwrap_or_else(|_| panic!("{context} is refused"));
        // As text, since the order of members carries meaning.
        assert_eq!(serde_json::to_string(found.members()).unwrap(), expected.to_string(), "{context}");
    }

    #[test]
    fn free_contexts_become_users() {
        check(json!({}), json!({ "kind": "user" }));
        check(
            json!({ "targetingKey": "u", "country": "IE" }),
            json!({ "kind": "user", "key": "u", "targetingKey": "u", "country": "IE" }),
        );
        check(
            json!({ "a": [1], "kind": "device", "key": "k", "targetingKey": "u" }),
            json!({ "kind": "user", "key": "u", "a": [1], "targetingKey": "u" }),
        );
        check(json!({ "targetingKey": "", "key": "k" }), json!({ "kind": "user", "key": "", "targetingKey": "" }));
        check(json!({ "key": "k" }), json!({ "kind": "user", "key": "k" }));
        check(json!({ "user": "bob" }), json!({ "kind": "user", "user": "bob" }));
        check(json!({ "__proto__": { "a": 1 } }), json!({ "kind": "user", "__proto__": { "a": 1 } }));
    }

    #[test]
    fn our_own_shapes_stay_and_get_the_key_they_lack() {
        let key = json!("u");
        check(
            json!({ "kind": "user", "targetingKey": key }),
            json!({ "kind": "user", "targetingKey": "u", "key": "u" }),
        );
        check(
            json!({ "kind": "user", "key": 1, "targetingKey": key }),
            json!({ "kind": "user", "key": 1, "targetingKey": "u" }),
        );
        check(
            json!({ "kind": "organization", "targetingKey": key }),
            json!({ "kind": "organization", "targetingKey": "u" }),
        );
        check(
            json!({ "kind": "multi", "user": {}, "organization": { "key": "o" }, "targetingKey": key }),
            json!({ "kind": "multi", "user": { "key": "u" }, "organization": { "key": "o" }, "targetingKey": "u" }),
        );
        check(json!({ "kind": "multi", "targetingKey": key }), json!({ "kind": "multi", "targetingKey": "u" }));
        check(
            json!({ "user.plan": "pro", "targetingKey": key }),
            json!({ "user.plan": "pro", "targetingKey": "u", "user.key": "u" }),
        );
        check(
            json!({ "custom.a": 1, "user.key": "k", "targetingKey": key }),
            json!({ "custom.a": 1, "user.key": "k", "targetingKey": "u" }),
        );
        check(
            json!({ "user": { "plan": "pro" }, "targetingKey": key }),
            json!({ "user": { "plan": "pro", "key": "u" }, "targetingKey": "u" }),
        );
        check(
            json!({ "custom": { "source": "SDK" }, "targetingKey": key }),
            json!({ "custom": { "source": "SDK" }, "targetingKey": "u", "user": { "key": "u" } }),
        );
        check(json!({ "organization": {} }), json!({ "organization": {} }));
    }

    #[test]
    fn each_shape_gives_the_bucketing_key() {
        for context in [
            json!({ "targetingKey": "u" }),
            json!({ "kind": "user", "targetingKey": "u" }),
            json!({ "kind": "multi", "user": { "plan": "pro" }, "targetingKey": "u" }),
            json!({ "user.plan": "pro", "targetingKey": "u" }),
            json!({ "organization": { "key": "o" }, "targetingKey": "u" }),
            json!({ "user": { "plan": "pro" }, "targetingKey": "u" }),
        ] {
            let context = context_of(json!({ "context": context }).to_string().as_bytes()).unwrap_or_else(|_| panic!());
            assert_eq!(context.bucketing_key(), Some("u"), "{:?}", context.members());
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let refused = |body: &str| match context_of(body.as_bytes()) {
            Err(OfrepError::InvalidContext(_)) => "context",
            Err(OfrepError::Plane(DataPlaneError::Parse(_))) => "parse",
            _ => "accepted",
        };
        for body in ["{}", "[]", "1", "null", r#"{"context":null}"#, r#"{"context":[]}"#, r#"{"context":"x"}"#] {
            assert_eq!(refused(body), "context", "{body}");
        }
        for key in ["1", "null", "{}", "[\"u\"]"] {
            assert_eq!(refused(&format!(r#"{{"context":{{"targetingKey":{key}}}}}"#)), "context", "{key}");
        }
        let deep = format!(r#"{{"context":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        for body in ["", "{", r#"{"context":{}}x"#, r#"{"context":{"a":1e400}}"#, &deep] {
            assert_eq!(refused(body), "parse", "{body:.40}");
        }
        assert_eq!(refused(r#"{"context":{"a":1},"context":{"a":2},"x":[]}"#), "accepted");
    }
}
