//! launchdarkly-server-sdk-evaluation: a function over a borrowed flag. Its `Store` would have to return an owned one, as the
//! vendor's SDK does at twice the cost; here the flag is borrowed from a map.

use std::collections::HashMap;
use std::hint::black_box;

use launchdarkly_server_sdk_evaluation::{
    AttributeValue, Context, ContextBuilder, Detail, Flag, FlagValue, Segment, Store, evaluate,
};
use serde_json::{Value, json};

use crate::case::{Case, rotate};
use crate::scenario::{self, Scenario, Targeting};
use crate::users::User;

struct Flags(HashMap<String, Flag>);

impl Store for Flags {
    fn flag(&self, key: &str) -> Option<Flag> {
        self.0.get(key).cloned()
    }

    fn segment(&self, _key: &str) -> Option<Segment> {
        None
    }
}

pub fn case(scenario: &Scenario, users: &[User]) -> Case {
    let keys = scenario.keys();
    let store = Flags(scenario.flags.iter().map(|flag| (flag.key.clone(), self::flag(flag))).collect());
    let decide = move |context: &mut Context| {
        let on = |key: &&String| {
            let flag = store.0.get(black_box(key.as_str())).expect("the flag is in the store");
            is_on(&black_box(evaluate(&store, flag, context, None)))
        };
        keys.iter().filter(on).count()
    };
    Case {
        engine: "launchdarkly-server-sdk-evaluation 2.2.1",
        entry: "`evaluate`, flag borrowed",
        carries: "value, variation index, reason (rule index and id)",
        run: rotate(users.iter().map(context).collect(), decide),
    }
}

fn is_on(detail: &Detail<&FlagValue>) -> bool {
    detail.value.and_then(FlagValue::as_bool).expect("a boolean flag without errors")
}

fn flag(flag: &scenario::Flag) -> Flag {
    let (rules, fallthrough) = match &flag.targeting {
        None => (json!([]), json!({"variation": 0})),
        Some(targeting) => (rules(targeting), rollout()),
    };
    let flag = json!({
        "key": flag.key,
        "version": 1,
        "on": true,
        "targets": [],
        "prerequisites": [],
        "rules": rules,
        "fallthrough": fallthrough,
        "offVariation": 1,
        "variations": [true, false],
        "salt": "4f1c2a9e7d3b4c5f8a6e0d1b2c3a4f5e",
        "clientSideAvailability": {"usingMobileKey": false, "usingEnvironmentId": false},
    });
    serde_json::from_value(flag).expect("a valid flag")
}

fn rules(targeting: &Targeting) -> Value {
    let country = clause("country", "in", json!(targeting.countries));
    let plan = clause("plan", "in", json!([targeting.plan]));
    let age = clause("age", "greaterThan", json!([targeting.age]));
    let email = clause("email", "endsWith", json!([targeting.email_suffix]));
    json!([
        rule("0d6c1f52-3d0f-4c37-9a52-7a1f7f5a6f10", json!([country])),
        rule("5b1f8e0a-94c6-4e0b-8d4d-1c6e3d2b7a21", json!([plan, age])),
        rule("c2a7d9e4-6b3f-4f18-b0c5-8e9f1a2d3c32", json!([email])),
    ])
}

fn rule(id: &str, clauses: Value) -> Value {
    json!({"id": id, "variation": 0, "clauses": clauses, "trackEvents": false})
}

fn clause(attribute: &str, op: &str, values: Value) -> Value {
    json!({"contextKind": "user", "attribute": attribute, "op": op, "values": values, "negate": false})
}

fn rollout() -> Value {
    let half = |variation| json!({"variation": variation, "weight": 50_000});
    json!({"rollout": {"contextKind": "user", "variations": [half(0), half(1)]}})
}

fn context(user: &User) -> Context {
    let mut builder = ContextBuilder::new(user.key.clone());
    builder.set_string("country", user.country.clone());
    builder.set_string("plan", user.plan.clone());
    builder.set_value("age", AttributeValue::Number(user.age));
    builder.set_string("email", user.email.clone());
    builder.set_string("device", user.device.clone());
    builder.set_value("seats", AttributeValue::Number(f64::from(user.seats)));
    builder.build().expect("a valid context")
}
