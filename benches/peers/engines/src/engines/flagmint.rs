//! Ours: one flag at a time by its key, and all flags at once, after which each result is looked up by its flag's key.

use std::hint::black_box;

use serde_json::{Map, Value, json};

use crate::case::{Case, rotate};
use crate::engine::{CompiledEnvironment, Context, Decision, Scratch};
use crate::scenario::{Flag, Scenario, Targeting};
use crate::users::User;

const ENGINE: &str = "flagmint";
const CARRIES: &str = "value, variation, reason, rule, rollout, bucket";

pub fn cases(scenario: &Scenario, users: &[User]) -> Vec<Case> {
    if scenario.flags.len() == 1 {
        return vec![one_by_one(scenario, users)];
    }
    vec![together(scenario, users), one_by_one(scenario, users)]
}

fn one_by_one(scenario: &Scenario, users: &[User]) -> Case {
    let keys = scenario.keys();
    let environment = environment(scenario);
    let decide = move |context: &mut Context| {
        let on = |key: &&String| {
            let flag = environment.flag_index(black_box(key)).expect("the flag is in the environment");
            is_on(&environment, black_box(environment.decide(flag, context, 0)))
        };
        keys.iter().filter(on).count()
    };
    Case { engine: ENGINE, entry: "`decide`", carries: CARRIES, run: rotate(contexts(users), decide) }
}

fn together(scenario: &Scenario, users: &[User]) -> Case {
    let keys = scenario.keys();
    let environment = environment(scenario);
    let mut scratch = Scratch::default();
    let decide = move |context: &mut Context| {
        let decisions = black_box(environment.decide_all(context, 0, &mut scratch));
        let on = |key: &&String| {
            let flag = environment.flag_index(black_box(key)).expect("the flag is in the environment");
            is_on(&environment, decisions[flag])
        };
        keys.iter().filter(on).count()
    };
    Case { engine: ENGINE, entry: "`decide_all`", carries: CARRIES, run: rotate(contexts(users), decide) }
}

fn is_on(environment: &CompiledEnvironment, decision: Decision) -> bool {
    environment.outcome(decision.outcome).value == Value::Bool(true)
}

fn environment(scenario: &Scenario) -> CompiledEnvironment {
    let flags: Vec<Value> = scenario.flags.iter().map(flag).collect();
    CompiledEnvironment::compile(&flags, &Map::new())
}

fn flag(flag: &Flag) -> Value {
    let (rules, rollouts) = flag.targeting.as_ref().map_or((json!([]), json!({})), |targeting| {
        (
            rules(targeting),
            json!({"split": {"strategy": "percentage", "percentage": 50, "salt": format!("{}-split", flag.key)}}),
        )
    });
    json!({
        "key": flag.key,
        "type": "boolean",
        "is_active": true,
        "default_value": false,
        "variations": [{"id": "on", "value": true}, {"id": "off", "value": false}],
        "targeting_rules": rules,
        "rollouts": rollouts,
        "analytics_enabled": true,
    })
}

/// Once a flag has rules, a rollout applies only through a rule: the last one, which everybody matches.
fn rules(targeting: &Targeting) -> Value {
    let condition = |attribute: &str, operator: &str, value: Value| json!({"attribute": attribute, "operator": operator, "value": value});
    let custom = |id: &str, order: u32, conditions: Value| json!({"id": id, "kind": "custom", "order_index": order, "logical_op": "AND", "conditions": conditions, "variation_id": "on"});
    let country = condition("country", "in", json!(targeting.countries));
    let plan = condition("plan", "eq", json!(targeting.plan));
    let age = condition("age", "gt", json!(targeting.age));
    let email = condition("email", "endsWith", json!(targeting.email_suffix));
    let mut everybody = custom("everybody", 3, json!([condition("key", "exists", Value::Null)]));
    everybody["variation_id"] = Value::Null;
    everybody["rollout_id"] = json!("split");
    json!([
        custom("country", 0, json!([country])),
        custom("plan-and-age", 1, json!([plan, age])),
        custom("email", 2, json!([email])),
        everybody,
    ])
}

fn contexts(users: &[User]) -> Vec<Context> {
    let context = |user: &User| {
        let context = json!({
            "kind": "user",
            "key": user.key,
            "country": user.country,
            "plan": user.plan,
            "age": user.age,
            "email": user.email,
            "device": user.device,
            "seats": user.seats,
        });
        Context::from_json(context.to_string().as_bytes()).expect("a valid context")
    };
    users.iter().map(context).collect()
}
