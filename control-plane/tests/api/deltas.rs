//! Deltas: one per publish, without gaps, and a client that applies them has what the snapshot has.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Sample, text};

/// What a client of config-sync holds.
#[derive(Debug, Default, PartialEq)]
struct Held {
    version: i64,
    flags: BTreeMap<String, Value>,
    segments: BTreeMap<String, Value>,
}

impl Held {
    fn of(compiled: &Value) -> Self {
        let mut held = Self { version: compiled["version"].as_i64().unwrap(), ..Self::default() };
        held.put(&compiled["flags"], &compiled["segments"]);
        held
    }

    fn put(&mut self, flags: &Value, segments: &Value) {
        for flag in flags.as_array().unwrap() {
            self.flags.insert(text(&flag["key"]), flag.clone());
        }
        for (id, segment) in segments.as_object().unwrap() {
            self.segments.insert(id.clone(), segment.clone());
        }
    }

    fn apply(&mut self, version: i64, delta: &Value) {
        assert_eq!(version, self.version + 1, "a gap");
        self.version = version;
        for key in delta["deletes"].as_array().unwrap() {
            assert!(self.flags.remove(key.as_str().unwrap()).is_some(), "{key} was never sent");
        }
        self.put(&delta["upserts"], &delta["segments"]);
    }
}

/// What a row of `environment_deltas` says.
async fn deltas(api: &Api, environment: &str, after: i64) -> Vec<(i64, Value)> {
    let sql = "SELECT COALESCE(json_agg(json_build_array(version, delta) ORDER BY version), '[]')::text FROM environment_deltas";
    let rows: String = api.one(&format!("{sql} WHERE environment_id = '{environment}' AND version > {after}")).await;
    let rows: Vec<(i64, String)> = serde_json::from_str(&rows).unwrap();
    rows.into_iter().map(|(version, delta)| (version, serde_json::from_str(&delta).unwrap())).collect()
}

/// One random change of what Live evaluates.
async fn change(api: &Api, sample: &Sample, random: &mut StdRng, step: usize) {
    let conditions = json!([{"attribute": "a", "operator": "eq", "value": random.random_range(0..9)}]);
    match random.random_range(0..7) {
        0 => {
            let body = json!({"name": format!("flag {step}"), "type": "json"});
            api.made(&format!("/projects/{}/flags", sample.project), body).await;
        }
        1 => {
            let body = json!({"kind": "custom", "conditions": conditions, "variation_id": sample.variations[0]});
            api.made(&sample.rules(), body).await;
        }
        2 => {
            let rules = json!([{"type": "rule", "attribute": "b", "operator": "exists"}]);
            let body = json!({"name": format!("segment {step}"), "rules": rules, "logical_op": "AND"});
            let segment = api.made(&sample.segments(), body).await;
            let body = json!({"kind": "segment", "segment_id": segment["id"], "variation_id": sample.variations[1]});
            api.made(&sample.rules(), body).await;
        }
        3 => {
            api.made(&sample.rollouts(), json!({"strategy": "percentage", "percentage": 0.5 * step as f64})).await;
        }
        // What only SQL can do yet; the next publish compiles it with what it changes itself.
        4 => api.run("UPDATE flags SET archived_at = now() WHERE key LIKE 'flag-%' AND archived_at IS NULL").await,
        5 => {
            let sql =
                "UPDATE targeting_rules SET deleted_at = now() WHERE segment_id IS NOT NULL AND deleted_at IS NULL";
            api.run(sql).await;
        }
        _ => api.run(&format!("UPDATE segments SET logical_op = 'OR', force = {}", random.random::<bool>())).await,
    }
}

#[tokio::test]
async fn any_sequence_of_publishes_through_deltas_is_the_full_configuration() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let mut held = Held::of(&api.snapshot(&sample.live).await.1);
    let mut behind = Held::default();
    for step in 0..60 {
        change(&api, &sample, &mut random, step).await;
        if step == 20 {
            behind = Held::of(&api.snapshot(&sample.live).await.1);
        }
        for (version, delta) in deltas(&api, &sample.live, held.version).await {
            held.apply(version, &delta);
        }
        let full = Held::of(&api.snapshot(&sample.live).await.1);
        assert_eq!((held.version, &held.flags), (full.version, &full.flags), "step {step}");
        for (id, segment) in &full.segments {
            assert_eq!(held.segments.get(id), Some(segment), "step {step}");
        }
    }
    // All at once, as a client that was away.
    for (version, delta) in deltas(&api, &sample.live, behind.version).await {
        behind.apply(version, &delta);
    }
    assert_eq!((behind.version, &behind.flags), (held.version, &held.flags));
    assert!(held.version > 20, "too few publishes: {}", held.version);
}

#[tokio::test]
async fn deltas_are_kept_for_a_thousand_versions_or_seven_days() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let rollouts = sample.rollouts();
    let publish = || api.made(&rollouts, json!({"strategy": "off"}));
    let kept = || async { deltas(&api, &sample.live, 0).await.iter().map(|(version, _)| *version).collect::<Vec<_>>() };
    assert_eq!(kept().await, [2], "the flag itself");
    publish().await;
    publish().await;
    assert_eq!(kept().await, [2, 3, 4]);
    api.run("UPDATE environment_deltas SET created_at = now() - interval '8 days' WHERE version < 4").await;
    publish().await;
    assert_eq!(kept().await, [4, 5]);
    // A thousand publishes later.
    let compiled = "replace(compiled, '\"version\":5,', '\"version\":1003,')";
    api.run(&format!("UPDATE environment_snapshots SET version = 1003, compiled = {compiled} WHERE version = 5")).await;
    publish().await;
    assert_eq!(kept().await, [5, 1004]);
    assert_eq!(deltas(&api, &sample.staging, 0).await.len(), 1, "others are not touched");
}

#[tokio::test]
async fn what_changes_nothing_makes_no_delta_and_what_fails_neither() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let rule = json!({"kind": "custom", "conditions": [], "variation_id": sample.variations[0]});
    assert_eq!(api.send(Method::POST, &api.token, &sample.rules(), Some(&rule)).await.0, 400);
    let segment = json!({"name": "unused", "rules": [{"type": "rule", "attribute": "b", "operator": "exists"}], "logical_op": "AND"});
    api.made(&sample.segments(), segment).await;
    assert_eq!(deltas(&api, &sample.live, 2).await, []);
}
