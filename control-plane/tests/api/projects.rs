//! PRJ-1 to PRJ-3 and ENV-1.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, ids, notified, text};

#[tokio::test]
async fn a_project_comes_with_two_published_environments() {
    let api = Api::start().await;
    let mut listener = api.listen("flagmint_config").await;
    let project =
        api.made("/projects", json!({"name": "Shop", "projectKey": "shop", "description": "d", "x": 1})).await;
    assert_eq!(project["name"], json!("Shop"));
    assert_eq!(project["projectKey"], json!("shop"));
    assert_eq!(project["organization_id"], json!(api.organization));
    assert_eq!(project["archived_at"], Value::Null);
    let environments = project["environments"].as_array().unwrap();
    let brief: Vec<Value> =
        environments.iter().map(|e| json!([e["name"], e["slug"], e["is_default"], e["log_raw_context"]])).collect();
    assert_eq!(brief, [json!(["Live", "live", true, false]), json!(["Staging", "staging", false, false])]);
    for environment in environments {
        assert_eq!(notified(&mut listener).await, text(&environment["id"]));
        let (version, compiled) = api.snapshot(&text(&environment["id"])).await;
        assert_eq!((version, compiled), (1, json!({"version": 1, "flags": [], "segments": {}})));
    }
    let keys: i64 = api.one("SELECT count(DISTINCT pseudonym_key) FROM environment_snapshots").await;
    assert_eq!(keys, 2);
    assert_eq!(api.audited("project.created").await, 1);
    let path = format!("/projects/{}", text(&project["id"]));
    assert_eq!(api.got(&path).await, project);
    assert_eq!(api.got(&format!("{path}/environments")).await, project["environments"]);
}

#[tokio::test]
async fn roles() {
    let api = Api::start().await;
    let project = text(&api.project("a").await["id"]);
    let [viewer, editor] = [api.member(api.organization, "viewer").await, api.member(api.organization, "editor").await];
    let body = json!({"name": "b", "projectKey": "b"});
    for (method, path, body) in [
        (Method::POST, "/projects".to_owned(), Some(&body)),
        (Method::GET, "/projects".to_owned(), None),
        (Method::GET, format!("/projects/{project}"), None),
    ] {
        let (status, reply) = api.send(method.clone(), &viewer, &path, body).await;
        assert_eq!((status, &reply["error"]), (403, &json!("forbidden")), "{path}");
        assert!((200..300).contains(&api.send(method, &editor, &path, body).await.0), "{path}");
    }
    assert_eq!(api.send(Method::GET, &viewer, &format!("/projects/{project}/environments"), None).await.0, 200);
}

#[tokio::test]
async fn validation() {
    let api = Api::start().await;
    for (body, paths) in [
        (json!({}), vec!["name"]),
        (json!({"name": "a"}), vec!["projectKey"]),
        (json!({"name": "", "projectKey": ""}), vec!["name", "projectKey"]),
        (json!({"name": "x".repeat(256), "projectKey": "-a"}), vec!["name", "projectKey"]),
        (json!({"name": "a", "projectKey": "a b"}), vec!["projectKey"]),
        (json!({"name": "a", "projectKey": "a", "description": 5}), vec!["description"]),
        (json!({"name": "a", "projectKey": "a", "description": "x".repeat(4001)}), vec!["description"]),
    ] {
        assert_eq!(api.refused(Method::POST, "/projects", &body).await, paths, "{body}");
    }
    for path in ["/projects/x", "/projects/x/environments", "/projects?limit=0", "/projects?sortBy=secret"] {
        assert_eq!(api.get(path).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn keys_are_unique_in_the_organization_alone() {
    let api = Api::start().await;
    api.project("a").await;
    let (status, reply) = api.post("/projects", json!({"name": "x", "projectKey": "a"})).await;
    assert_eq!((status, &reply["error"]), (409, &json!("conflict")));
    let other = api.other_organization().await;
    let body = json!({"name": "x", "projectKey": "a"});
    assert_eq!(api.send(Method::POST, &other, "/projects", Some(&body)).await.0, 201);
    // A conflict leaves nothing behind.
    let entries: i64 = api.one("SELECT count(*) FROM audit_entries WHERE event_type = 'project.created'").await;
    assert_eq!(entries, 2);
}

#[tokio::test]
async fn the_plan_limits_projects() {
    let api = Api::start().await;
    api.use_plan("Free").await;
    let first = api.project("a").await;
    let (status, reply) = api.post("/projects", json!({"name": "b", "projectKey": "b"})).await;
    assert_eq!((status, &reply["error"]), (403, &json!("plan_limit_reached")));
    let data = json!({"limit": 1, "used": 1, "what": "projects", "upgradeUrl": "/settings/subscription"});
    assert_eq!(reply["data"], data);
    api.run(&format!("UPDATE projects SET archived_at = now() WHERE id = '{}'", text(&first["id"]))).await;
    api.project("b").await;
    api.run("UPDATE organizations SET subscription_status = 'canceled'").await;
    let (status, reply) = api.post("/projects", json!({"name": "c", "projectKey": "c"})).await;
    assert_eq!((status, &reply["error"]), (403, &json!("subscription_inactive")));
    assert_eq!(api.get("/projects").await.0, 200);
}

#[tokio::test]
async fn lists_are_paged_sorted_and_searched() {
    let api = Api::start().await;
    for key in ["alpha", "beta", "gamma", "alphabet"] {
        api.project(key).await;
    }
    let keys = async |query: &str| {
        let page = api.got(&format!("/projects?{query}")).await;
        let keys: Vec<String> =
            page["data"].as_array().unwrap().iter().map(|project| text(&project["projectKey"])).collect();
        (keys.join(" "), page["meta"].clone())
    };
    let meta = |total: i64, page: i64, pages: i64| json!({"total": total, "page": page, "pageCount": pages});
    assert_eq!(keys("").await, ("alphabet gamma beta alpha".to_owned(), meta(4, 1, 1)));
    assert_eq!(keys("limit=3&page=2").await, ("alpha".to_owned(), meta(4, 2, 2)));
    assert_eq!(keys("limit=2&offset=1&page=9").await, ("gamma beta".to_owned(), meta(4, 1, 2)));
    assert_eq!(keys("page=3").await, (String::new(), meta(4, 3, 1)));
    assert_eq!(keys("q=ALPHA&sortDirection=asc").await, ("alpha alphabet".to_owned(), meta(2, 1, 1)));
    assert_eq!(keys("q=%25").await.0, "");
    assert_eq!(keys("sortBy=projectKey&sortDirection=asc&unknown=1").await.0, "alpha alphabet beta gamma");
    let first = ids(&api.got("/projects").await["data"]);
    api.run(&format!("UPDATE projects SET archived_at = now() WHERE id = '{}'", first[0])).await;
    assert_eq!(keys("").await.0, "gamma beta alpha");
}
