//! ROL-1 and ROL-2.

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Api, ids, text};

#[tokio::test]
async fn every_strategy_is_stored_as_it_is_compiled() {
    let mut api = Api::start().await;
    let sample = api.sample("boolean").await;
    api.metered();
    let variants = json!([{"variation_id": sample.variations[0], "weight": 40},
        {"variation_id": sample.variations[1], "weight": 60}]);
    let bodies = [
        json!({"strategy": "off"}),
        json!({"strategy": "percentage", "percentage": 17.5, "salt": "s"}),
        json!({"strategy": "variant", "salt": "s", "variants": variants}),
        json!({"strategy": "gradual", "target_percentage": 100, "increment": 10, "interval_hours": 6, "salt": "s",
            "start_at": "2026-01-01T00:00:00.000Z"}),
    ];
    let mut made = Vec::new();
    for (index, body) in (3_i64..).zip(&bodies) {
        let rollout = api.made(&sample.rollouts(), body.clone()).await;
        assert_eq!(rollout["config"].to_string(), body.to_string());
        assert_eq!(rollout["strategy"], body["strategy"]);
        assert_eq!(api.version(&sample.live).await, index);
        made.push(text(&rollout["id"]));
    }
    assert_eq!(ids(&api.got(&sample.rollouts()).await), made);
    let (_, compiled) = api.snapshot(&sample.live).await;
    let rollouts = compiled["flags"][0]["rollouts"].as_object().unwrap();
    assert_eq!(rollouts.keys().collect::<Vec<_>>(), made.iter().collect::<Vec<_>>());
    assert_eq!(rollouts.values().collect::<Vec<_>>(), bodies.iter().collect::<Vec<_>>());
    assert_eq!(api.version(&sample.staging).await, 2);
    assert_eq!(api.audited("rollout.created").await, 4);
    assert_eq!(api.metered().len(), 4);
}

#[tokio::test]
async fn order_is_by_age_then_id() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    for _ in 0..5 {
        api.made(&sample.rollouts(), json!({"strategy": "off"})).await;
    }
    api.run("UPDATE rollouts SET created_at = '2026-01-01T00:00:00Z'").await;
    let last = api.made(&sample.rollouts(), json!({"strategy": "off"})).await;
    let (_, compiled) = api.snapshot(&sample.live).await;
    let keys: Vec<String> = compiled["flags"][0]["rollouts"].as_object().unwrap().keys().cloned().collect();
    let mut sorted = keys[..5].to_vec();
    sorted.sort();
    assert_eq!(keys[..5], sorted);
    assert_eq!(keys[5], text(&last["id"]));
}

#[tokio::test]
async fn validation_and_roles() {
    let api = Api::start().await;
    let [sample, strings] = [api.sample("boolean").await, api.sample("string").await];
    for (body, paths) in [
        (json!({}), vec!["strategy"]),
        (json!({"strategy": "percentage", "percentage": "50"}), vec!["percentage"]),
        (json!({"strategy": "percentage", "percentage": 101}), vec!["percentage"]),
        (
            json!({"strategy": "variant", "variants": [{"variation_id": "x", "weight": 1}]}),
            vec!["variants[0].variation_id"],
        ),
        (
            json!({"strategy": "variant", "variants": [{"variation_id": Uuid::now_v7(), "weight": 100}]}),
            vec!["variants[0].variation_id"],
        ),
        (json!({"strategy": "gradual", "target_percentage": 1, "increment": 1}), vec!["interval_hours"]),
    ] {
        assert_eq!(api.refused(Method::POST, &sample.rollouts(), &body).await, paths, "{body}");
    }
    let body = json!({"strategy": "percentage", "percentage": 50});
    assert_eq!(api.refused(Method::POST, &strings.rollouts(), &body).await, ["strategy"]);
    let viewer = api.member(api.organization, "viewer").await;
    assert_eq!(api.send(Method::POST, &viewer, &sample.rollouts(), Some(&body)).await.0, 403);
    assert_eq!(api.send(Method::GET, &viewer, &sample.rollouts(), None).await.0, 200);
    assert_eq!(api.version(&sample.live).await, 2);
}
