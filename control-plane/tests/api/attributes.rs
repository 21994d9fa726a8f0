//! ATT-1 to ATT-6, and what evaluators are told of private attributes.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::PgListener;

use crate::support::{Api, notified, text};

fn salary() -> Value {
    json!({"key": "user.salary", "label": "Salary", "type": "number", "category": "user", "operators": ["gt", "lt"]})
}

/// The private attributes of an environment's snapshot, and its revision.
async fn in_snapshot(api: &Api, environment: &str) -> (Vec<String>, i64) {
    let of =
        |column: &str| format!("SELECT {column} FROM environment_snapshots WHERE environment_id = '{environment}'");
    (api.one(&of("private_attributes")).await, api.one(&of("(extract(epoch FROM updated_at) * 1000000)::bigint")).await)
}

async fn delete(api: &Api, token: &str, key: &str) -> (u16, Value) {
    api.send(Method::DELETE, token, &format!("/api/attributes/{key}"), None).await
}

#[tokio::test]
async fn an_attribute_is_made_changed_deactivated_deleted_and_audited() {
    let mut api = Api::start().await;
    let made = api.made("/api/attributes", salary()).await;
    for (name, expected) in [
        ("key", json!("user.salary")),
        ("operators", json!(["gt", "lt"])),
        ("is_custom", json!(true)),
        ("is_active", json!(true)),
        ("private", json!(false)),
        ("suggestions", Value::Null),
        ("placeholder", Value::Null),
        ("description", Value::Null),
    ] {
        assert_eq!(made[name], expected, "{name}");
    }
    assert!(made["created_by"].is_string() && made.get("deleted_at").is_none(), "{made}");
    let path = "/api/attributes/user.salary";
    assert_eq!(api.got(path).await, made);

    let change = json!({"label": "Pay", "suggestions": [1, "two", true], "description": "d", "key": "ignored"});
    let (status, reply) = api.put(path, change).await;
    let changed = &reply["data"];
    assert_eq!((status, &changed["label"], &changed["suggestions"]), (200, &json!("Pay"), &json!([1, "two", true])));
    assert_eq!((&changed["key"], &changed["type"]), (&made["key"], &made["type"]), "what is left out stays");
    let (_, reply) = api.put(path, json!({"suggestions": null, "operators": ["eq"]})).await;
    assert_eq!((&reply["data"]["suggestions"], &reply["data"]["description"]), (&Value::Null, &json!("d")));
    let last: String = api
        .one(
            "SELECT payload::text FROM audit_entries WHERE event_type = 'attribute.updated'
        ORDER BY created_at DESC LIMIT 1",
        )
        .await;
    let last: Value = serde_json::from_str(&last).unwrap();
    let (before, after) = (
        json!({"operators": ["gt", "lt"], "suggestions": [1, "two", true]}),
        json!({"operators": ["eq"], "suggestions": null}),
    );
    assert_eq!((&last["before"], &last["after"]), (&before, &after), "what was changed and nothing else");

    for (body, active) in [(json!({}), false), (json!({"is_active": false}), false), (json!({"is_active": true}), true)]
    {
        let (status, reply) = api.put(&format!("{path}/deactivate"), body).await;
        assert_eq!((status, &reply["data"]["is_active"]), (200, &json!(active)));
    }
    let (status, reply) = delete(&api, &api.token, "user.salary").await;
    assert_eq!(status, 200);
    assert!(reply["data"]["deleted_at"].is_string(), "{reply}");
    assert_eq!(api.get(path).await.0, 404);
    assert_eq!(delete(&api, &api.token, "user.salary").await.0, 404);
    assert_ne!(api.made("/api/attributes", salary()).await["id"], made["id"], "the key is free again");
    for (event, times) in [("attribute.created", 2), ("attribute.updated", 5), ("attribute.deleted", 1)] {
        let sql = "SELECT count(*) FROM audit_entries WHERE actor_id IS NOT NULL AND project_id IS NULL AND event_type";
        assert_eq!(api.one::<i64>(&format!("{sql} = '{event}'")).await, times, "{event}");
    }
    assert!(api.metered().is_empty(), "attributes are not metered");
}

#[tokio::test]
async fn those_of_the_system_are_the_same_for_all_and_can_only_be_deactivated() {
    let api = Api::start().await;
    let other = api.other_organization().await;
    let path = "/api/attributes/organization.employeeCount";
    let found = api.got(path).await;
    assert_eq!(
        (&found["is_custom"], &found["type"], &found["created_by"]),
        (&json!(false), &json!("number"), &Value::Null)
    );
    let (status, reply) = api.put(path, json!({"label": "x"})).await;
    assert_eq!((status, &reply["error"]), (403, &json!("forbidden")), "{reply}");
    assert_eq!(delete(&api, &api.token, "organization.employeeCount").await.0, 403);
    let (status, reply) = api.put(&format!("{path}/deactivate"), json!({})).await;
    assert_eq!((status, &reply["data"]["is_active"]), (200, &json!(false)));
    let (_, theirs) = api.send(Method::GET, &other, path, None).await;
    assert_eq!(theirs["data"]["is_active"], json!(true), "another organization's choice is its own");
    let total = async |query: &str| api.got(&format!("/api/attributes?{query}")).await["meta"]["total"].clone();
    assert_eq!(total("is_active=false").await, json!(1));
    let (status, reply) = api
        .post(
            "/api/attributes",
            json!({"key": "user.country", "label": "x", "type": "string",
        "category": "user", "operators": ["eq"]}),
        )
        .await;
    assert_eq!((status, &reply["error"]), (409, &json!("conflict")));
}

#[tokio::test]
async fn lists_are_filtered_searched_and_paged() {
    let api = Api::start().await;
    let system = api.got("/api/attributes?is_custom=false&limit=100").await;
    let keys: Vec<String> = system["data"].as_array().unwrap().iter().map(|row| text(&row["key"])).collect();
    for key in ["user.country", "user.email", "user.age", "user.role", "organization.plan", "device.browser"] {
        assert!(keys.contains(&key.to_owned()), "{key} is not among {keys:?}");
    }
    for (key, kind, category) in
        [("custom.one", "string", "custom"), ("custom.two", "array", "custom"), ("user.three", "date", "user")]
    {
        let body =
            json!({"key": key, "label": key.to_uppercase(), "type": kind, "category": category, "operators": ["eq"]});
        api.made("/api/attributes", body).await;
    }
    for (query, expected) in [
        ("is_custom=true&sortBy=key&sortDirection=asc", vec!["custom.one", "custom.two", "user.three"]),
        ("is_custom=true", vec!["user.three", "custom.two", "custom.one"]),
        ("is_custom=true&page=2&limit=1", vec!["custom.two"]),
        ("category=custom&type=array", vec!["custom.two"]),
        ("q=THREE", vec!["user.three"]),
        ("type=date&is_active=false", vec![]),
    ] {
        let rows = api.got(&format!("/api/attributes?{query}")).await["data"].take();
        let keys: Vec<String> = rows.as_array().unwrap().iter().map(|row| text(&row["key"])).collect();
        assert_eq!(keys, expected, "{query}");
    }
    for (query, path) in
        [("category=x", "category"), ("type=text", "type"), ("is_custom=1", "is_custom"), ("sortBy=label2", "sortBy")]
    {
        let (status, reply) = api.get(&format!("/api/attributes?{query}")).await;
        assert_eq!((status, &reply["details"][0]["path"]), (400, &json!(path)), "{query}");
    }
}

#[tokio::test]
async fn what_is_not_as_specified_is_refused_and_nobody_elses_is_found() {
    let api = Api::start().await;
    for (change, paths) in [
        (json!({"key": "User.Salary"}), vec!["key"]),
        (json!({"key": "a"}), vec!["key"]),
        (json!({"type": "text", "category": "person"}), vec!["type", "category"]),
        (json!({"operators": []}), vec!["operators"]),
        (json!({"operators": ["regex"]}), vec!["operators"]),
        (json!({"label": "", "suggestions": [{}]}), vec!["label", "suggestions"]),
        (json!({"suggestions": vec![1; 201], "placeholder": "x".repeat(256)}), vec!["suggestions", "placeholder"]),
        (json!({"private": "yes"}), vec!["private"]),
    ] {
        let mut body = salary();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(api.refused(Method::POST, "/api/attributes", &body).await, paths, "{change}");
    }
    api.made("/api/attributes", salary()).await;
    assert_eq!(api.post("/api/attributes", salary()).await.0, 409);
    assert_eq!(api.refused(Method::PUT, "/api/attributes/user.salary", &json!({"type": "text"})).await, ["type"]);
    assert_eq!(api.get("/api/attributes/user%00").await.0, 400);
    let viewer = api.member(api.organization, "viewer").await;
    let stranger = api.other_organization().await;
    let path = "/api/attributes/user.salary";
    for (token, read, write) in [(&viewer, 200, 403), (&stranger, 404, 404)] {
        assert_eq!(api.send(Method::GET, token, path, None).await.0, read);
        assert_eq!(api.send(Method::PUT, token, path, Some(&json!({"private": true}))).await.0, write);
        assert_eq!(api.send(Method::PUT, token, &format!("{path}/deactivate"), Some(&json!({}))).await.0, write);
        assert_eq!(delete(&api, token, "user.salary").await.0, write);
    }
    assert_eq!(
        api.send(Method::GET, &stranger, "/api/attributes?is_custom=true", None).await.1["data"]["meta"]["total"],
        json!(0)
    );
    assert_eq!(api.got(path).await["private"], json!(false));
    let organization = api.organization;
    api.run(&format!(
        "INSERT INTO attributes (organization_id, key, label, type, category, operators)
        SELECT '{organization}', 'custom.a' || n, 'x', 'string', 'custom', '[]' FROM generate_series(1, 999) n"
    ))
    .await;
    let mut body = salary();
    body["key"] = json!("user.one_more");
    assert_eq!(api.post("/api/attributes", body).await.0, 409, "there may be 1,000");
}

/// The environments that the next `count` notifications name, sorted.
async fn told(listener: &mut PgListener, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(notified(listener).await);
    }
    told.sort_unstable();
    told
}

#[tokio::test]
async fn what_becomes_private_is_told_to_the_evaluators_of_every_environment_and_is_no_publish() {
    let mut api = Api::start().await;
    let own = std::mem::take(&mut api.token);
    api.token = api.other_organization().await;
    let theirs = api.sample("boolean").await;
    api.token = own;
    let [one, two] = [api.sample("boolean").await, api.sample("boolean").await];
    let mut environments = [&one.live, &one.staging, &two.live, &two.staging].map(String::clone);
    environments.sort_unstable();
    let mut listener = api.listen("flagmint_config").await;
    let path = "/api/attributes/user.salary";
    let mut body = salary();
    body["private"] = json!(true);
    api.made("/api/attributes", body).await;
    let mut before = in_snapshot(&api, &one.live).await;
    assert_eq!(told(&mut listener, 4).await, environments, "each environment of the organization once");
    assert_eq!(before.0, ["user.salary"]);
    for private in [false, true, false] {
        // What changes nothing tells nobody.
        api.put(path, json!({"label": "Pay", "private": !private})).await;
        api.put(&format!("{path}/deactivate"), json!({})).await;
        assert_eq!(in_snapshot(&api, &one.live).await, before);
        assert_eq!(api.put(path, json!({"private": private})).await.0, 200);
        assert_eq!(told(&mut listener, 4).await, environments);
        let now = in_snapshot(&api, &one.live).await;
        assert!(now.1 > before.1, "evaluators that only compare revisions notice, too");
        assert_eq!(now.0, if private { vec!["user.salary"] } else { vec![] });
        assert_eq!(in_snapshot(&api, &two.staging).await.0, now.0);
        before = now;
    }
    api.put(path, json!({"private": true})).await;
    let three = api.sample("boolean").await;
    assert_eq!(in_snapshot(&api, &three.staging).await.0, ["user.salary"], "a new environment begins with it");
    delete(&api, &api.token, "user.salary").await;
    assert_eq!(in_snapshot(&api, &three.staging).await.0, Vec::<String>::new());
    assert_eq!(api.version(&one.live).await, 2, "nothing that is evaluated has changed");
    assert_eq!(in_snapshot(&api, &theirs.live).await.0, Vec::<String>::new(), "another organization's are its own");
}
