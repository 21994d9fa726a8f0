//! unleash-yggdrasil: rules are strategies joined by "or", compiled to closures; properties are strings, so the age is parsed at
//! every evaluation. Rules are "default" strategies; written as gradual rollouts to 100 % they would cost twice as much.

use std::hint::black_box;

use serde_json::{Value, json};
use unleash_yggdrasil::{ClientFeatures, Context, EngineState};

use crate::case::{Case, rotate};
use crate::scenario::{Flag, Scenario};
use crate::users::User;

pub fn case(scenario: &Scenario, users: &[User]) -> Case {
    let keys = scenario.keys();
    let engine = engine(scenario);
    let decide = move |context: &mut Context| {
        let on = |key: &&String| black_box(engine.is_enabled(black_box(key), context, &None));
        keys.iter().filter(on).count()
    };
    Case {
        engine: "unleash-yggdrasil 0.21.7",
        entry: "`EngineState::is_enabled`",
        carries: "on or off only",
        run: rotate(users.iter().map(context).collect(), decide),
    }
}

fn engine(scenario: &Scenario) -> EngineState {
    let feature = |flag: &Flag| json!({"name": flag.key, "enabled": true, "strategies": strategies(flag)});
    let features: Vec<Value> = scenario.flags.iter().map(feature).collect();
    let state: ClientFeatures =
        serde_json::from_value(json!({"version": 2, "features": features})).expect("valid features");
    let engine = EngineState::default();
    assert!(engine.apply_client_features(state).is_none(), "every toggle must compile");
    engine
}

fn strategies(flag: &Flag) -> Value {
    let Some(targeting) = &flag.targeting else { return json!([]) };
    let constraint = |name: &str, operator: &str, values: Value| json!({"contextName": name, "operator": operator, "values": values});
    let country = constraint("country", "IN", json!(targeting.countries));
    let plan = constraint("plan", "IN", json!([targeting.plan]));
    let age = json!({"contextName": "age", "operator": "NUM_GT", "value": targeting.age.to_string()});
    let email = constraint("email", "STR_ENDS_WITH", json!([targeting.email_suffix]));
    let rule = |constraints: Value| json!({"name": "default", "variants": [], "constraints": constraints});
    let rollout = json!({
        "name": "flexibleRollout",
        "parameters": {"rollout": "50", "stickiness": "userId", "groupId": flag.key},
        "variants": [],
    });
    json!([rule(json!([country])), rule(json!([plan, age])), rule(json!([email])), rollout])
}

fn context(user: &User) -> Context {
    let properties = [
        ("country", user.country.clone()),
        ("plan", user.plan.clone()),
        ("age", user.age.to_string()),
        ("email", user.email.clone()),
        ("device", user.device.clone()),
        ("seats", user.seats.to_string()),
    ];
    Context {
        user_id: Some(user.key.clone()),
        properties: Some(properties.map(|(name, value)| (name.to_owned(), value)).into()),
        ..Context::default()
    }
}
