//! The flags of the sample project: every type and every strategy, as a newcomer would set them up.

use serde_json::{Value, json};

/// One flag to make through the management API.
pub struct SampleFlag {
    /// Its key.
    pub key: String,
    /// The body of its creation.
    pub creation: Value,
    /// Values of its two variations, in place of the seeded ones.
    pub values: Option<[Value; 2]>,
    /// Its rollout in the default environment; `"A"` and `"B"` stand for the variations' ids.
    pub rollout: Option<Value>,
    /// Its rule in the default environment; `"A"`, `"B"`, `"segment"` and `"rollout"` stand for ids.
    pub rule: Option<Value>,
}

fn flag(key: &str, flag_type: &str) -> SampleFlag {
    let words = key.replace('-', " ");
    let creation = json!({ "name": words, "key": key, "type": flag_type, "analytics_enabled": true });
    SampleFlag { key: key.to_owned(), creation, values: None, rollout: None, rule: None }
}

impl SampleFlag {
    fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.creation[member] = value.into();
        self
    }

    fn values(mut self, a: impl Into<Value>, b: impl Into<Value>) -> Self {
        self.values = Some([a.into(), b.into()]);
        self
    }

    fn rollout(mut self, rollout: Value) -> Self {
        self.rollout = Some(rollout);
        self
    }

    fn rule(mut self, rule: Value) -> Self {
        self.rule = Some(rule);
        self
    }
}

fn split(a: u32) -> Value {
    json!({ "strategy": "variant", "variants": [{ "variation_id": "A", "weight": a }, { "variation_id": "B", "weight": 100 - a }] })
}

fn custom(attribute: &str, operator: &str, value: impl Into<Value>, result: Value) -> Value {
    let condition = json!({ "attribute": attribute, "operator": operator, "value": value.into(), "logical_op": "AND" });
    let mut rule = json!({ "kind": "custom", "name": format!("{attribute} {operator}"), "conditions": [condition] });
    rule.as_object_mut().expect("made as one").extend(result.as_object().expect("made as one").clone());
    rule
}

/// The segment that `beta-program` uses.
pub fn segment() -> Value {
    let rule = |attribute: &str, operator: &str, value: Value| json!({ "type": "rule", "attribute": attribute, "operator": operator, "value": value });
    json!({
        "name": "European professionals", "key": "european-professionals", "logical_op": "AND",
        "rules": [rule("country", "in", json!(["IE", "DE", "FR"])), rule("plan", "eq", json!("pro"))],
    })
}

/// The first `count` flags: twelve different ones, then plain half-and-half ones.
pub fn flags(count: u32) -> Vec<SampleFlag> {
    let extra = (13..=count).map(|number| {
        flag(&format!("extra-{number}"), "boolean").rollout(json!({ "strategy": "percentage", "percentage": 50 }))
    });
    twelve().into_iter().chain(extra).take(count as usize).collect()
}

fn twelve() -> Vec<SampleFlag> {
    vec![
        flag("new-checkout", "boolean").rollout(json!({ "strategy": "percentage", "percentage": 30 })),
        flag("button-color", "string").values("green", "blue").rollout(split(50)),
        flag("dark-mode", "boolean"),
        flag("search-v2", "boolean")
            .rollout(json!({ "strategy": "gradual", "target_percentage": 50, "increment": 10, "interval_hours": 24 })),
        flag("beta-program", "boolean").rule(json!({
            "kind": "segment", "name": "European professionals", "segment_id": "segment", "variation_id": "A",
        })),
        flag("page-size", "number").values(20, 50).rollout(split(80)),
        flag("banner-text", "string").values("Welcome", "Welcome, colleague").rule(custom(
            "email",
            "endsWith",
            "@corp.example",
            json!({ "variation_id": "B" }),
        )),
        flag("pricing", "json")
            .values(json!({ "monthly": 29, "currency": "EUR" }), json!({ "monthly": 25, "currency": "EUR" }))
            .rollout(split(90))
            .rule(custom("plan", "neq", "enterprise", json!({ "rollout_id": "rollout" }))),
        flag("payments", "boolean").with("template", "kill_switch"),
        flag("max-uploads", "number").values(5, 100).rule(custom("age", "gt", 65, json!({ "variation_id": "B" }))),
        flag("support-chat", "boolean").with("is_active", false),
        flag("legacy-export", "boolean").rollout(json!({ "strategy": "off" })),
    ]
}
