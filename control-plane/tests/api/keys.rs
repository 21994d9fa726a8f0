//! KEY-1 to KEY-3.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::support::{Api, notified, text};

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_its_hash() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let path = format!("/api-keys/{}", sample.project);
    let mut listener = api.listen("flagmint_keys").await;
    let key = api.made(&path, json!({"name": "web", "environment_id": sample.live})).await;
    let secret = text(&key["key"]);
    assert!(secret.starts_with("ff_") && secret.len() == 67, "{secret}");
    assert_eq!(key["masked"], json!(format!("{}…{}", &secret[..7], &secret[63..])));
    assert_eq!(key["environment_name"], json!("Live"));
    assert_eq!(key["metadata"], json!({"permissions": "read", "rate_limit_per_minute": null}));
    for member in ["expires_at", "revoked_at", "last_used_at"] {
        assert_eq!(key.get(member), Some(&Value::Null), "{member}");
    }
    assert_eq!(notified(&mut listener).await, text(&key["id"]));
    let hash: Vec<u8> = api.one("SELECT key_hash FROM api_keys").await;
    assert_eq!(hash, Sha256::digest(&secret).to_vec());
    let audit: String = api.one("SELECT payload::text FROM audit_entries WHERE event_type = 'api_key.created'").await;
    assert!(!audit.contains(&secret[10..60]), "{audit}");

    let listed = api.got(&path).await;
    assert_eq!(listed["data"][0]["key"], key["masked"]);
    let gone = format!("{path}/{}", text(&key["id"]));
    let (status, reply) = api.send(Method::DELETE, &api.token, &gone, None).await;
    assert_eq!(status, 200, "{reply}");
    assert!(reply["data"]["revoked_at"].is_string());
    assert_eq!(notified(&mut listener).await, text(&key["id"]));
    let (status, reply) = api.send(Method::DELETE, &api.token, &gone, None).await;
    assert_eq!((status, &reply["error"]), (409, &json!("conflict")));
    assert_eq!(api.got(&path).await["meta"]["total"], json!(1)); // Revoked ones stay in the list.
    assert_eq!((api.audited("api_key.created").await, api.audited("api_key.revoked").await), (1, 1));
    assert_eq!(api.version(&sample.live).await, 2);
}

#[tokio::test]
async fn options_validation_and_roles() {
    let api = Api::start().await;
    let [sample, other] = [api.sample("boolean").await, api.sample("boolean").await];
    let path = format!("/api-keys/{}", sample.project);
    let body = json!({"name": "a", "environment_id": sample.staging, "permissions": "admin",
        "expires_at": "2999-01-01T00:00:00Z", "rate_limit_per_minute": 0});
    let key = api.made(&path, body).await;
    assert_eq!(key["metadata"], json!({"permissions": "admin", "rate_limit_per_minute": 0}));
    assert_eq!(key["expires_at"], json!("2999-01-01T00:00:00Z"));
    let environment = &sample.live;
    for (body, paths) in [
        (json!({"name": "a"}), vec!["environment_id"]),
        (json!({"environment_id": environment}), vec!["name"]),
        (json!({"name": " ", "environment_id": environment, "permissions": "root"}), vec!["name", "permissions"]),
        (json!({"name": "a", "environment_id": environment, "expires_at": "2001-01-01T00:00:00Z"}), vec!["expires_at"]),
        (json!({"name": "a", "environment_id": environment, "expires_at": "soon"}), vec!["expires_at"]),
        (
            json!({"name": "a", "environment_id": environment, "rate_limit_per_minute": -1}),
            vec!["rate_limit_per_minute"],
        ),
    ] {
        assert_eq!(api.refused(Method::POST, &path, &body).await, paths, "{body}");
    }
    for environment in [other.live.clone(), Uuid::now_v7().to_string()] {
        assert_eq!(api.post(&path, json!({"name": "a", "environment_id": environment})).await.0, 404);
    }
    let of_other = format!("/api-keys/{}/{}", other.project, text(&key["id"]));
    assert_eq!(api.send(Method::DELETE, &api.token, &of_other, None).await.0, 404);
    let viewer = api.member(api.organization, "viewer").await;
    let body = json!({"name": "a", "environment_id": environment});
    assert_eq!(api.send(Method::POST, &viewer, &path, Some(&body)).await.0, 403);
    assert_eq!(api.send(Method::GET, &viewer, &path, None).await.0, 403);
    assert_eq!(api.send(Method::DELETE, &viewer, &format!("{path}/{}", text(&key["id"])), None).await.0, 403);
}
