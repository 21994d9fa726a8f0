//! What one publish changed: flags new or changed, whole; keys of flags that are gone; segments new or changed (data plane 7.3).

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A compiled configuration whose flags and segments are kept as written.
#[derive(Deserialize)]
struct Compiled<'a> {
    #[serde(borrow)]
    flags: Vec<&'a RawValue>,
    #[serde(borrow)]
    segments: IndexMap<&'a str, &'a RawValue>,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Serialize)]
struct Delta<'a> {
    upserts: Vec<&'a RawValue>,
    deletes: Vec<&'a str>,
    segments: IndexMap<&'a str, &'a RawValue>,
}

/// The difference between two compiled configurations, as JSON. A segment that is no longer used is not in it: whoever holds it
/// does no harm with it.
///
/// # Errors
/// If one of them is not in the compiled form.
pub(crate) fn delta(before: &str, after: &str) -> Result<String, serde_json::Error> {
    let (before, after): (Compiled<'_>, Compiled<'_>) = (serde_json::from_str(before)?, serde_json::from_str(after)?);
    let (old, new) = (keyed(&before.flags)?, keyed(&after.flags)?);
    let old_texts: HashMap<&str, &str> = old.iter().map(|(key, flag)| (key.as_str(), flag.get())).collect();
    let new_keys: HashSet<&str> = new.iter().map(|(key, _)| key.as_str()).collect();
    let is_changed = |key: &str, text: &str| old_texts.get(key) != Some(&text);
    let delta = Delta {
        upserts: new.iter().filter(|(key, flag)| is_changed(key, flag.get())).map(|(_, flag)| *flag).collect(),
        deletes: old.iter().map(|(key, _)| key.as_str()).filter(|key| !new_keys.contains(key)).collect(),
        segments: after
            .segments
            .into_iter()
            .filter(|(id, segment)| before.segments.get(id).map(|held| held.get()) != Some(segment.get()))
            .collect(),
    };
    serde_json::to_string(&delta)
}

fn keyed<'a>(flags: &[&'a RawValue]) -> Result<Vec<(String, &'a RawValue)>, serde_json::Error> {
    flags.iter().map(|flag| Ok((serde_json::from_str::<Key>(flag.get())?.key, *flag))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &str) {
        assert_eq!(delta(before, after).unwrap(), expected, "{before} to {after}");
    }

    #[test]
    fn a_delta_has_what_changed_as_it_is_written() {
        let empty = r#"{"version":1,"flags":[],"segments":{}}"#;
        let one = r#"{"version":2,"flags":[{"key":"a","n":1.0}],"segments":{"s":{"z":1,"a":2}}}"#;
        check(empty, empty, r#"{"upserts":[],"deletes":[],"segments":{}}"#);
        check(empty, one, r#"{"upserts":[{"key":"a","n":1.0}],"deletes":[],"segments":{"s":{"z":1,"a":2}}}"#);
        check(one, empty, r#"{"upserts":[],"deletes":["a"],"segments":{}}"#);
        let other =
            r#"{"version":3,"flags":[{"key":"b\"","n":2},{"key":"a","n":1.0}],"segments":{"s":{"a":2,"z":1},"t":{}}}"#;
        check(one, other, r#"{"upserts":[{"key":"b\"","n":2}],"deletes":[],"segments":{"s":{"a":2,"z":1},"t":{}}}"#);
        check(other, one, r#"{"upserts":[],"deletes":["b\""],"segments":{"s":{"z":1,"a":2}}}"#);
        let again = r#"{"version":4,"flags":[{"key":"a","n":1}],"segments":{}}"#;
        check(one, again, r#"{"upserts":[{"key":"a","n":1}],"deletes":[],"segments":{}}"#);
        assert!(delta(empty, "[]").is_err());
    }
}
