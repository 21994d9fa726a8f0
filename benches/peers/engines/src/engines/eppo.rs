//! eppo_core: rules are allocations, tried in order; the rollout is two splits over MD5 shards, salted ahead of time. There is no
//! suffix operator, so the email is matched by a regular expression, which is compiled on load.

use std::hint::black_box;
use std::sync::Arc;

use chrono::DateTime;
use eppo_core::eval::get_assignment;
use eppo_core::ufc::{AssignmentValue, UniversalFlagConfig, VariationType};
use eppo_core::{AttributeValue, Attributes, Configuration, SdkMetadata, Str};
use serde_json::{Map, Value, json};

use crate::case::{Case, rotate};
use crate::scenario::{Flag, Scenario, Targeting};
use crate::users::User;

const SDK: SdkMetadata = SdkMetadata { name: "bench", version: "0" };

type Subject = (Str, Arc<Attributes>);

pub fn case(scenario: &Scenario, users: &[User]) -> Case {
    let keys = scenario.keys();
    let config = configuration(scenario);
    let decide = move |(subject, attributes): &mut Subject| {
        let on = |key: &&String| {
            let boolean = Some(VariationType::Boolean);
            let now = DateTime::UNIX_EPOCH;
            let result = get_assignment(Some(&config), black_box(key), subject, attributes, boolean, now);
            is_on(black_box(result).expect("no error").map(|it| it.value).as_ref())
        };
        keys.iter().filter(on).count()
    };
    Case {
        engine: "eppo_core 10.0.0",
        entry: "`get_assignment`, clock passed in",
        carries: "value and event (allocation, variation, time)",
        run: rotate(users.iter().map(subject).collect(), decide),
    }
}

fn is_on(value: Option<&AssignmentValue>) -> bool {
    value.and_then(AssignmentValue::as_boolean).expect("every subject falls into a split")
}

fn configuration(scenario: &Scenario) -> Configuration {
    let flags: Map<String, Value> = scenario.flags.iter().map(|flag| (flag.key.clone(), self::flag(flag))).collect();
    let config = json!({
        "createdAt": "2026-11-22T00:00:00Z",
        "format": "SERVER",
        "environment": {"name": "bench"},
        "flags": flags,
    });
    let config = UniversalFlagConfig::from_json(SDK, config.to_string().into_bytes()).expect("valid flags");
    Configuration::from_server_response(config, None)
}

fn flag(flag: &Flag) -> Value {
    let allocations = match &flag.targeting {
        None => json!([allocation("everyone", json!([]), json!([split("on", json!([]))]))]),
        Some(targeting) => allocations(&flag.key, targeting),
    };
    json!({
        "key": flag.key,
        "enabled": true,
        "variationType": "BOOLEAN",
        "variations": {"on": {"key": "on", "value": true}, "off": {"key": "off", "value": false}},
        "allocations": allocations,
        "totalShards": 10_000,
    })
}

fn allocations(key: &str, targeting: &Targeting) -> Value {
    let country = condition("country", "ONE_OF", json!(targeting.countries));
    let plan = condition("plan", "ONE_OF", json!([targeting.plan]));
    let age = condition("age", "GT", json!(targeting.age));
    let pattern = format!("{}$", targeting.email_suffix.replace('.', r"\."));
    let email = condition("email", "MATCHES", json!(pattern));
    let on = json!([split("on", json!([]))]);
    let salt = format!("{key}-split");
    let shard = |start: u32, end: u32| json!([{"salt": salt, "ranges": [{"start": start, "end": end}]}]);
    let halves = json!([split("on", shard(0, 5_000)), split("off", shard(5_000, 10_000))]);
    json!([
        allocation("country", json!([{"conditions": [country]}]), on.clone()),
        allocation("plan-and-age", json!([{"conditions": [plan, age]}]), on.clone()),
        allocation("email", json!([{"conditions": [email]}]), on),
        allocation("rollout", json!([]), halves),
    ])
}

fn allocation(key: &str, rules: Value, splits: Value) -> Value {
    json!({"key": key, "rules": rules, "splits": splits, "doLog": true})
}

fn split(variation: &str, shards: Value) -> Value {
    json!({"variationKey": variation, "shards": shards})
}

fn condition(attribute: &str, operator: &str, value: Value) -> Value {
    json!({"attribute": attribute, "operator": operator, "value": value})
}

fn subject(user: &User) -> Subject {
    let text = |value: &String| AttributeValue::categorical(value.as_str());
    let attributes = [
        ("country".into(), text(&user.country)),
        ("plan".into(), text(&user.plan)),
        ("age".into(), AttributeValue::numeric(user.age)),
        ("email".into(), text(&user.email)),
        ("device".into(), text(&user.device)),
        ("seats".into(), AttributeValue::numeric(f64::from(user.seats))),
    ];
    (Str::from(user.key.as_str()), Arc::new(attributes.into()))
}
