//! Config-sync and events through the whole binary: real publishes, a restart in between, and what people then see in analytics.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::sse::Events;
use crate::support::{PATIENCE, Person, Place, Server, Shop};
use crate::sync_client::{Effect, SyncClient};

/// Opens a stream of configuration.
async fn open(person: &Person, shop: &Shop, client: &mut SyncClient, ask: &str) -> Events {
    let session = session(person, shop, client).await;
    let mut events = Events::open(&person.http, &person.url, &format!("sessionId={session}&{ask}")).await;
    assert!(events.next().await.is_some_and(|(name, _)| name == "connected"));
    events
}

/// Gives the client the next event.
async fn give(events: &mut Events, client: &mut SyncClient) -> (String, Effect) {
    let (name, data) = events.next().await.expect("the stream goes on");
    let effect = client.receive(&data.to_string());
    (name, effect)
}

async fn session(person: &Person, shop: &Shop, client: &mut SyncClient) -> String {
    let request = person.http.post(format!("{}/auth/asl-handshake", person.url)).header("x-api-key", &shop.key);
    let answer = request.json(&client.ask()).send().await.expect("an answer");
    client.agree(&answer.json::<Value>().await.expect("JSON")["data"])
}

/// What a client by REST is sent.
async fn fetch(person: &Person, shop: &Shop, client: &mut SyncClient, more: &str) -> Vec<(String, Effect)> {
    let session = session(person, shop, client).await;
    let url = format!("{}/evaluator/v2/flags/config?sessionId={session}{more}", person.url);
    let answer = person.http.get(url).header("x-api-key", &shop.key).send().await.expect("an answer");
    let body: Value = answer.json().await.expect("JSON");
    let payloads = body["data"]["payloads"].as_array().unwrap_or_else(|| panic!("{body}")).clone();
    let give =
        |payload: &Value| (payload["type"].as_str().expect("a type").to_owned(), client.receive(&payload.to_string()));
    payloads.iter().map(give).collect()
}

/// The version and flags of `GET /evaluator/config`.
async fn full(person: &Person, shop: &Shop) -> (u64, Vec<Value>) {
    let request = person.http.get(format!("{}/evaluator/config", person.url)).header("x-api-key", &shop.key);
    let mut data = request.send().await.expect("an answer").json::<Value>().await.expect("JSON")["data"].take();
    let mut flags = data["flags"].as_array_mut().expect("flags").split_off(0);
    flags.sort_by_key(|flag| flag["key"].as_str().map(str::to_owned));
    (data["version"].as_u64().expect("a version"), flags)
}

fn held(client: &SyncClient) -> (u64, Vec<Value>) {
    (client.version.unwrap_or_default(), client.flags.values().cloned().collect())
}

async fn publish(person: &Person, shop: &Shop, number: u32) {
    match number % 3 {
        0 => {
            let path = format!(
                "/projects/{}/flags/{}/environments/{}/rollouts",
                shop.project_id, shop.flag_id, shop.environment_id
            );
            person.post(&path, json!({ "strategy": "percentage", "percentage": number })).await;
        }
        1 => {
            let flag = json!({ "name": format!("Flag {number}"), "type": "json", "analytics_enabled": true });
            person.post(&format!("/projects/{}/flags", shop.project_id), flag).await;
        }
        _ => {
            let path = format!("/projects/{}/flags/{}/variations", shop.project_id, shop.flag_id);
            let variations = person.get(&path).await["data"].as_array().expect("a list").clone();
            let mut on = variations[0].clone();
            on["name"] = json!(format!("On {number}"));
            let request = person.http.request(Method::PUT, format!("{}{path}", person.url)).bearer_auth(&person.token);
            let answer = request.json(&json!({ "updates": [on] })).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_follow_each_other_over_a_restart() {
    let place = Place::new().await;
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let (mut client, mut absent) = (SyncClient::default(), SyncClient::default());
    let mut events = open(&person, &shop, &mut client, "fullConfig=true").await;
    assert_eq!(give(&mut events, &mut client).await, ("lease".into(), Effect::WantsFull));
    assert_eq!(give(&mut events, &mut client).await, ("fullConfig".into(), Effect::Replaced));
    assert_eq!(fetch(&person, &shop, &mut absent, "").await.len(), 2);
    let first = client.version.expect("a version");
    assert_eq!(held(&absent), held(&client));
    for number in 0..6 {
        publish(&person, &shop, number).await;
        assert_eq!(give(&mut events, &mut client).await, ("delta".into(), Effect::Applied));
        assert_eq!(client.version, Some(first + u64::from(number) + 1), "one delta for each publish");
    }
    assert_eq!(held(&client), full(&person, &shop).await);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    // Whoever was away is led through what happened before the restart, from Postgres.
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let since = format!("&sinceVersion={first}");
    let expected = [("lease".to_owned(), Effect::WantsFull), ("deltas".to_owned(), Effect::Applied)];
    assert_eq!(fetch(&person, &shop, &mut absent, &since).await, expected);
    assert_eq!(held(&absent), full(&person, &shop).await);
    let ask = format!("fullConfig=false&sinceVersion={}", first + 6);
    let mut events = open(&person, &shop, &mut client, &ask).await;
    assert_eq!(give(&mut events, &mut client).await, ("lease".into(), Effect::Renewed));
    publish(&person, &shop, 6).await;
    assert_eq!(give(&mut events, &mut client).await, ("delta".into(), Effect::Applied));
    assert_eq!(held(&client), full(&person, &shop).await);
    assert_eq!(client.version, Some(first + 7));
    let qa =
        person.http.get(format!("{}/evaluator/v2/qa/config-sync/clock", server.url)).header("x-api-key", &shop.key);
    assert_eq!(qa.send().await.expect("an answer").status(), 404, "not without --qa-routes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_can_be_expired_in_a_test() {
    let place = Place::new().await;
    let mut command = crate::support::flagmint(&place.data_dir());
    command.args(["--postgres", &place.database, "--qa-routes"]);
    let server = Server::start(command);
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let mut client = SyncClient::default();
    fetch(&person, &shop, &mut client, "").await;
    let before_ms = client.expires_at_ms;
    let url = format!("{}/evaluator/v2/qa/config-sync/clock/advance", server.url);
    let request = person.http.post(url).header("x-api-key", &shop.key).json(&json!({ "ms": 86_400_000 }));
    let clock = request.send().await.expect("an answer").json::<Value>().await.expect("JSON")["data"].take();
    assert!(clock["effectiveNowMs"].as_i64().expect("a time") > before_ms - 60_000, "the lease has run out: {clock}");
    fetch(&person, &shop, &mut client, "").await;
    assert!(client.expires_at_ms >= before_ms + 86_400_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_report_stands_beside_what_was_served() {
    let place = Place::new().await;
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    let served = shop.wait_until_served(&person.http, &server.url).await;
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let event = |kind: &str, user: &str, count: u32| {
        json!({ "flagKey": "checkout", "kind": kind, "eventName": "bought", "variationValue": true, "userKey": user, "count": count,
            "timestamp": now })
    };
    let batch = json!({ "events": [event("evaluation", "reported-1", 40), event("evaluation", "reported-2", 2), event("custom", "goal-only", 1),
        event("custom", "reported-1", 1), event("error", "reported-1", 1), json!({ "flagKey": "nowhere" })] });
    let post =
        || person.http.post(format!("{}/evaluator/events", server.url)).header("x-api-key", &shop.key).json(&batch);
    for expected in [json!({ "accepted": 5, "dropped": 1 }), json!({ "accepted": 0, "dropped": 6 })] {
        let answer: Value = post().send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(answer["data"], expected, "the second is the first again");
    }
    let metrics = format!("/flags/{}/metrics", shop.flag_id);
    let totals = |answer: &Value| answer["data"]["totals"].clone();
    let is_there = |answer: &Value| totals(answer)["app_errors"] == 1 && totals(answer)["served"].as_u64() >= Some(1);
    let answer = person.get_until(&metrics, is_there).await;
    let found = totals(&answer);
    let count = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("{name} in {found}"));
    assert_eq!((count("reported"), count("goals"), count("app_errors"), count("errors")), (42, 2, 1, 0), "{found}");
    assert!(count("served") <= served && count("evaluations") == count("served") + 42, "{found}");
    assert_eq!(
        count("unique_users"),
        3,
        "the one served and the two that reported; a goal makes nobody a user: {found}"
    );
    let on =
        answer["data"]["variations"].as_array().expect("a list").iter().find(|one| one["value"] == true).expect("on");
    assert!(on["evaluations"].as_u64() >= Some(42), "reports are told by their value: {on}");
    let reasons = answer["data"]["reasons"].as_array().expect("a list");
    let unknown = reasons.iter().find(|one| one["reason"] == "UNKNOWN").expect("reports have no reason");
    assert!(unknown["evaluations"].as_u64() >= Some(42), "{unknown}");
    let usage = person.get_until("/billing/usage", |usage| usage["trackEvents"]["used"] == 3).await;
    let management_writes = 2;
    assert!(
        usage["apiCalls"]["used"].as_u64().expect("a count") <= served + management_writes,
        "events are no calls: {usage}"
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        let audit = person.get("/audit/reconciliation").await;
        if audit["data"]["holds"] == true && audit["data"]["totals"]["in_flight"] == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{audit}");
    }
}
