//! ENV-3 and the end of a pseudonym key.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Api, notified, text};

async fn revision(api: &Api, environment: &str) -> i64 {
    let sql =
        "SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM environment_snapshots WHERE environment_id";
    api.one(&format!("{sql} = '{environment}'")).await
}

#[tokio::test]
async fn raw_logging_is_an_admins_choice_told_to_evaluators_and_audited_by_itself() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let path = format!("/projects/{}/environments/{}", sample.project, sample.live);
    let mut listener = api.listen("flagmint_config").await;
    let before = revision(&api, &sample.live).await;
    let (status, reply) = api.put(&path, json!({"name": "Production"})).await;
    assert_eq!(
        (status, &reply["data"]["name"], &reply["data"]["log_raw_context"]),
        (200, &json!("Production"), &json!(false))
    );
    assert_eq!(api.audited("environment.updated").await, 1);
    assert_eq!(revision(&api, &sample.live).await, before, "a name is not evaluated");
    for on in [true, true, false] {
        let (status, reply) = api.put(&path, json!({"log_raw_context": on})).await;
        assert_eq!((status, &reply["data"]["log_raw_context"]), (200, &json!(on)));
        let sql = "SELECT log_raw_context FROM environment_snapshots WHERE environment_id";
        assert_eq!(api.one::<bool>(&format!("{sql} = '{}'", sample.live)).await, on);
    }
    assert_eq!(api.audited("environment.raw_logging_changed").await, 2);
    for _ in 0..2 {
        assert_eq!(notified(&mut listener).await, sample.live);
    }
    assert!(revision(&api, &sample.live).await > before);
    assert_eq!(api.version(&sample.live).await, 2, "it is no publish");
    assert_eq!(api.refused(Method::PUT, &path, &json!({"name": " "})).await, ["name"]);
    let editor = api.member(api.organization, "editor").await;
    assert_eq!(api.send(Method::PUT, &editor, &path, Some(&json!({"log_raw_context": true}))).await.0, 403);
    let stranger = api.other_organization().await;
    assert_eq!(api.send(Method::PUT, &stranger, &path, Some(&json!({"log_raw_context": true}))).await.0, 404);
    let elsewhere = format!("/projects/{}/environments/{}", sample.project, Uuid::now_v7());
    assert_eq!(api.put(&elsewhere, json!({})).await.0, 404);
}

#[tokio::test]
async fn a_pseudonym_key_is_destroyed_for_good() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let path = format!("/projects/{}/environments/{}/pseudonym-key", sample.project, sample.live);
    let of = |column: &str, environment: &str| {
        format!("SELECT {column} FROM environment_snapshots WHERE environment_id = '{environment}'")
    };
    let key: Vec<u8> = api.one(&of("pseudonym_key", &sample.live)).await;
    let id: Uuid = api.one(&of("pseudonym_key_id", &sample.live)).await;
    let others: Vec<u8> = api.one(&of("pseudonym_key", &sample.staging)).await;
    let before = revision(&api, &sample.live).await;
    let mut listener = api.listen("flagmint_config").await;
    let editor = api.member(api.organization, "editor").await;
    let stranger = api.other_organization().await;
    for (token, expected) in [(&editor, 403), (&stranger, 404)] {
        assert_eq!(api.send(Method::DELETE, token, &path, None).await.0, expected);
    }
    assert_eq!(api.one::<Vec<u8>>(&of("pseudonym_key", &sample.live)).await, key);
    let (status, reply) = api.send(Method::DELETE, &api.token, &path, None).await;
    assert_eq!((status, &reply["data"]["destroyed_key_id"]), (200, &json!(id)), "{reply}");
    let new: Vec<u8> = api.one(&of("pseudonym_key", &sample.live)).await;
    let new_id: Uuid = api.one(&of("pseudonym_key_id", &sample.live)).await;
    assert_ne!((&new, new_id), (&key, id));
    assert_eq!(text(&reply["data"]["pseudonym_key_id"]), new_id.to_string());
    assert_eq!(api.one::<Vec<u8>>(&of("pseudonym_key", &sample.staging)).await, others);
    assert_eq!(notified(&mut listener).await, sample.live);
    assert!(revision(&api, &sample.live).await > before);
    assert_eq!(api.audited("environment.pseudonym_key_destroyed").await, 1);
    let entry: String = api
        .one("SELECT payload::text FROM audit_entries WHERE event_type = 'environment.pseudonym_key_destroyed'")
        .await;
    let entry: Value = serde_json::from_str(&entry).unwrap();
    assert_eq!(entry.as_object().unwrap().len(), 5, "ids and numbers alone: {entry}");
    assert_eq!((&entry["destroyed_key_number"], &entry["pseudonym_key_number"]), (&json!(1), &json!(2)));
    assert_eq!(api.one::<i32>(&of("pseudonym_key_number", &sample.live)).await, 2);
    assert_eq!(api.one::<i32>(&of("pseudonym_key_number", &sample.staging)).await, 1);
}
