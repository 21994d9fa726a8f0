//! The shared test vectors of canonical JSON and signatures; those of the key agreement are its own module's.

use serde_json::Value;
use zeroize::Zeroizing;

use super::{MacKey, canonical_json};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../schemas/fixtures/evaluation.json")).expect("the vectors are JSON")
}

#[test]
fn canonical_texts() {
    let vectors = vectors();
    let list = vectors["canonical_json"].as_array().expect("a list");
    assert!(list.len() >= 7);
    for vector in list {
        let source: Value = serde_json::from_str(vector["source"].as_str().expect("text")).expect("JSON");
        assert_eq!(canonical_json(&source), vector["canonical"].as_str().expect("text"));
    }
}

#[test]
fn signatures() {
    let signing = &vectors()["signing"];
    let key = hex::decode(signing["mac_key_hex"].as_str().expect("hex")).expect("hex");
    let key = MacKey::new(Zeroizing::new(key.try_into().expect("32 bytes")));
    let payloads = signing["payloads"].as_array().expect("a list");
    assert!(payloads.len() >= 4);
    for payload in payloads {
        let canonical = canonical_json(&payload["unsigned"]);
        assert_eq!(canonical, payload["canonical"].as_str().expect("text"));
        assert_eq!(key.sign(&canonical), payload["signature"].as_str().expect("text"));
    }
}
