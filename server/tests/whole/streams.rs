//! Streams over two instances that share a Postgres: a handshake at one, the stream from the other, contexts posted at either, and
//! what ends a stream: a key revoked by a person, a limit that is reached, a deploy.

use std::time::Duration;

use crate::sse::Events;
use crate::support::{PATIENCE, Person, Place, Server, Shop};
use chrono::{Duration as Days, Utc};
use serde_json::{Value, json};

async fn handshake(http: &reqwest::Client, url: &str, key: &str) -> String {
    let request = http.post(format!("{url}/auth/asl-handshake")).header("x-api-key", key);
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    answer["data"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn open(http: &reqwest::Client, url: &str, session: &str) -> Events {
    Events::open(http, url, &format!("sessionId={session}")).await
}

async fn post(http: &reqwest::Client, url: &str, key: &str, id: &Value, user: &str) -> (u16, Value) {
    let body = json!({ "connectionId": id, "context": { "kind": "user", "key": user, "country": "IE" } });
    let request = http.post(format!("{url}/evaluator/v2/flags/context")).header("x-api-key", key).json(&body);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn rule_for_ireland(person: &Person, shop: &Shop) {
    let flag = format!("/projects/{}/flags/{}", shop.project_id, shop.flag_id);
    let variations = person.get(&format!("{flag}/variations")).await;
    let off = variations["data"].as_array().expect("a list").iter().find(|one| one["value"] == false).expect("off");
    let rule = json!({ "kind": "custom", "name": "Ireland", "variation_id": off["id"],
        "conditions": [{ "attribute": "user.country", "operator": "eq", "value": "IE" }] });
    let in_environment = format!("/projects/{}/envs/{}/flags/{}", shop.project_id, shop.environment_id, shop.flag_id);
    person.post(&format!("{in_environment}/targeting-rules"), rule).await;
}

async fn is_ready(http: &reqwest::Client, server: &Server, shop: &Shop) {
    shop.wait_until_served(http, &server.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_opened_fed_and_ended_across_instances() {
    let (place, other_files) = (Place::new().await, tempfile::tempdir().expect("a directory"));
    let mut here = place.start();
    let there = place.start_in(&other_files.path().join("data"));
    let person = Person::sign_in(&here.url).await;
    let http = &person.http;
    let shop = Shop::open(&person).await;
    is_ready(http, &here, &shop).await;
    is_ready(http, &there, &shop).await;

    // A session of one instance opens a stream on the other, once on either.
    let session = handshake(http, &here.url, &shop.key).await;
    let mut stream = open(http, &there.url, &session).await;
    let id = stream.next_named("connected").await.expect("connected")["connectionId"].clone();
    assert_eq!(stream.next_named("flags").await.expect("flags")["flags"], json!({ "checkout": true }));
    for url in [&here.url, &there.url] {
        let error = open(http, url, &session).await.next_named("error").await;
        assert_eq!(error, Some(json!({ "error": "session_id_missing" })), "a session is good once");
    }

    // A publish is pushed; a context posted at the other instance finds its way.
    assert_eq!(post(http, &here.url, &shop.key, &id, "u1").await.0, 202);
    assert_eq!(stream.next_named("flags").await.expect("flags")["flags"], json!({ "checkout": true }));
    rule_for_ireland(&person, &shop).await;
    assert_eq!(stream.next_named("flags").await.expect("flags")["flags"], json!({ "checkout": false }));

    // A reached limit, told by the control plane, is told to the client at its next context.
    let pool = flagmint_control_plane::connect(&place.database).expect("a URL");
    let organization: uuid::Uuid =
        sqlx::query_scalar("SELECT id FROM organizations").fetch_one(&pool).await.expect("one");
    let month_end = Some(Utc::now() + Days::days(3));
    flagmint_control_plane::set_limit(&pool, organization, "api_calls", month_end).await.expect("set");
    let deadline = std::time::Instant::now() + PATIENCE;
    while post(http, &here.url, &shop.key, &id, "u1").await.0 == 202 {
        assert!(std::time::Instant::now() < deadline, "the limit does not come into force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let message = stream.next_named("quota_exceeded").await.expect("the quota message");
    assert_eq!((&message["error"], &message["retryAfter"]), (&json!("QUOTA_EXCEEDED"), &json!(3600)));
    assert_eq!(post(http, &here.url, &shop.key, &id, "u1").await.0, 404, "its connection has ended");
    flagmint_control_plane::set_limit(&pool, organization, "api_calls", None).await.expect("lifted");
    while shop.evaluate(http, &here.url, "u1").await.expect("an answer").0 == 429 {
        assert!(std::time::Instant::now() < deadline, "the limit stays in force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // A deploy ends the streams of the instance that stops, in order.
    let session = handshake(http, &there.url, &shop.key).await;
    let mut stream = open(http, &here.url, &session).await;
    let id = stream.next_named("connected").await.expect("connected")["connectionId"].clone();
    here.signal(libc::SIGTERM);
    assert_eq!(stream.next_named("error").await, None, "no error, just the end");
    assert_eq!(here.wait().code(), Some(0));
    assert_eq!(post(http, &there.url, &shop.key, &id, "u1").await.0, 404, "lost with its instance");

    // A revoked key ends its streams at once.
    let session = handshake(http, &there.url, &shop.key).await;
    let mut stream = open(http, &there.url, &session).await;
    stream.next_named("flags").await.expect("flags");
    let person = Person::sign_in(&there.url).await;
    let keys = person.get(&format!("/api-keys/{}", shop.project_id)).await;
    let own = keys["data"]["data"].as_array().expect("a list").iter().find(|key| key["name"] == "test");
    let key_id = own.expect("the shop's")["id"].as_str().expect("an id").to_owned();
    let revoke = http.delete(format!("{}/api-keys/{}/{key_id}", there.url, shop.project_id)).bearer_auth(&person.token);
    assert!(revoke.send().await.expect("an answer").status().is_success());
    assert_eq!(stream.next_named("error").await, Some(json!({ "error": "invalid_api_key" })));
}
