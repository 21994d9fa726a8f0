//! RUL-1 and RUL-2.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Api, ids, text};

#[tokio::test]
async fn a_custom_rule() {
    let mut api = Api::start().await;
    let sample = api.sample("boolean").await;
    api.metered();
    let body = json!({"kind": "custom", "name": "Irish", "variation_id": sample.variations[0], "logical_op": "or",
        "serve": {"ignored": true}, "conditions": [
            {"attribute": "country", "operator": "in", "value": ["IE", "UK"], "logical_op": "AND"},
            {"attribute": "plan", "operator": "exists"}]});
    let rule = api.made(&sample.rules(), body).await;
    assert_eq!(rule["logical_op"], json!("OR"));
    assert_eq!(rule["order_index"], json!(0));
    let expected = json!([{"attribute": "country", "operator": "in", "value": ["IE", "UK"], "logical_op": "AND"},
        {"attribute": "plan", "operator": "exists", "logical_op": "AND"}]);
    assert_eq!(rule["conditions"], expected);
    let members =
        ["segment", "segment_name", "segment_description", "segment_rules", "segment_logical_op", "segment_key"];
    for member in members {
        assert_eq!(rule.get(member), Some(&Value::Null), "{member}");
    }
    assert_eq!(api.got(&sample.rules()).await, json!([rule]));
    let (version, compiled) = api.snapshot(&sample.live).await;
    assert_eq!(version, 3);
    assert_eq!(
        compiled["flags"][0]["targeting_rules"],
        json!([{"id": rule["id"], "kind": "custom", "order_index": 0,
        "segment_id": null, "conditions": [{"attribute": "country", "operator": "in", "value": ["IE", "UK"]},
        {"attribute": "plan", "operator": "exists"}], "logical_op": "OR", "variation_id": sample.variations[0],
        "rollout_id": null}])
    );
    assert_eq!(api.version(&sample.staging).await, 2);
    assert_eq!(api.audited("targeting_rule.created").await, 1);
    let metered = api.metered();
    assert_eq!(metered.len(), 1);
    assert_eq!(metered[0].environment_id.map(|id| id.to_string()), Some(sample.live.clone()));
}

#[tokio::test]
async fn a_segment_rule_brings_its_segment_into_the_environment() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let rules = json!([{"type": "rule", "attribute": "email", "operator": "endsWith", "value": "@example.com"}]);
    let body = json!({"name": "Staff", "logical_op": "not", "rules": rules, "force": true, "description": "d"});
    let segment = api.made(&sample.segments(), body).await;
    assert_eq!(api.snapshot(&sample.live).await.1["segments"], json!({}));
    let rollout = api.made(&sample.rollouts(), json!({"strategy": "percentage", "percentage": 50})).await;
    let body = json!({"kind": "segment", "segment_id": segment["id"], "rollout_id": rollout["id"], "conditions": []});
    let rule = api.made(&sample.rules(), body).await;
    assert_eq!(rule["segment"], segment);
    for member in ["name", "description", "rules", "logical_op", "key"] {
        assert_eq!(rule[format!("segment_{member}")], segment[member], "{member}");
    }
    let (version, compiled) = api.snapshot(&sample.live).await;
    assert_eq!(version, 4);
    let id = text(&segment["id"]);
    assert_eq!(
        compiled["segments"],
        json!({id.clone(): {"id": id, "logical_op": "NOT", "force": true,
        "rules": [{"attribute": "email", "operator": "endsWith", "value": "@example.com"}]}})
    );
    assert_eq!(api.snapshot(&sample.staging).await.1["segments"], json!({}));
    let row = api.got(&format!("/projects/{}/environments/{}/flags", sample.project, sample.live)).await;
    assert_eq!(row["data"][0]["flag_value"]["segments_count"], json!(1));
    assert_eq!(row["data"][0]["flag_value"]["targeting_rules_count"], json!(1));
}

#[tokio::test]
async fn rules_run_by_order_then_age() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let mut made = Vec::new();
    for order_index in [5, 0, 5, -1] {
        let body = json!({"kind": "custom", "conditions": [{"attribute": "a", "operator": "exists"}],
            "variation_id": sample.variations[0], "order_index": order_index});
        made.push(text(&api.made(&sample.rules(), body).await["id"]));
    }
    let expected: Vec<String> = [3, 1, 0, 2].map(|index: usize| made[index].clone()).to_vec();
    assert_eq!(ids(&api.got(&sample.rules()).await), expected);
    let (version, compiled) = api.snapshot(&sample.live).await;
    assert_eq!((version, ids(&compiled["flags"][0]["targeting_rules"])), (6, expected));
}

#[tokio::test]
async fn validation() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let (variation, other) = (&sample.variations[0], Uuid::now_v7());
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    for (body, paths) in [
        (json!({}), vec!["kind"]),
        (json!({"kind": "all", "variation_id": variation}), vec!["kind"]),
        (json!({"kind": "segment", "variation_id": variation}), vec!["segment_id"]),
        (
            json!({"kind": "segment", "segment_id": other, "conditions": conditions, "variation_id": variation}),
            vec!["conditions"],
        ),
        (json!({"kind": "custom", "variation_id": variation}), vec!["conditions"]),
        (json!({"kind": "custom", "conditions": [], "variation_id": variation}), vec!["conditions"]),
        (
            json!({"kind": "custom", "conditions": conditions, "segment_id": other, "variation_id": variation}),
            vec!["segment_id"],
        ),
        (json!({"kind": "custom", "conditions": conditions}), vec!["variation_id"]),
        (
            json!({"kind": "custom", "conditions": conditions, "variation_id": variation, "rollout_id": other}),
            vec!["variation_id"],
        ),
        (
            json!({"kind": "custom", "conditions": [{"attribute": "a", "operator": "gte", "value": 1}],
                "variation_id": variation}),
            vec!["conditions[0].operator"],
        ),
        (
            json!({"kind": "custom", "conditions": [{"operator": "eq"}], "variation_id": variation}),
            vec!["conditions[0].attribute"],
        ),
        (
            json!({"kind": "custom", "conditions": conditions, "variation_id": variation, "logical_op": "XOR",
                "name": ""}),
            vec!["name", "logical_op"],
        ),
        (
            json!({"kind": "custom", "conditions": conditions, "variation_id": variation, "order_index": 1.5}),
            vec!["order_index"],
        ),
    ] {
        assert_eq!(api.refused(Method::POST, &sample.rules(), &body).await, paths, "{body}");
    }
    assert_eq!(api.version(&sample.live).await, 2);
    let viewer = api.member(api.organization, "viewer").await;
    let body = json!({"kind": "custom", "conditions": conditions, "variation_id": variation});
    assert_eq!(api.send(Method::POST, &viewer, &sample.rules(), Some(&body)).await.0, 403);
    assert_eq!(api.send(Method::GET, &viewer, &sample.rules(), None).await.0, 200);
}

#[tokio::test]
async fn what_a_rule_names_must_be_of_its_flag_environment_and_project() {
    let api = Api::start().await;
    let [sample, other] = [api.sample("boolean").await, api.sample("boolean").await];
    let segment = json!({"name": "s", "logical_op": "AND", "rules": []});
    let foreign_segment = api.made(&other.segments(), segment).await;
    let staging = sample.rollouts().replace(&sample.live, &sample.staging);
    let staging_rollout = api.made(&staging, json!({"strategy": "off"})).await;
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    for body in [
        json!({"kind": "segment", "segment_id": foreign_segment["id"], "variation_id": sample.variations[0]}),
        json!({"kind": "custom", "conditions": conditions, "variation_id": other.variations[0]}),
        json!({"kind": "custom", "conditions": conditions, "rollout_id": staging_rollout["id"]}),
        json!({"kind": "custom", "conditions": conditions, "rollout_id": Uuid::now_v7()}),
    ] {
        let (status, reply) = api.post(&sample.rules(), body.clone()).await;
        assert_eq!((status, &reply["error"]), (404, &json!("not_found")), "{body}");
    }
}
