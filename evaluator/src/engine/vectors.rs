//! The shared test vectors of what only the engine itself can see: attribute maps, lookups, single conditions.

use serde_json::{Map, Value};

use super::attributes::{AttributeMap, AttributeQuery};
use super::condition::Test;
use super::context::Context;

fn list(name: &str) -> Vec<Value> {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../schemas/fixtures/evaluation.json")).expect("the vectors are JSON");
    vectors[name].as_array().cloned().expect("a list of vectors")
}

/// An attribute map as a vector gives it: flat already.
fn map_of(attributes: &Value) -> AttributeMap {
    let attributes = attributes.as_object().expect("an attribute map");
    let mut map = AttributeMap::default();
    for (name, value) in attributes {
        map.push("", name, value);
    }
    map.seal();
    map
}

#[test]
fn contexts_have_the_attributes_in_order_and_the_key_of_the_vectors() {
    for vector in list("contexts") {
        let context = Context::from_value(vector["context"].clone()).expect("a valid context");
        let expected = map_of(&vector["attributes"]);
        let expected: Vec<_> = (0..expected.len())
            .map(|position| (expected.name(position).to_owned(), format!("{:?}", expected.value(position))))
            .collect();
        let actual: Vec<_> =
            context.attributes().map(|(name, value)| (name.to_owned(), format!("{value:?}"))).collect();
        assert_eq!(actual, expected, "{}", vector["name"]);
        assert_eq!(context.bucketing_key(), vector["stable_key"].as_str(), "{}", vector["name"]);
    }
}

#[test]
fn lookups_find_what_the_vectors_find() {
    for vector in list("lookups") {
        let map = map_of(&vector["attributes"]);
        let query = AttributeQuery::new(vector["attribute"].as_str().expect("a name"));
        let found = map.find(&query).map(|position| format!("{:?}", map.value(position)));
        let expected = vector["found"].as_bool().expect("a boolean").then(|| {
            let single = map_of(&Value::Object(Map::from_iter([("x".to_owned(), vector["value"].clone())])));
            format!("{:?}", single.value(0))
        });
        assert_eq!(found, expected, "{}", vector["name"]);
    }
}

#[test]
fn a_map_too_large_to_scan_is_searched_alike() {
    for vector in list("lookups") {
        let mut attributes = vector["attributes"].as_object().cloned().expect("an attribute map");
        for filler in 0..100 {
            attributes.insert(format!("filler{filler}"), Value::Null);
        }
        let small = map_of(&vector["attributes"]);
        let large = map_of(&Value::Object(attributes));
        let query = AttributeQuery::new(vector["attribute"].as_str().expect("a name"));
        assert_eq!(large.find(&query), small.find(&query), "{}", vector["name"]);
    }
}

#[test]
fn conditions_hold_when_the_vectors_say_so() {
    for vector in list("operators") {
        let map = map_of(&vector["attributes"]);
        let condition = &vector["condition"];
        let query = AttributeQuery::new(condition["attribute"].as_str().expect("a name"));
        let test = Test::new(condition["operator"].as_str().expect("a name"), condition.get("value"));
        let operand = map.find(&query).map(|position| map.operand_at(position));
        assert_eq!(Some(test.holds(operand, &map)), vector["result"].as_bool(), "{vector}");
    }
}
