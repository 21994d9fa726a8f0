//! What is logged of contexts, case by case, and that nothing raw is.

use serde_json::json;

use super::*;

fn redactor() -> ContextRedactor {
    ContextRedactor::new([7; 32], false)
}

fn observe(redactor: &ContextRedactor, context: Value) -> ObservedContext {
    let Value::Object(members) = context else { panic!("a context is an object") };
    redactor.observe(&members)
}

fn attributes(observed: &ObservedContext) -> Value {
    serde_json::from_str(observed.attributes_json()).unwrap()
}

/// RFC 4231 has no test with a 32-byte key of one repeated byte, so the expectation was computed with Python's `hmac`.
#[test]
fn pseudonyms_are_the_documented_hmac() {
    let documented = "p1_f8e0ce12ea802fe4ab900cc1705780dd";
    assert_eq!(redactor().pseudonym("user", "u1").to_string(), documented);
    assert_ne!(redactor().pseudonym("organization", "u1").to_string(), documented);
    assert_ne!(ContextRedactor::new([8; 32], false).pseudonym("user", "u1").to_string(), documented);
}

#[test]
fn keys_are_found_in_every_shape() {
    let user = redactor().pseudonym("user", "u1").to_string();
    let organization = redactor().pseudonym("organization", "o1").to_string();
    let cases = [
        (json!({}), "", "", false),
        (json!({"kind": "user", "key": "u1"}), "user", &*user, true),
        (json!({"kind": "organization", "key": "o1"}), "organization", &organization, false),
        (json!({"kind": "multi", "user": {"key": "u1"}, "organization": {"key": "o1"}}), "multi", &user, true),
        (json!({"kind": "multi", "organization": {"key": "o1"}}), "multi", &organization, false),
        (json!({"user.key": "u1"}), "", &user, false),
        (json!({"user_id": "u1"}), "", &user, false),
        (json!({"targetingKey": "u1"}), "", &user, false),
        (json!({"userKey": "u1"}), "", &user, true),
        (json!({"kind": "device", "key": "u1"}), "", &user, true),
        (json!({"kind": "user", "key": ""}), "user", "", false),
        (json!({"kind": "user", "key": ["u1"]}), "user", "", false),
    ];
    for (context, kind, key, has_user) in cases {
        let observed = observe(&redactor(), context.clone());
        assert_eq!((&*observed.kind, &*observed.key.to_string()), (kind, key), "{context}");
        assert_eq!(observed.user_hash != 0, has_user, "{context}");
    }
}

#[test]
fn numbers_have_the_text_of_ecmascript() {
    let keys =
        [json!(7), json!(7.0), json!("7")].map(|key| observe(&redactor(), json!({"kind": "user", "key": key})).key);
    let expected = ContextKey::Pseudonym(redactor().pseudonym("user", "7"));
    assert!(keys.iter().all(|key| *key == expected), "{keys:?}");
}

#[test]
fn private_attributes_and_large_values_are_replaced() {
    let redactor = redactor().with_private(["user.salary"]);
    let observed = observe(
        &redactor,
        json!({
            "kind": "multi",
            "user": {"key": "u1", "plan": "pro", "age": 41, "beta": true, "Email": "a@example.com", "salary": 5, "tags": ["a"]},
            "organization": {"key": "o1", "name": "Example"},
            "custom": {"source": "SDK", "bio": "x".repeat(65), "exact": "ä".repeat(64)},
            "note": null,
        }),
    );
    let attribute = |name: &str, text: &str| redactor.pseudonym(&format!("attr:{name}"), text).to_string();
    assert_eq!(
        attributes(&observed),
        json!({
            "user.plan": "pro", "user.age": 41, "user.beta": true,
            "user.Email": attribute("Email", "a@example.com"), "user.salary": attribute("salary", "5"), "user.tags": "array",
            "organization.key": redactor.pseudonym("organization", "o1").to_string(), "organization.name": attribute("name", "Example"),
            "custom.source": "SDK", "custom.bio": "string", "custom.exact": "ä".repeat(64),
            "note": "null",
        })
    );
}

/// A rule on `user.home_city` finds all of these (evaluation.md 4.4), so none of them is logged as it is.
#[test]
fn a_private_attribute_is_so_wherever_a_rule_would_find_it() {
    let secret = "planted-9a7c";
    let redactor = redactor().with_private(["user.home_city", "custom.größe"]);
    for context in [
        json!({"home_city": secret}),
        json!({"Home_City": secret, "custom": {"GRÖßE": secret}}),
        json!({"user.home_city": secret, "device.home_city": secret}),
        json!({"kind": "user", "key": "u1", "home_city": [secret]}),
        json!({"kind": "organization", "key": "o1", "home_city": {"a": secret}}),
        json!({"kind": "multi", "user": {"HOME_CITY": secret}, "custom": {"x.home_city": secret}}),
    ] {
        let text = format!("{:?}", observe(&redactor, context.clone()));
        assert!(!text.contains(secret) && text.contains("p1_"), "{context} is logged as {text}");
    }
    let plain = observe(&redactor, json!({"home": secret, "city": secret, "home_city_id": secret}));
    assert_eq!(plain.attributes_json().matches(secret).count(), 3, "others are logged");
}

#[test]
fn at_most_64_attributes_are_logged() {
    let mut context: Map<String, Value> = (0..70).map(|number| (format!("a{number}"), json!(number))).collect();
    context.insert("n".repeat(65), json!(1));
    let observed = redactor().observe(&context);
    assert_eq!(attributes(&observed).as_object().unwrap().len(), 64);
    assert_eq!(observed.attributes_omitted(), 7);
}

#[test]
fn raw_logging_is_raw_but_bounded() {
    let redactor = ContextRedactor::new([7; 32], true);
    let observed =
        observe(&redactor, json!({"kind": "user", "key": "u1", "email": "a@example.com", "blob": "x".repeat(2000)}));
    assert_eq!(observed.key, ContextKey::Text("u1".into()));
    assert_eq!(attributes(&observed), json!({"email": "a@example.com", "blob": "string"}));
    assert_ne!(observed.user_hash, 0);
}

/// Wherever a planted key or address stands, it is not in what is logged.
#[test]
fn planted_secrets_never_appear() {
    let secret = "planted-9a7c";
    for group in ["", "user.", "organization.", "custom."] {
        for name in [
            "key",
            "user_id",
            "userKey",
            "targetingKey",
            "email",
            "NAME",
            "firstName",
            "lastName",
            "phone",
            "ip",
            "address",
        ] {
            for kind in ["user", "organization", "multi", "device"] {
                let flat = json!({"kind": kind, format!("{group}{name}"): secret});
                let nested = json!({"kind": kind, group.trim_end_matches('.'): {name: secret}});
                for context in [flat, nested] {
                    let text = format!("{:?}", observe(&redactor(), context.clone()));
                    assert!(!text.contains(secret), "{context} is logged as {text}");
                }
            }
        }
    }
}

#[test]
fn redactors_that_make_the_same_are_alike() {
    let alike = || ContextRedactor::new([7; 32], false).with_key_number(3).with_private(["user.salary"]);
    assert!(alike().is_like(&alike()));
    let others = [
        ContextRedactor::new([8; 32], false).with_key_number(3).with_private(["user.salary"]),
        ContextRedactor::new([7; 32], true).with_key_number(3).with_private(["user.salary"]),
        alike().with_key_number(4),
        alike().with_private(["age"]),
    ];
    for other in others {
        assert!(!alike().is_like(&other) && !other.is_like(&alike()), "{other:?}");
    }
}
