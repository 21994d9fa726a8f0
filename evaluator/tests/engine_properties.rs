//! What holds for any configuration and any context, however odd: no panic, the fallback, the same answer both ways.

use flagmint_evaluator::engine::{CompiledEnvironment, Context, ContextError, Decision, FlagType, Scratch, coerce};
use flagmint_schemas::decision::{ErrorCode, Exit, Reason};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names and texts that mean something somewhere, so that random documents reach the branches behind them.
const WORDS: &[&str] = &[
    "",
    "user",
    "organization",
    "multi",
    "custom",
    "kind",
    "key",
    "user_id",
    "user.key",
    "custom.tier",
    "plan",
    "Plan",
    "user.plan",
    "organization.plan",
    "a.b.plan",
    "v1",
    "v2",
    "r1",
    "o1",
    "g1",
    "true",
    "false",
    "5",
    "0x10",
    " [a, b] ",
    "[\"a\"]",
    "AND",
    "OR",
    "NOT",
    "not",
    "segment",
    "off",
    "percentage",
    "variant",
    "gradual",
    "eq",
    "neq",
    "in",
    "nin",
    "gt",
    "lt",
    "exists",
    "not_exists",
    "contains",
    "not_contains",
    "startsWith",
    "endsWith",
    "boolean",
    "string",
    "number",
    "json",
    "2026-01-01T00:00:00Z",
    "ß",
    "İ",
    "ΑΣ",
    "😀",
    "\0",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => any::<String>()]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-200_i64..200).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6).prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// Usually what the member should be, at times anything or nothing.
fn member(
    name: &'static str,
    usual: impl Strategy<Value = Value> + 'static,
) -> impl Strategy<Value = Option<(String, Value)>> {
    prop_oneof![
        8 => usual.prop_map(Some),
        1 => any_json().prop_map(Some),
        1 => Just(None),
    ]
    .prop_map(move |value| value.map(|value| (name.to_owned(), value)))
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::sample::select(choices).prop_map(Value::from)
}

fn object_of(members: impl Strategy<Value = Vec<Option<(String, Value)>>>) -> impl Strategy<Value = Value> {
    members.prop_map(|members| Value::Object(members.into_iter().flatten().collect()))
}

fn list_of(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::vec(item, 0..4).prop_map(Value::from)
}

const OPERATORS: &[&str] = &[
    "eq",
    "neq",
    "in",
    "nin",
    "gt",
    "lt",
    "exists",
    "not_exists",
    "contains",
    "not_contains",
    "startsWith",
    "endsWith",
    "matches",
];

fn condition() -> impl Strategy<Value = Value> {
    let attribute = word().prop_map(Value::from);
    let members = (member("attribute", attribute), member("operator", one_of(OPERATORS)), member("value", any_json()));
    object_of(members.prop_map(|(attribute, operator, value)| vec![attribute, operator, value]))
}

fn rule() -> impl Strategy<Value = Value> {
    let members = (
        member("id", one_of(&["r1", "r2"])),
        member("kind", one_of(&["custom", "custom", "segment"])),
        member("order_index", scalar()),
        member("conditions", list_of(condition())),
        member("segment_id", one_of(&["g1", "g2"])),
        member("logical_op", one_of(&["AND", "OR", "NOT", "or"])),
        member("variation_id", prop_oneof![one_of(&["v1", "v2", "gone"]), Just(Value::Null)]),
        member("rollout_id", one_of(&["o1", "o2", "gone"])),
    );
    object_of(members.prop_map(|it| vec![it.0, it.1, it.2, it.3, it.4, it.5, it.6, it.7]))
}

fn rollout() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![(-10_i64..120).prop_map(Value::from), (0.0..110.0).prop_map(Value::from)];
    let variant = (member("variation_id", one_of(&["v1", "v2", "gone"])), member("weight", number()));
    let members = (
        member("strategy", one_of(&["off", "percentage", "variant", "gradual"])),
        member("salt", scalar()),
        member("percentage", number()),
        member("variants", list_of(object_of(variant.prop_map(|(id, weight)| vec![id, weight])))),
        member("target_percentage", number()),
        member("increment", number()),
        member("interval_hours", number()),
        member("start_at", one_of(&["2026-01-01T00:00:00Z", "soon", "", "2026-01-01"])),
    );
    object_of(members.prop_map(|it| vec![it.0, it.1, it.2, it.3, it.4, it.5, it.6, it.7]))
}

fn flag() -> impl Strategy<Value = Value> {
    let variation = (member("id", one_of(&["v1", "v2", "v3"])), member("value", any_json()));
    let rollouts = (member("o1", rollout()), member("o2", rollout())).prop_map(|(first, second)| vec![first, second]);
    let members = (
        member("key", word().prop_map(Value::from)),
        member("type", one_of(&["boolean", "string", "number", "json"])),
        member("is_active", any::<bool>().prop_map(Value::from)),
        member("default_value", any_json()),
        member("off_variation_id", one_of(&["v1", "gone"])),
        member("targeting_rules", list_of(rule())),
        member("variations", list_of(object_of(variation.prop_map(|(id, value)| vec![id, value])))),
        member("rollouts", object_of(rollouts)),
    );
    object_of(members.prop_map(|it| vec![it.0, it.1, it.2, it.3, it.4, it.5, it.6, it.7]))
}

fn segments() -> impl Strategy<Value = Map<String, Value>> {
    let segment = || {
        let members = (
            member("rules", list_of(condition())),
            member("logical_op", one_of(&["AND", "OR", "NOT", "or"])),
            member("force", any::<bool>().prop_map(Value::from)),
        );
        object_of(members.prop_map(|it| vec![it.0, it.1, it.2]))
    };
    (member("g1", segment()), member("g2", segment())).prop_map(|(a, b)| [a, b].into_iter().flatten().collect())
}

fn context() -> impl Strategy<Value = Map<String, Value>> {
    let members = (
        member("kind", one_of(&["user", "organization", "multi", ""])),
        member("key", scalar()),
        member("user", any_json()),
        member("custom", any_json()),
        prop::collection::vec((word(), any_json()), 0..6),
    );
    members.prop_map(|(kind, key, user, custom, others)| {
        [kind, key, user, custom].into_iter().flatten().chain(others).collect()
    })
}

/// Both ways of deciding agree; every decision is one of its flag's outcomes; only an error has a code.
fn decide_checked(flags: &[Value], segments: &Map<String, Value>, context: &Context, now_us: i64) -> CheckedDecisions {
    let environment = CompiledEnvironment::compile(flags, segments);
    assert_eq!(environment.flags().len(), flags.len());
    let mut scratch = Scratch::default();
    let decisions = environment.decide_all(context, now_us, &mut scratch).to_vec();
    assert_eq!(decisions.len(), flags.len());
    for (index, decision) in decisions.iter().enumerate() {
        assert_eq!(environment.decide(index, context, now_us), *decision);
        let outcome = environment.outcome(decision.outcome);
        assert_eq!(outcome.flag, index);
        assert_eq!(outcome.reason == Reason::Error, outcome.error_code.is_some());
        assert!(decision.bucket.is_none_or(|bucket| bucket < 100));
        serde_json::from_str::<Value>(&outcome.value_json).expect("a value is served as JSON");
    }
    let step_us = environment.next_gradual_step_us(now_us);
    assert!(step_us.is_none_or(|step_us| step_us > now_us), "{step_us:?} is not after {now_us}");
    CheckedDecisions { environment, decisions }
}

struct CheckedDecisions {
    environment: CompiledEnvironment,
    decisions: Vec<Decision>,
}

/// Whether a decision that ended here had nothing better than the fallback.
fn went_wrong(exit: Exit) -> bool {
    matches!(
        exit,
        Exit::RolloutNoKey
            | Exit::RolloutWrongType
            | Exit::GradualBadStart
            | Exit::GradualInvalid
            | Exit::RolloutUnknownStrategy
            | Exit::RolloutNoVariants
            | Exit::RolloutVariantMissing
            | Exit::RolloutWeightsShort
            | Exit::RuleVariationMissing
            | Exit::RuleRolloutMissing
            | Exit::RuleWithoutResult
            | Exit::Exception
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_decided(flag in any_json(), segments in any_json(), context in any_json(), now_us in any::<i64>()) {
        let segments = segments.as_object().cloned().unwrap_or_default();
        match Context::from_value(context.clone()) {
            Ok(context) => drop(decide_checked(&[flag], &segments, &context, now_us)),
            Err(error) => prop_assert!(error == ContextError::NotAnObject && !context.is_object()),
        }
    }

    #[test]
    fn nearly_valid_configurations_are_decided_and_serve_the_fallback_when_anything_is_wrong(
        flags in prop::collection::vec(flag(), 1..20),
        segments in segments(),
        context in context(),
        now_us in 1_767_000_000_000_000_i64..1_768_000_000_000_000,
    ) {
        let context = Context::from_members(context);
        let CheckedDecisions { environment, decisions } = decide_checked(&flags, &segments, &context, now_us);
        for (flag, decision) in flags.iter().zip(decisions) {
            let outcome = environment.outcome(decision.outcome);
            let flag_type = flag.get("type").and_then(Value::as_str).and_then(FlagType::from_name);
            if let (true, Some(flag_type)) = (went_wrong(outcome.exit), flag_type) {
                prop_assert_eq!(&outcome.value, &coerce(flag.get("default_value"), flag_type).value);
                prop_assert_eq!(outcome.reason, Reason::Error);
            }
        }
    }

    /// No two of the names are equal ignoring case, so no lookup depends on which comes first.
    #[test]
    fn the_order_of_unrelated_attributes_does_not_matter(
        flags in prop::collection::vec(flag(), 1..10),
        (members, shuffled) in context()
            .prop_map(|context| {
                let mut seen = std::collections::BTreeSet::new();
                context.into_iter().filter(|(name, _)| seen.insert(name.to_lowercase())).collect::<Vec<_>>()
            })
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
    ) {
        let decide = |members: Vec<(String, Value)>| {
            let context = Context::from_members(members.into_iter().collect());
            decide_checked(&flags, &Map::new(), &context, 0).decisions
        };
        prop_assert_eq!(decide(members), decide(shuffled));
    }

    #[test]
    fn any_bytes_are_a_context_or_an_error(bytes in any::<Vec<u8>>(), json in any_json()) {
        let _ = Context::from_json(&bytes);
        let read = Context::from_json(json.to_string().as_bytes());
        prop_assert_eq!(read.is_ok(), json.is_object() || json.is_null());
    }
}

fn nested(depth: usize) -> String {
    format!("{{\"kind\":\"user\",\"key\":\"u1\",\"deep\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn nasty_contexts_are_read_or_refused() {
    let table: &[(String, bool)] = &[
        (nested(100), true),
        (nested(200), false),
        (nested(1_000_000), false),
        (r#"{"key":"\ud800"}"#.to_owned(), false),
        (r#"{"key":"a\u0000b"}"#.to_owned(), true),
        (r#"{"key":1e400}"#.to_owned(), false),
        (r#"{"key":-0.0,"kind":"user"}"#.to_owned(), true),
        (r#"{"kind":{"kind":"user"},"key":["u1"]}"#.to_owned(), true),
        (r#"{"kind":"user","key":{"key":"u1"}}"#.to_owned(), true),
        (r#"{"kind":"multi","user":[],"organization":7}"#.to_owned(), true),
        (r#"{"__proto__":{"plan":"pro"},"constructor":1}"#.to_owned(), true),
        (r#"{"kind":"user","custom":{"kind":1,"custom":{"custom":2}}}"#.to_owned(), true),
        (format!(r#"{{"kind":"user","key":"{}"}}"#, "k".repeat(1_000_000)), true),
        (format!(r#"{{"kind":"user","key":"u1","list":"[{}]"}}"#, "a,".repeat(100_000)), true),
        (String::new(), false),
        ("{".to_owned(), false),
        (r#"{"a":1}{"#.to_owned(), false),
    ];
    let flag = json!({"key": "f", "type": "boolean", "default_value": false, "rollouts": {"o1": {"strategy": "percentage",
        "percentage": 50, "salt": "s"}}});
    for (json, is_readable) in table {
        let context = Context::from_json(json.as_bytes());
        assert_eq!(context.is_ok(), *is_readable, "{}: {context:?}", &json[..json.len().min(80)]);
        if let Ok(context) = context {
            decide_checked(std::slice::from_ref(&flag), &Map::new(), &context, 0);
        }
    }
}

#[test]
fn contexts_that_are_no_objects_are_refused() {
    for json in ["[]", "\"user\"", "7", "true"] {
        assert_eq!(Context::from_json(json.as_bytes()).map(drop), Err(ContextError::NotAnObject), "{json}");
    }
    assert_eq!(Context::from_json(b"null").map(|context| context.members().len()), Ok(0));
}

/// Looking up many names in a context of many members must not take a time that grows with their product.
#[test]
fn a_context_of_very_many_members_is_decided() {
    let members = (0..50_000).map(|n| (format!("Name{n}"), json!(n)));
    let customs: Map<String, Value> = (0..20_000).map(|n| (format!("Custom{n}"), json!(n))).collect();
    let groups = json!({"user": {"custom": customs}, "organization": {"custom": customs}, "custom": customs});
    let members = groups.as_object().cloned().expect("an object").into_iter().chain(members).collect();
    let context = Context::from_members(members);
    assert_eq!(context.attributes().len(), 70_000);
    let rule = |n: usize| {
        json!({"id": format!("r{n}"), "kind": "custom", "variation_id": "v1",
            "conditions": [{"attribute": format!("name{n}"), "operator": "eq", "value": "none"}]})
    };
    let rules: Vec<Value> = (0..2_000).map(rule).collect();
    let flag = json!({"key": "f", "type": "boolean", "default_value": true, "targeting_rules": rules});
    let CheckedDecisions { environment, decisions } = decide_checked(&[flag], &Map::new(), &context, 0);
    assert_eq!(environment.outcome(decisions[0].outcome).exit, Exit::NoMatch);
}

#[test]
fn unreadable_flags_serve_their_fallback() {
    let table = [
        (json!({"key": "f", "type": "number", "default_value": "7", "targeting_rules": "r"}), json!(7)),
        (json!({"key": "f", "type": "string", "default_value": "x", "targeting_rules": [1]}), json!("x")),
        (json!({"key": "f", "type": "json", "default_value": {"a": 1}, "variations": {}}), json!({"a": 1})),
        (json!({"key": "f", "type": "boolean", "default_value": true, "rollouts": []}), json!(true)),
        (json!({"key": "f", "type": "colour", "default_value": "red"}), json!("red")),
        (json!({"key": "f"}), Value::Null),
        (json!(["f"]), Value::Null),
    ];
    for (flag, expected) in table {
        let CheckedDecisions { environment, decisions } =
            decide_checked(std::slice::from_ref(&flag), &Map::new(), &Context::empty(), 0);
        let outcome = environment.outcome(decisions[0].outcome);
        assert_eq!((&outcome.value, outcome.exit), (&expected, Exit::Exception), "{flag}");
        assert_eq!(outcome.error_code, Some(ErrorCode::ParseError), "{flag}");
    }
}

#[test]
fn identities_of_contexts() {
    let table = [
        (json!({"kind": "user", "key": "u1"}), Some("u1"), None),
        (json!({"kind": "organization", "key": "o1", "custom": {"source": "SDK"}}), None, Some("SDK")),
        (json!({"kind": "multi", "user": {"key": "u1"}, "key": "x", "custom": {"source": 1}}), Some("u1"), None),
        (json!({"userKey": "u1", "key": "u2", "custom": "SDK"}), Some("u1"), None),
        (json!({"kind": "user", "key": 7}), None, None),
        (json!({}), None, None),
    ];
    for (context, user_key, source) in table {
        let read = Context::from_value(context.clone()).expect("an object");
        assert_eq!((read.user_key(), read.source()), (user_key, source), "{context}");
    }
}

#[test]
fn the_next_step_of_a_gradual_rollout_is_when_its_share_changes() {
    let flag = |interval_hours: f64| {
        json!({"key": "f", "type": "boolean", "default_value": false, "rollouts": {"o1": {"strategy": "gradual",
            "target_percentage": 100, "increment": 10, "interval_hours": interval_hours, "salt": "s", "start_at": "1970-01-02T00:00:00Z"}}})
    };
    for interval_hours in [6.0, 0.1, 1.0 / 3.0, 7.7] {
        let environment = CompiledEnvironment::compile(&[flag(interval_hours)], &Map::new());
        let (mut now_us, mut steps) = (0, 0);
        while let Some(step_us) = environment.next_gradual_step_us(now_us) {
            let interval_us = interval_hours * 3_600_000_000.0;
            let expected_us = 86_400_000_000.0 + f64::from(steps) * interval_us;
            assert!((step_us as f64 - expected_us).abs() <= 1000.0, "{step_us} is not {expected_us}");
            (now_us, steps) = (step_us, steps + 1);
        }
        assert_eq!(steps, 10, "every {interval_hours} h");
    }
}
