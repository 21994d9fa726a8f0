//! Bodies that are no good: every one is the client's error, never ours.

use serde_json::{Value, json};

use crate::support::Api;

async fn send(api: &Api, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = reqwest::Client::new().post(format!("{}/projects", api.base)).bearer_auth(&api.token).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn bad_bodies() {
    let api = Api::start().await;
    let good = r#"{"name":"a","projectKey":"a"}"#;
    let large = format!(r#"{{"name":"a","projectKey":"b","x":"{}"}}"#, "x".repeat(1 << 20));
    let deep = format!(r#"{{"name":"a","projectKey":"b","x":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let json_type = Some("application/json");
    for (content_type, body, status, error, path) in [
        (None, good, 415, "unsupported_media_type", None),
        (Some("text/plain"), good, 415, "unsupported_media_type", None),
        (json_type, &large, 413, "payload_too_large", None),
        (json_type, &deep, 400, "validation_failed", Some("x[0]")),
        (json_type, "", 400, "validation_failed", Some("")),
        (json_type, "{", 400, "validation_failed", Some("")),
        (json_type, "null", 400, "validation_failed", Some("")),
        (json_type, "[1]", 400, "validation_failed", Some("")),
        (json_type, r#"{"name":"a\u0000b","projectKey":"b"}"#, 400, "validation_failed", Some("name")),
        (json_type, r#"{"name":"\ud83d","projectKey":"b"}"#, 400, "validation_failed", Some("name")),
        (
            json_type,
            r#"{"name":"a","projectKey":"b","description":"\ude00"}"#,
            400,
            "validation_failed",
            Some("description"),
        ),
        (json_type, r#"{"name":"a","projectKey":"b","x":"\u0000"}"#, 400, "validation_failed", Some("x")),
        (Some("application/json; charset=utf-8"), good, 201, "", None),
    ] {
        let (got, reply) = send(&api, content_type, body.to_owned()).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(got, status, "{shown}: {reply}");
        if status != 201 {
            assert_eq!(reply["error"], json!(error), "{shown}");
        }
        if let Some(path) = path {
            assert!(reply["details"][0]["path"].as_str().unwrap().starts_with(path), "{shown}: {reply}");
        }
    }
    let (status, _) = send(&api, json_type, vec![b'"', 0xff, 0xfe, b'"']).await;
    assert_eq!(status, 400);
    assert_eq!(api.get("/projects?q=%00").await.0, 400);
    assert_eq!(api.get("/projects?q=%ff").await.0, 200); // Not UTF-8: matches nothing, as any odd text.
}

#[tokio::test]
async fn text_of_any_other_kind_is_kept() {
    let api = Api::start().await;
    let name = "名前 \u{1}\u{7f}\u{2028} 😀 ' \" \\ %s $1 {}";
    let project = api.made("/projects", json!({"name": name, "projectKey": "a", "description": name})).await;
    assert_eq!((&project["name"], &project["description"]), (&json!(name), &json!(name)));
    let rules = json!([{"attribute": name, "operator": "eq", "value": {"😀": [name, null, 1.5, -0.0, 1e300]}}]);
    let path = format!("/projects/{}/segments", project["id"].as_str().unwrap());
    let segment = api.made(&path, json!({"name": name, "logical_op": "AND", "rules": rules})).await;
    assert_eq!(segment["rules"][0]["value"], rules[0]["value"]);
}
