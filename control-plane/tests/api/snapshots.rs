//! What evaluators read.

use serde_json::{Value, json};

use crate::support::{Api, text};

#[tokio::test]
async fn the_compiled_text_has_the_published_members_in_their_order() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let conditions = json!([{"attribute": "a", "operator": "eq", "value": {"z": 1, "b": 2}}]);
    let body = json!({"kind": "custom", "conditions": conditions, "variation_id": sample.variations[0]});
    let rule = text(&api.made(&sample.rules(), body).await["id"]);
    let rollout = text(&api.made(&sample.rollouts(), json!({"strategy": "off"})).await["id"]);
    let text: String =
        api.one(&format!("SELECT compiled FROM environment_snapshots WHERE environment_id = '{}'", sample.live)).await;
    let [on, off] = [&sample.variations[0], &sample.variations[1]];
    let expected = format!(
        r#"{{"version":4,"flags":[{{"id":"{flag}","key":"sample","type":"boolean","is_active":true,"default_value":false,"off_variation_id":null,"targeting_rules":[{{"id":"{rule}","kind":"custom","order_index":0,"segment_id":null,"conditions":[{{"attribute":"a","operator":"eq","value":{{"z":1,"b":2}}}}],"logical_op":"AND","variation_id":"{on}","rollout_id":null}}],"variations":[{{"id":"{on}","value":true,"key":"on","name":"On"}},{{"id":"{off}","value":false,"key":"off","name":"Off"}}],"rollouts":{{"{rollout}":{{"strategy":"off"}}}},"analytics_enabled":false}}],"segments":{{}}}}"#,
        flag = sample.flag
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn flags_are_in_order_of_creation_and_what_is_deleted_or_archived_is_out() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    for name in ["z", "a", "m", "gone", "archived"] {
        let body = json!({"name": name, "type": "number", "is_active": name != "m"});
        api.made(&format!("/projects/{}/flags", sample.project), body).await;
    }
    for sql in [
        "UPDATE flags SET deleted_at = now() WHERE key = 'gone'",
        "UPDATE flags SET archived_at = now() WHERE key = 'archived'",
    ] {
        api.run(sql).await;
    }
    let made: Vec<String> = {
        let mut made = Vec::new();
        for _ in 0..3 {
            made.push(text(&api.made(&sample.rollouts(), json!({"strategy": "off"})).await["id"]));
        }
        made
    };
    api.run(&format!("UPDATE rollouts SET deleted_at = now() WHERE id = '{}'", made[1])).await;
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    let body = json!({"kind": "custom", "conditions": conditions, "variation_id": sample.variations[0]});
    let rule = text(&api.made(&sample.rules(), body.clone()).await["id"]);
    api.run(&format!("UPDATE targeting_rules SET deleted_at = now() WHERE id = '{rule}'")).await;
    let kept = text(&api.made(&sample.rules(), body).await["id"]);
    let (_, compiled) = api.snapshot(&sample.live).await;
    let keys: Vec<Value> =
        compiled["flags"].as_array().unwrap().iter().map(|flag| json!([flag["key"], flag["is_active"]])).collect();
    assert_eq!(keys, [json!(["sample", true]), json!(["z", true]), json!(["a", true]), json!(["m", false])]);
    let flag = &compiled["flags"][0];
    assert_eq!(flag["rollouts"].as_object().unwrap().keys().collect::<Vec<_>>(), [&made[0], &made[2]]);
    assert_eq!(flag["targeting_rules"].as_array().unwrap().len(), 1);
    assert_eq!(flag["targeting_rules"][0]["id"], json!(kept));
}

#[tokio::test]
async fn a_value_of_the_environment_wins_over_the_default_variation() {
    let api = Api::start().await;
    let sample = api.sample("string").await;
    api.run(&format!("UPDATE flag_values SET default_value = '\"own\"' WHERE environment_id = '{}'", sample.live))
        .await;
    for environment in [&sample.live, &sample.staging] {
        let path = sample.rollouts().replace(&sample.live, environment);
        api.made(&path, json!({"strategy": "off"})).await;
    }
    let fallback = async |environment| api.snapshot(environment).await.1["flags"][0]["default_value"].clone();
    assert_eq!(fallback(&sample.live).await, json!("own"));
    assert_eq!(fallback(&sample.staging).await, json!(""));
}
