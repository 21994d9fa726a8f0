//! SEG-1 and SEG-2.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, text};

#[tokio::test]
async fn a_segment_is_made_audited_metered_and_changes_nothing_yet() {
    let mut api = Api::start().await;
    let sample = api.sample("boolean").await;
    api.metered();
    let rule = json!({"attribute": "age", "operator": "gt", "value": 18, "logical_op": "OR"});
    let body = json!({"name": "Grown Ups", "logical_op": "or", "rules": [rule]});
    let segment = api.made(&sample.segments(), body).await;
    assert_eq!(segment["key"], json!("grown-ups"));
    assert_eq!((&segment["logical_op"], &segment["force"]), (&json!("OR"), &json!(false)));
    assert_eq!(segment["rules"], json!([{"type": "rule", "attribute": "age", "operator": "gt", "value": 18}]));
    assert_eq!(segment["description"], Value::Null);
    assert_eq!((api.version(&sample.live).await, api.version(&sample.staging).await), (2, 2));
    assert_eq!(api.audited("segment.created").await, 1);
    assert_eq!(api.metered().len(), 1);
    let listed = api.got(&sample.segments()).await;
    assert_eq!(listed["meta"], json!({"total": 1, "page": 1, "pageCount": 1}));
    let mut row = segment.clone();
    row["rule_count"] = json!(1);
    assert_eq!(listed["data"], json!([row]));
}

#[tokio::test]
async fn keys() {
    let api = Api::start().await;
    let [sample, other] = [api.sample("boolean").await, api.sample("boolean").await];
    let body = |key: Option<&str>| json!({"name": "A b", "key": key, "logical_op": "AND", "rules": []});
    assert_eq!(text(&api.made(&sample.segments(), body(None)).await["key"]), "a-b");
    assert_eq!(text(&api.made(&sample.segments(), body(None)).await["key"]), "a-b-2");
    assert_eq!(text(&api.made(&sample.segments(), body(Some("-X_9"))).await["key"]), "-X_9");
    let (status, reply) = api.post(&sample.segments(), body(Some("a-b"))).await;
    assert_eq!((status, &reply["error"]), (409, &json!("conflict")));
    api.made(&other.segments(), body(Some("a-b"))).await;
    assert_eq!(api.got(&format!("{}?q=A-B", sample.segments())).await["meta"]["total"], json!(2));
}

#[tokio::test]
async fn validation_and_roles() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    for (body, paths) in [
        (json!({}), vec!["name"]),
        (json!({"name": "a", "rules": []}), vec!["logical_op"]),
        (json!({"name": "a", "logical_op": "AND"}), vec!["rules"]),
        (json!({"name": "", "logical_op": "XOR", "rules": [], "key": "a.b"}), vec!["name", "key", "logical_op"]),
        (
            json!({"name": "a", "logical_op": "AND", "rules": [{"attribute": "a", "operator": "regex", "type": "x"}]}),
            vec!["rules[0].operator", "rules[0].type"],
        ),
        (json!({"name": "a", "logical_op": "AND", "rules": [], "force": 1}), vec!["force"]),
    ] {
        assert_eq!(api.refused(Method::POST, &sample.segments(), &body).await, paths, "{body}");
    }
    let viewer = api.member(api.organization, "viewer").await;
    let body = json!({"name": "a", "logical_op": "AND", "rules": []});
    assert_eq!(api.send(Method::POST, &viewer, &sample.segments(), Some(&body)).await.0, 403);
    assert_eq!(api.send(Method::GET, &viewer, &sample.segments(), None).await.0, 200);
}
