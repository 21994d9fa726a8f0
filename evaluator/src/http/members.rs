//! The members of a JSON object, each left as text: what a request is made of, read once and only as far as needed.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::error::DataPlaneError;

/// By name; of members with the same name the last counts.
///
/// # Errors
/// If it is not one JSON object.
pub fn members(json: &[u8]) -> Result<HashMap<Cow<'_, str>, &RawValue>, DataPlaneError> {
    serde_json::from_slice(json).map_err(|error| DataPlaneError::Parse(format!("body is not a JSON object: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_objects_only_and_leaves_members_alone() {
        let deep = format!(r#"{{"a":{}1{},"a":[1,2 ],"\u0062":null}}"#, "[".repeat(5000), "]".repeat(5000));
        let found = members(deep.as_bytes()).expect("an object");
        assert_eq!((found.len(), found["a"].get(), found["b"].get()), (2, "[1,2 ]", "null"));
        for bad in ["", "[]", "null", "1", r#"["a",1]"#, "{", r#"{"a":1}x"#, r#"{"a":}"#] {
            assert!(matches!(members(bad.as_bytes()), Err(DataPlaneError::Parse(_))), "{bad}");
        }
        assert!(members(b"{\"\xff\":1}").is_err());
    }
}
