//! FLG-1 to FLG-4.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Api, ids, notified, text};

#[tokio::test]
async fn a_flag_is_seeded_published_audited_and_metered_once() {
    let mut api = Api::start().await;
    let project = api.project("a").await;
    let [live, staging] = [0, 1].map(|index| text(&project["environments"][index]["id"]));
    let project = text(&project["id"]);
    let mut listener = api.listen("flagmint_config").await;
    let body = json!({"name": "New Checkout!", "type": "boolean", "description": null, "metadata": {"b": 1, "a": 2},
        "analytics_enabled": true, "envId": staging});
    let flag = api.made(&format!("/projects/{project}/flags"), body).await;
    assert_eq!(flag["key"], json!("new-checkout"));
    let switches = ["is_active", "client_side_enabled", "analytics_enabled"].map(|name| flag[name] == json!(true));
    assert_eq!(switches, [true, false, true]);
    assert_eq!(flag["metadata"].to_string(), r#"{"b":1,"a":2}"#);
    assert_eq!(ids(&flag["environments"]), [staging.clone(), live.clone()]);
    let value = json!({"targeting_rules_count": 0, "variations_count": 2, "segments_count": 0, "type": "boolean",
        "off_variation_id": null});
    assert_eq!(flag["environments"][0]["flag_value"], value);

    let variations = api.got(&format!("/projects/{project}/flags/{}/variations", text(&flag["id"]))).await;
    let brief: Vec<Value> = variations
        .as_array()
        .unwrap()
        .iter()
        .map(|v| json!([v["name"], v["value"], v["is_default"], v["order_index"], v["type"]]))
        .collect();
    assert_eq!(brief, [json!(["On", true, false, 0, "boolean"]), json!(["Off", false, true, 1, "boolean"])]);
    let values: i64 = api.one("SELECT count(*) FROM flag_values").await;
    assert_eq!(values, 2);

    let mut told = [notified(&mut listener).await, notified(&mut listener).await];
    told.sort();
    let mut environments = [live.clone(), staging.clone()];
    environments.sort();
    assert_eq!(told, environments);
    for environment in environments {
        let (version, compiled) = api.snapshot(&environment).await;
        assert_eq!(version, 2);
        assert_eq!(
            compiled["flags"],
            json!([{"id": flag["id"], "key": "new-checkout", "type": "boolean",
            "is_active": true, "default_value": false, "off_variation_id": null, "targeting_rules": [],
            "variations": [
                {"id": variations[0]["id"], "value": true, "key": "on", "name": "On"},
                {"id": variations[1]["id"], "value": false, "key": "off", "name": "Off"}],
            "rollouts": {}, "analytics_enabled": true}])
        );
        assert_eq!(compiled["metadata"].to_string(), r#"{"new-checkout":{"b":1,"a":2}}"#);
    }
    assert_eq!(api.audited("flag.created").await, 1);
    let metered = api.metered();
    assert_eq!(metered.len(), 1);
    assert_eq!((metered[0].organization_id, metered[0].project_id.to_string()), (api.organization, project.clone()));
    assert_eq!(metered[0].environment_id, None);

    let mut read = api.got(&format!("/projects/{project}/flags/{}", text(&flag["id"]))).await;
    assert_eq!(ids(&read["environments"]), [live, staging]); // By age, as nobody asked otherwise.
    read["environments"] = flag["environments"].clone();
    assert_eq!(read, flag);
}

#[tokio::test]
async fn types_and_templates() {
    let api = Api::start().await;
    let project = api.project("a").await;
    let environment = text(&project["environments"][0]["id"]);
    let path = format!("/projects/{}/flags", text(&project["id"]));
    let empties = [("string", json!("")), ("number", json!(0)), ("json", json!({})), ("object", json!({}))];
    for (flag_type, empty) in empties {
        let flag = api.made(&path, json!({"name": flag_type, "type": flag_type})).await;
        assert_eq!(flag["type"], json!(if flag_type == "object" { "json" } else { flag_type }));
        let variations = api.got(&format!("{path}/{}/variations", text(&flag["id"]))).await;
        for (index, name) in ["Variation A", "Variation B"].iter().enumerate() {
            let variation = &variations[index];
            assert_eq!((&variation["name"], &variation["value"]), (&json!(name), &empty));
            assert_eq!(variation["is_default"], json!(index == 0));
        }
    }
    for (body, flag_type, strategy) in [
        (json!({"name": "g", "template": "gradual_rollout"}), "boolean", Some("gradual")),
        (json!({"name": "k", "template": "kill_switch"}), "boolean", None),
        (json!({"name": "s", "template": "ab_test", "flavor": "string"}), "string", Some("variant")),
        (json!({"name": "n", "template": "ab_test", "flavor": "number"}), "number", Some("variant")),
        (json!({"name": "j", "template": "ab_test", "flavor": "json", "type": "object"}), "json", Some("variant")),
        (json!({"name": "f", "flavor": "number"}), "number", None),
    ] {
        let flag = api.made(&path, body.clone()).await;
        assert_eq!(flag["type"], json!(flag_type), "{body}");
        assert_eq!(flag["metadata"].get("flag_template"), body.get("template"), "{body}");
        let (_, compiled) = api.snapshot(&environment).await;
        let compiled = compiled["flags"].as_array().unwrap().last().unwrap().clone();
        let rollouts = compiled["rollouts"].as_object().unwrap();
        assert_eq!(rollouts.values().next().and_then(|rollout| rollout["strategy"].as_str()), strategy, "{body}");
        match rollouts.values().next() {
            Some(rollout) if strategy == Some("gradual") => assert_eq!(rollout["target_percentage"], json!(0)),
            Some(rollout) => {
                let shares: Vec<Value> = compiled["variations"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|variation| json!({"variation_id": variation["id"], "weight": 50}))
                    .collect();
                assert_eq!(rollout["variants"], json!(shares));
            }
            None => {}
        }
    }
    let rows = api.got(&format!("/projects/{}/environments/{environment}/flags", text(&project["id"]))).await;
    assert_eq!(rows["meta"]["total"], json!(10));
    let filtered = format!(
        "/projects/{}/environments/{environment}/flags?template=ab_test&sortBy=key&sortDirection=asc",
        text(&project["id"])
    );
    let rows = api.got(&filtered).await;
    let keys: Vec<&Value> = rows["data"].as_array().unwrap().iter().map(|row| &row["key"]).collect();
    assert_eq!(keys, [&json!("j"), &json!("n"), &json!("s")]);
    assert_eq!(rows["data"][0]["flag_value"]["variations_count"], json!(2));
}

#[tokio::test]
async fn validation() {
    let api = Api::start().await;
    let project = text(&api.project("a").await["id"]);
    let path = format!("/projects/{project}/flags");
    for (body, paths) in [
        (json!({"type": "boolean"}), vec!["name"]),
        (json!({"name": "a"}), vec!["type"]),
        (json!({"name": "", "type": "Boolean", "key": "a/b"}), vec!["name", "key", "type"]),
        (json!({"name": "a", "type": "boolean", "key": "statusCode"}), vec!["key"]),
        (json!({"name": "a", "type": "boolean", "key": "data"}), vec!["key"]),
        (json!({"name": "a", "type": "boolean", "key": "x".repeat(129)}), vec!["key"]),
        (json!({"name": "a", "type": "boolean", "template": "other"}), vec!["template"]),
        (json!({"name": "a", "template": "ab_test"}), vec!["flavor", "type"]),
        (json!({"name": "a", "template": "ab_test", "flavor": "boolean"}), vec!["flavor"]),
        (json!({"name": "a", "template": "ab_test", "flavor": "json", "type": "string"}), vec!["type"]),
        (json!({"name": "a", "template": "kill_switch", "type": "string"}), vec!["type"]),
        (json!({"name": "a", "template": "kill_switch", "is_active": false}), vec!["is_active"]),
        (json!({"name": "a", "type": "boolean", "metadata": []}), vec!["metadata"]),
        (json!({"name": "a", "type": "boolean", "metadata": {"a": "x".repeat(17 << 10)}}), vec!["metadata"]),
        (json!({"name": "a", "type": "boolean", "is_active": "yes"}), vec!["is_active"]),
        (json!({"name": "a", "type": "boolean", "envId": "x"}), vec!["envId"]),
    ] {
        assert_eq!(api.refused(Method::POST, &path, &body).await, paths, "{body}");
    }
    let (status, _) = api.post(&path, json!({"name": "a", "type": "boolean", "envId": Uuid::now_v7()})).await;
    assert_eq!(status, 404);
    let flags: i64 = api.one("SELECT count(*) FROM flags").await;
    assert_eq!(flags, 0);
}

#[tokio::test]
async fn keys() {
    let api = Api::start().await;
    let project = text(&api.project("a").await["id"]);
    let path = format!("/projects/{project}/flags");
    let key = async |name: &str| text(&api.made(&path, json!({"name": name, "type": "boolean"})).await["key"]);
    assert_eq!(key("Blue Button").await, "blue-button");
    assert_eq!(key("blue button").await, "blue-button-2");
    assert_eq!(key("blue_button").await, "blue-button-3");
    assert_eq!(key("Data").await, "data-2");
    assert_eq!(key("日本").await, "flag");
    let body = json!({"name": "x", "type": "boolean", "key": "blue-button"});
    let (status, reply) = api.post(&path, body.clone()).await;
    assert_eq!((status, &reply["error"]), (409, &json!("conflict")));
    api.run("UPDATE flags SET deleted_at = now() WHERE key = 'blue-button'").await;
    assert_eq!(api.post(&path, body).await.0, 201);
}

#[tokio::test]
async fn limits_of_the_plan_and_the_hour() {
    let api = Api::start().await;
    let project = text(&api.project("a").await["id"]);
    let path = format!("/projects/{project}/flags");
    let create = async || api.post(&path, json!({"name": "f", "type": "boolean"})).await;
    for _ in 0..25 {
        assert_eq!(create().await.0, 201); // The unlimited plan has no hourly limit either.
    }
    api.use_plan("Growth").await;
    let body = json!({"name": "f", "type": "boolean"});
    let response = reqwest::Client::new().post(format!("{}{path}", api.base)).bearer_auth(&api.token).json(&body);
    let response = response.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 429);
    let wait_s: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait_s), "{wait_s}");
    // Deleting flags does not give the hour back; time does.
    api.run("UPDATE flags SET deleted_at = now()").await;
    assert_eq!(create().await.0, 429);
    api.run("UPDATE flags SET created_at = created_at - interval '61 minutes' WHERE key IN ('f', 'f-2', 'f-3', 'f-4', 'f-5', 'f-6')").await;
    assert_eq!(create().await.0, 201);
    assert_eq!(create().await.0, 429);

    api.run("UPDATE flags SET created_at = created_at - interval '2 hours'").await;
    api.use_plan("Free").await;
    for _ in 0..4 {
        assert_eq!(create().await.0, 201);
    }
    let (status, reply) = create().await;
    assert_eq!((status, &reply["error"]), (403, &json!("plan_limit_reached")));
    let data = json!({"limit": 5, "used": 5, "what": "flags", "upgradeUrl": "/settings/subscription"});
    assert_eq!(reply["data"], data);
    api.run("UPDATE flags SET archived_at = now() WHERE deleted_at IS NULL AND key = 'f-2'").await;
    assert_eq!(create().await.0, 201); // Archived ones do not count.
    let listed = api.got(&path).await;
    assert_eq!(listed["meta"]["total"], json!(5));
}

#[tokio::test]
async fn roles() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let viewer = api.member(api.organization, "viewer").await;
    let body = json!({"name": "f", "type": "boolean"});
    let path = format!("/projects/{}/flags", sample.project);
    assert_eq!(api.send(Method::POST, &viewer, &path, Some(&body)).await.0, 403);
    for path in [
        path.clone(),
        format!("{path}/{}", sample.flag),
        format!("/projects/{}/environments/{}/flags", sample.project, sample.live),
    ] {
        assert_eq!(api.send(Method::GET, &viewer, &path, None).await.0, 200, "{path}");
    }
}
