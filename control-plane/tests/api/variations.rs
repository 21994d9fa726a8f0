//! VAR-1 and VAR-2.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Sample, text};

fn update(id: Option<&str>, key: &str, value: Value, is_default: bool, order_index: i32) -> Value {
    let mut update = json!({"key": key, "name": key, "type": "string", "value": value, "description": null,
        "is_default": is_default, "order_index": order_index});
    if let Some(id) = id {
        update["id"] = json!(id);
    }
    update
}

async fn compiled(api: &Api, sample: &Sample) -> (i64, Value) {
    let (version, compiled) = api.snapshot(&sample.live).await;
    (version, compiled["flags"][0].clone())
}

#[tokio::test]
async fn one_request_changes_adds_and_deletes_with_one_publish() {
    let mut api = Api::start().await;
    let sample = api.sample("string").await;
    let [a, b] = [&sample.variations[0], &sample.variations[1]];
    api.metered();
    let body = json!({
        "updates": [
            update(Some(a), "variation-b", json!("A"), false, 9), // Takes over the key of the one deleted.
            update(None, "c", json!("C"), true, 1),
            update(None, "d", json!("D\u{2028}"), false, 1),
        ],
        "deletedIds": [b], "offVariationId": a, "environmentId": sample.live,
    });
    let (status, reply) = api.put(&sample.variations_path(), body).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["warnings"].as_array().unwrap().len(), 1, "{reply}");
    let listed = api.got(&sample.variations_path()).await;
    assert_eq!(listed, reply["data"]);
    let brief: Vec<Value> =
        listed.as_array().unwrap().iter().map(|v| json!([v["key"], v["value"], v["is_default"]])).collect();
    assert_eq!(brief, [json!(["c", "C", true]), json!(["d", "D\u{2028}", false]), json!(["variation-b", "A", false])]);

    let (version, flag) = compiled(&api, &sample).await;
    assert_eq!(version, 3);
    assert_eq!(flag["default_value"], json!("C"));
    assert_eq!(flag["off_variation_id"], json!(a));
    let keys: Vec<&Value> = flag["variations"].as_array().unwrap().iter().map(|v| &v["key"]).collect();
    assert_eq!(keys, ["c", "d", "variation-b"]);
    let (version, staging) = api.snapshot(&sample.staging).await;
    assert_eq!((version, &staging["flags"][0]["off_variation_id"]), (3, &Value::Null));
    assert_eq!(api.audited("variation.updated").await, 1);
    assert_eq!(api.metered().len(), 1);
}

#[tokio::test]
async fn only_environments_that_change_are_published() {
    let api = Api::start().await;
    let sample = api.sample("string").await;
    let body = json!({"updates": [], "offVariationId": sample.variations[0], "environmentId": sample.live});
    assert_eq!(api.put(&sample.variations_path(), body.clone()).await.0, 200);
    assert_eq!((api.version(&sample.live).await, api.version(&sample.staging).await), (3, 2));
    assert_eq!(api.put(&sample.variations_path(), body).await.0, 200); // The same again changes nothing.
    assert_eq!((api.version(&sample.live).await, api.version(&sample.staging).await), (3, 2));
    let body = json!({"updates": [], "offVariationId": null, "environmentId": sample.live});
    assert_eq!(api.put(&sample.variations_path(), body).await.0, 200);
    assert_eq!(compiled(&api, &sample).await.1["off_variation_id"], Value::Null);
}

#[tokio::test]
async fn the_order_of_members_and_keys_may_be_swapped() {
    let api = Api::start().await;
    let sample = api.sample("json").await;
    let mut updates = [0, 1].map(|index| {
        let key = ["variation-b", "variation-a"][index];
        update(Some(&sample.variations[index]), key, json!({"z": 1, "a": {"y": 1.5, "b": []}}), index == 1, 0)
    });
    updates.iter_mut().for_each(|update| update["type"] = json!("object"));
    let (status, reply) = api.put(&sample.variations_path(), json!({"updates": updates})).await;
    assert_eq!(status, 200, "{reply}");
    let (_, flag) = compiled(&api, &sample).await;
    assert_eq!(flag["variations"][0]["key"], json!("variation-b"));
    assert_eq!(flag["default_value"].to_string(), r#"{"z":1,"a":{"y":1.5,"b":[]}}"#);
}

#[tokio::test]
async fn what_is_used_cannot_be_deleted() {
    let api = Api::start().await;
    let sample = api.sample("string").await;
    let (status, reply) = api
        .put(
            &sample.variations_path(),
            json!({"updates": [
        update(None, "c", json!("C"), false, 2), update(None, "d", json!("D"), false, 3),
        update(None, "e", json!("E"), false, 4)]}),
        )
        .await;
    assert_eq!(status, 200);
    let [c, d, e] = [2, 3, 4].map(|index| text(&reply["data"][index]["id"]));
    let condition = json!([{"attribute": "a", "operator": "exists"}]);
    api.made(&sample.rules(), json!({"kind": "custom", "conditions": condition, "variation_id": c})).await;
    let variants = json!([{"variation_id": d, "weight": 100}]);
    api.made(&sample.rollouts(), json!({"strategy": "variant", "variants": variants})).await;
    let body = json!({"updates": [], "offVariationId": e, "environmentId": sample.live});
    assert_eq!(api.put(&sample.variations_path(), body).await.0, 200);
    let version = api.version(&sample.live).await;
    for (id, user) in [(&c, "targeting_rule"), (&d, "rollout"), (&e, "off_variation")] {
        let (status, reply) = api.put(&sample.variations_path(), json!({"updates": [], "deletedIds": [id]})).await;
        assert_eq!((status, &reply["error"]), (409, &json!("conflict")), "{user}");
        assert_eq!(reply["data"]["usedBy"][0]["type"], json!(user));
        assert_eq!(reply["data"]["usedBy"][0]["environment_id"], json!(sample.live));
    }
    assert_eq!(api.version(&sample.live).await, version);
    // What replaces an off variation frees it in the same request.
    let body = json!({"updates": [], "deletedIds": [e], "offVariationId": c, "environmentId": sample.live});
    assert_eq!(api.put(&sample.variations_path(), body).await.0, 200);
}

#[tokio::test]
async fn validation_and_roles() {
    let api = Api::start().await;
    let sample = api.sample("string").await;
    let path = sample.variations_path();
    for (body, paths) in [
        (json!({}), vec!["updates"]),
        (json!({"updates": [{"key": "a", "name": "a", "type": "string"}]}), vec!["updates[0].value"]),
        (json!({"updates": [update(None, "c", json!(5), false, 0)]}), vec!["updates[0].value"]),
        (json!({"updates": [update(None, "c", json!("a\u{0}"), false, 0)]}), vec!["updates[0].value"]),
        (json!({"updates": [], "deletedIds": [sample.variations[1]]}), vec!["updates"]),
        (json!({"updates": [], "offVariationId": sample.variations[1]}), vec!["environmentId"]),
    ] {
        assert_eq!(api.refused(Method::PUT, &path, &body).await, paths, "{body}");
    }
    let (status, reply) = api.put(&path, json!({"updates": [update(None, "variation-a", json!("x"), false, 0)]})).await;
    assert_eq!((status, &reply["error"]), (409, &json!("conflict")));
    let viewer = api.member(api.organization, "viewer").await;
    assert_eq!(api.send(Method::PUT, &viewer, &path, Some(&json!({"updates": []}))).await.0, 403);
    assert_eq!(api.send(Method::GET, &viewer, &path, None).await.0, 200);
    assert_eq!(api.version(&sample.live).await, 2);
}
