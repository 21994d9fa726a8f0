//! `POST /evaluator/events` over real HTTP: what is accepted, what is dropped and counted, and what lands in the log.

mod support;

use flagmint_evaluator::directory::KeyFacts;
use flagmint_schemas::batch::{Batch, Call, DecisionRow};
use flagmint_schemas::context_key::ContextKey;
use flagmint_schemas::decision::{Reason, Transport, Trigger};
use flagmint_schemas::ids::{KeyId, VariationId};
use serde_json::{Value, json};
use support::{CONFIGURATION, KEY, Plane, facts};
use uuid::Uuid;

fn post(plane: &Plane) -> reqwest::RequestBuilder {
    plane.http.post(format!("http://{}/evaluator/events", plane.address)).header("x-api-key", KEY)
}

async fn send(plane: &Plane, events: &Value) -> (u16, Value) {
    status_and_body(post(plane).json(&json!({ "events": events }))).await
}

async fn status_and_body(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// The reply to an accepted batch.
fn taken(accepted: usize, dropped: usize) -> (u16, Value) {
    let data = json!({ "accepted": accepted, "dropped": dropped });
    (202, json!({ "statusCode": 202, "message": "Accepted", "data": data }))
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn event(kind: &str, more: &Value) -> Value {
    let mut event = json!({ "flagKey": "new-checkout", "kind": kind, "timestamp": now() });
    for (name, value) in more.as_object().expect("an object") {
        event[name] = value.clone();
    }
    event
}

/// Calls of the events transport, each with its trigger and its one row.
fn calls(batches: &[Batch]) -> Vec<(Trigger, Call, DecisionRow, &Batch)> {
    let mut found = Vec::new();
    for batch in batches {
        let mut rows = batch.decisions.iter();
        for call in &batch.calls {
            let caller = &batch.callers[call.caller as usize];
            let rows: Vec<_> = rows.by_ref().take(call.decisions as usize).collect();
            if caller.transport == Transport::Events {
                assert_eq!(rows.len(), 1);
                found.push((caller.trigger, *call, *rows[0], batch));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_three_kinds_are_recorded_with_their_counts_and_variations() {
    let plane = Plane::start().await;
    let context = json!({ "kind": "user", "key": "planted-user-1" });
    assert_eq!(plane.evaluate().json(&json!({ "context": context })).send().await.expect("an answer").status(), 200);
    let events = json!([
        event("evaluation", &json!({ "count": 7, "variationValue": true, "userKey": "planted-user-1" })),
        event("evaluation", &json!({ "variationValue": false, "userKey": "planted-user-2" })),
        event("evaluation", &json!({ "count": 10_000, "variationValue": "neither" })),
        event("custom", &json!({ "eventName": "bought", "userKey": "planted-user-1", "extra": { "amount": 5 } })),
        event("error", &json!({ "extra": { "message": "planted@example.com failed", "name": "TypeError" } })),
    ]);
    let request =
        post(&plane).header("user-agent", "Flagmint-PHP/0.1.4 (laravel/0.2)").json(&json!({ "events": events }));
    assert_eq!(status_and_body(request).await, taken(5, 0));
    let batches: Vec<Batch> = plane.recorded().await.into_iter().map(|(_, batch)| batch).collect();
    let calls = calls(&batches);
    let variation = |number: u128| VariationId(if number == 0 { Uuid::nil() } else { Uuid::from_u128(number) });
    let expected = [
        (Trigger::Report, 7, variation(0xa1), 0),
        (Trigger::Report, 1, variation(0xa2), 0),
        (Trigger::Report, 10_000, variation(0), 0),
        (Trigger::Goal, 1, variation(0), 1),
        (Trigger::AppError, 1, variation(0), 1),
    ];
    let found: Vec<_> = calls
        .iter()
        .map(|(trigger, call, row, batch)| {
            let outcome = &batch.outcomes[row.outcome as usize];
            assert_eq!(
                (outcome.reason, outcome.exit, outcome.flag_key.as_str()),
                (Reason::Unknown, None, "new-checkout")
            );
            assert_eq!((call.api_calls, call.connections, call.counted, call.config_version), (0, 0, true, 7));
            assert_eq!(call.call_id, calls[0].1.call_id, "one batch is one call");
            assert_eq!(batch.callers[call.caller as usize].sdk_name, "Flagmint-PHP");
            (*trigger, row.count, outcome.variation, call.track_events)
        })
        .collect();
    assert_eq!(found, expected);
    // The same user has one pseudonym, by whatever way the key came.
    let user = |at: usize| calls[at].3.contexts.get(calls[at].1.context as usize).cloned();
    let evaluated = batches
        .iter()
        .flat_map(|batch| &batch.contexts)
        .find(|context| context.attributes.is_some())
        .expect("the evaluated context");
    let reported = user(0).expect("a user");
    assert_eq!((&reported.key, reported.user_hash), (&evaluated.key, evaluated.user_hash));
    assert!(matches!(reported.key, ContextKey::Pseudonym(_)));
    assert_eq!(user(3), user(0));
    assert_ne!(user(1), user(0));
    assert_eq!((user(2), user(4)), (None, None));
    let text = format!("{batches:?}");
    assert!(!text.contains("planted"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_taken_is_dropped_one_by_one() {
    let plane = Plane::start().await;
    let good = event("evaluation", &json!({}));
    let without = |name: &str| {
        let mut event = good.clone();
        event.as_object_mut().expect("an object").shift_remove(name);
        event
    };
    let bad = [
        event("evaluation", &json!({ "flagKey": "nowhere" })),
        event("evaluation", &json!({ "flagKey": "__proto__" })),
        event("evaluation", &json!({ "flagKey": "button \"color\"" })), // No Analytics Tracking.
        event("wish", &json!({})),
        event("custom", &json!({})),
        event("evaluation", &json!({ "count": 0 })),
        event("evaluation", &json!({ "count": 10_001 })),
        event("evaluation", &json!({ "count": 9_007_199_254_740_993_u64 })),
        event("evaluation", &json!({ "timestamp": "now" })),
        event("evaluation", &json!({ "userKey": { "__proto__": "x" } })),
        event("evaluation", &json!({ "extra": "x" })),
        without("flagKey"),
        without("kind"),
        without("timestamp"),
        json!(null),
        json!([]),
        json!("x"),
        json!(1),
    ];
    let mut events: Vec<Value> = bad.to_vec();
    events.insert(3, good.clone());
    assert_eq!(send(&plane, &json!(events)).await, taken(1, bad.len()));
    assert_eq!(send(&plane, &json!([])).await, taken(0, 0));
    let many = vec![good; 600];
    assert_eq!(send(&plane, &json!(many)).await, taken(500, 100));
    let batches: Vec<Batch> = plane.recorded().await.into_iter().map(|(_, batch)| batch).collect();
    assert_eq!(calls(&batches).len(), 501);
}

#[tokio::test]
async fn a_batch_that_comes_again_is_dropped() {
    let plane = Plane::start().await;
    let second = "ff_second";
    plane.directory.put_key(KeyFacts { id: KeyId(Uuid::from_u128(5)), ..facts(second) });
    let body =
        json!({ "events": [event("custom", &json!({ "eventName": "bought" })), event("evaluation", &json!({}))] });
    let body = body.to_string();
    let send = |key: &'static str, body: String| {
        let request = plane.http.post(format!("http://{}/evaluator/events", plane.address)).header("x-api-key", key);
        status_and_body(request.body(body))
    };
    assert_eq!(send(KEY, body.clone()).await, taken(2, 0));
    assert_eq!(send(KEY, body.clone()).await, taken(0, 2));
    assert_eq!(send(KEY, format!("{body} ")).await, taken(2, 0), "other bytes");
    assert_eq!(send(second, body.clone()).await, taken(2, 0), "another key");
    // What was refused may come again.
    plane.publish(CONFIGURATION, 8, false);
    let other = body.replace("bought", "sold");
    assert_eq!(send(KEY, other.clone()).await.0, 403);
    plane.publish(CONFIGURATION, 9, true);
    assert_eq!(send(KEY, other).await, taken(2, 0));
    let batches: Vec<Batch> = plane.recorded().await.into_iter().map(|(_, batch)| batch).collect();
    assert_eq!(calls(&batches).iter().map(|(_, call, ..)| call.track_events).sum::<u32>(), 4);
}

#[tokio::test]
async fn what_is_no_list_of_events_is_refused_and_harms_nobody() {
    let plane = Plane::start().await;
    let deep =
        |inside: &str| format!("{{\"events\":[{{\"extra\":{}{inside}{}}}]}}", "[".repeat(10_000), "]".repeat(10_000));
    let cases =
        ["", "[]", "null", "{}", "{\"events\":{}}", "{\"events\":null}", "{\"events\":[1,]}", "{\"events\":[]}x"];
    for body in cases.into_iter().map(str::to_owned).chain([deep("1"), "[".repeat(100_000)]) {
        let (status, reply) = status_and_body(post(&plane).body(body.clone())).await;
        assert_eq!((status, &reply["error"]), (400, &json!("parse_error")), "{body:.60}");
    }
    assert_eq!(status_and_body(post(&plane).body(vec![0xff, 0xfe, 0x00])).await.0, 400);
    let lone_surrogate = "{\"events\":[{\"flagKey\":\"\\ud800\"}]}";
    assert_eq!(status_and_body(post(&plane).body(lone_surrogate)).await.0, 400);
    let bomb = format!("{{\"events\":[{}0]}}", "0,".repeat(131_000 - 10));
    assert!(bomb.len() <= 256 * 1024);
    assert_eq!(status_and_body(post(&plane).body(bomb)).await, taken(0, 130_991));
    let too_large = format!("{{\"events\":[\"{}\"]}}", "x".repeat(256 * 1024));
    let (status, reply) = status_and_body(post(&plane).body(too_large)).await;
    assert_eq!((status, &reply["error"]), (413, &json!("payload_too_large")));
    // Members that occur twice: the last one counts, as in JavaScript.
    let twice = format!(
        "{{\"events\":[],\"events\":[{{\"flagKey\":\"nowhere\",\"kind\":\"evaluation\",\"timestamp\":\"{}\",\"flagKey\":\"new-checkout\"}}]}}",
        now()
    );
    assert_eq!(status_and_body(post(&plane).body(twice)).await, taken(1, 0));
}

#[tokio::test]
async fn keys_limits_and_origins_are_as_everywhere() {
    let plane = Plane::start().await;
    let url = format!("http://{}/evaluator/events", plane.address);
    let answer = plane.http.post(&url).json(&json!({ "events": [] })).send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (401, &"*".parse().unwrap())
    );
    let preflight = plane.http.request(reqwest::Method::OPTIONS, &url).send().await.expect("an answer");
    assert_eq!(preflight.status(), 204);
    plane.directory.put_key(KeyFacts { rate_limit_per_minute: 1, ..facts(KEY) });
    let mut limited = None;
    // The minute may turn once under the test.
    for _ in 0..4 {
        let answer = post(&plane).json(&json!({ "events": [] })).send().await.expect("an answer");
        assert!(answer.headers().contains_key("x-ratelimit-limit"));
        limited = Some(answer).filter(|answer| answer.status() == 429).or(limited);
    }
    assert!(limited.expect("a limit").headers().contains_key("retry-after"));
}

#[tokio::test]
async fn times_that_cannot_be_right_become_the_receipts() {
    let plane = Plane::start().await;
    let before_us = chrono::Utc::now().timestamp_micros();
    let day = |days| chrono::Utc::now() - chrono::Duration::days(days);
    let events: Vec<Value> = [day(2), day(8), day(-1)]
        .iter()
        .map(|time| {
            event("evaluation", &json!({ "timestamp": time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true) }))
        })
        .collect();
    assert_eq!(send(&plane, &json!(events)).await, taken(3, 0));
    let after_us = chrono::Utc::now().timestamp_micros();
    let batches: Vec<Batch> = plane.recorded().await.into_iter().map(|(_, batch)| batch).collect();
    let times: Vec<i64> = calls(&batches).iter().map(|(_, call, ..)| call.event_time_us).collect();
    let two_days = 2 * 86_400_000_000;
    assert!((before_us - two_days - 1000..=after_us - two_days).contains(&times[0]), "{times:?}");
    assert!(times[1..].iter().all(|time| (before_us..=after_us).contains(time)), "{times:?}");
}
