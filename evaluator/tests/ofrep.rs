//! OFREP over real HTTP: replies, ETags, errors, and what lands in the log (data-plane.md section 9).

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flagmint_evaluator::directory::KeyFacts;
use flagmint_evaluator::http::Settings;
use flagmint_evaluator::quota::{Limit, Meter};
use flagmint_evaluator::serve::Limits;
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};
use serde_json::{Value, json};
use support::{KEY, Plane, facts, identity};

/// A flag for each kind of answer.
fn configuration() -> String {
    let id = |number: u128| uuid::Uuid::from_u128(number).to_string();
    let variation = |number: u128, value: Value, key: Value| json!({ "id": id(number), "value": value, "key": key });
    let rule = json!({ "id": id(50), "kind": "custom", "variation_id": id(2),
        "conditions": [{ "attribute": "country", "operator": "eq", "value": "IE" }] });
    let half = json!({ id(60): { "strategy": "percentage", "percentage": 100, "salt": "s" } });
    let flags = json!([
        { "id": id(1), "key": "static", "type": "string", "default_value": "blue",
          "variations": [variation(11, json!("blue"), json!("sky"))] },
        { "id": id(2), "key": "targeted", "type": "boolean", "default_value": false, "targeting_rules": [rule],
          "variations": [variation(2, json!(true), json!("enabled")), variation(3, json!(false), Value::Null)] },
        { "id": id(4), "key": "split", "type": "boolean", "default_value": false, "rollouts": half, "variations": [] },
        { "id": id(5), "key": "off", "type": "number", "is_active": false, "default_value": 1.5, "variations": [] },
        { "id": id(6), "key": "faulty", "type": "json", "default_value": "no object", "variations": [] },
        { "id": id(7), "key": "naïve / key", "type": "json", "default_value": { "a": [1] }, "variations": [] },
    ]);
    json!({ "version": 7, "flags": flags, "segments": {}, "metadata": { "static": { "team": "web" } } }).to_string()
}

async fn plane() -> Plane {
    let plane = Plane::start().await;
    plane.publish(&configuration(), 8, true);
    plane
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
}

#[tokio::test]
async fn one_flag_says_its_value_and_why() {
    let plane = plane().await;
    let metadata = |reason: &str| json!({ "flagmintReason": reason, "configVersion": 8 });
    let success = |key: &str, value: Value, reason: &str, variant: Value, metadata: Value| {
        let mut success = json!({ "key": key, "value": value, "reason": reason, "metadata": metadata });
        if variant != Value::Null {
            success["variant"] = variant;
        }
        success
    };
    let user = json!({ "targetingKey": "u", "country": "IE" });
    let german = json!({ "targetingKey": "u", "country": "DE" });
    let static_metadata = json!({ "team": "web", "flagmintReason": "STATIC", "configVersion": 8 });
    let faulty = json!({ "flagmintReason": "ERROR", "flagmintErrorCode": "TYPE_MISMATCH", "configVersion": 8 });
    let unnamed = uuid::Uuid::from_u128(3).to_string();
    let cases = [
        ("/static", json!({}), success("static", json!("blue"), "STATIC", json!("sky"), static_metadata)),
        (
            "/targeted",
            user.clone(),
            success("targeted", json!(true), "TARGETING_MATCH", json!("enabled"), metadata("TARGETING_MATCH")),
        ),
        ("/targeted", german, success("targeted", json!(false), "UNKNOWN", json!(unnamed), metadata("DEFAULT"))),
        ("/split", user, success("split", json!(true), "SPLIT", Value::Null, metadata("SPLIT"))),
        ("/off", json!({}), success("off", json!(1.5), "DISABLED", Value::Null, metadata("DISABLED"))),
        ("/faulty", json!({}), success("faulty", json!({}), "UNKNOWN", Value::Null, faulty)),
        (
            "/na%C3%AFve%20%2F%20key",
            json!({}),
            success("naïve / key", json!({ "a": [1] }), "STATIC", Value::Null, metadata("STATIC")),
        ),
    ];
    for (path, context, expected) in cases {
        let found = answer(plane.ofrep(path).json(&json!({ "context": context }))).await;
        assert_eq!(found, (200, expected), "{path} {context}");
    }
    let nameless = json!({ "context": { "country": "IE" } });
    let (status, body) = answer(plane.ofrep("/split").json(&nameless)).await;
    assert_eq!((status, &body["key"], &body["errorCode"]), (400, &json!("split"), &json!("TARGETING_KEY_MISSING")));
    let unknown =
        json!({ "key": "no/such", "errorCode": "FLAG_NOT_FOUND", "errorDetails": "Flag 'no/such' was not found" });
    assert_eq!(answer(plane.ofrep("/no%2Fsuch").json(&nameless)).await, (404, unknown));
    assert_eq!(answer(plane.ofrep("/%FF").json(&nameless)).await.0, 404);
}

#[tokio::test]
async fn all_flags_come_side_by_side_with_what_failed() {
    let plane = plane().await;
    let reply = plane.ofrep("?flagConfigEtag=x&flagConfigLastModified=1").json(&json!({ "context": {} }));
    let (status, body) = answer(reply).await;
    assert_eq!((status, &body["metadata"]), (200, &json!({ "configVersion": 8 })));
    let flags = body["flags"].as_array().expect("a list");
    let keys: Vec<&str> = flags.iter().map(|flag| flag["key"].as_str().expect("a key")).collect();
    assert_eq!(keys, ["static", "targeted", "split", "off", "faulty", "naïve / key"]);
    assert_eq!(flags[0]["metadata"], json!({ "team": "web", "flagmintReason": "STATIC" }));
    assert_eq!((&flags[2]["errorCode"], &flags[2]["value"]), (&json!("TARGETING_KEY_MISSING"), &Value::Null));
    for (flag, key) in flags.iter().zip(&keys).filter(|(_, key)| **key != "split") {
        let path = format!("/{}", key.replace(' ', "%20").replace('/', "%2F"));
        let (_, mut one) = answer(plane.ofrep(&path).json(&json!({ "context": {} }))).await;
        assert_eq!(one["metadata"].as_object_mut().expect("metadata").shift_remove("configVersion"), Some(json!(8)));
        assert_eq!(*flag, one, "asked for alone, {key} is the same");
    }
}

async fn tagged(plane: &Plane, context: &Value, if_none_match: &str) -> (u16, String, String) {
    let mut request = plane.ofrep("").json(&json!({ "context": context }));
    if !if_none_match.is_empty() {
        request = request.header("if-none-match", if_none_match);
    }
    let answer = request.send().await.expect("an answer");
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(header("access-control-allow-origin").as_deref(), Some("*"));
    assert!(header("x-ratelimit-remaining").is_some());
    (answer.status().as_u16(), header("etag").expect("an ETag"), answer.text().await.expect("a body"))
}

#[tokio::test]
async fn what_a_client_holds_is_neither_decided_nor_counted_again() {
    let plane = plane().await;
    let context = json!({ "targetingKey": "u", "deep": { "b": 1, "a": 2 }, "country": "IE" });
    let (status, tag, body) = tagged(&plane, &context, "").await;
    assert!(status == 200 && tag.starts_with('"') && !body.is_empty());
    let reordered = json!({ "country": "IE", "deep": { "a": 2.0, "b": 1 }, "targetingKey": "u" });
    for (context, sent) in [
        (&context, tag.clone()),
        (&context, format!("W/{tag}")),
        (&context, "*".into()),
        (&context, format!("\"x,y\", {tag}")),
        (&reordered, tag.clone()),
    ] {
        assert_eq!(tagged(&plane, context, &sent).await, (304, tag.clone(), String::new()), "{sent}");
    }
    for other in [json!({ "targetingKey": "v", "deep": { "b": 1, "a": 2 }, "country": "IE" }), json!({})] {
        let (status, other_tag, _) = tagged(&plane, &other, &tag).await;
        assert!(status == 200 && other_tag != tag);
    }
    assert_eq!(tagged(&plane, &context, "\"else\"").await.0, 200);
    plane.publish(&configuration(), 9, true);
    let (status, newer, _) = tagged(&plane, &context, &tag).await;
    assert!(status == 200 && newer != tag);

    let batches = plane.recorded().await;
    let calls: Vec<_> = batches.iter().flat_map(|(_, batch)| &batch.calls).collect();
    let decisions: usize = batches.iter().map(|(_, batch)| batch.decisions.len()).sum();
    assert_eq!((calls.len(), calls.iter().map(|call| call.api_calls).sum::<u32>(), decisions), (5, 5, 5 * 6));
}

#[tokio::test]
async fn a_gradual_step_changes_the_tag_within_one_version() {
    let plane = plane().await;
    let start = chrono::Utc::now().to_rfc3339();
    let rollout = json!({ "strategy": "gradual", "increment": 1, "interval_hours": 0.0003, "target_percentage": 90,
        "start_at": start, "salt": "s" });
    let flag = json!({ "key": "g", "type": "boolean", "default_value": false, "rollouts": { "r": rollout } });
    plane.publish(&json!({ "version": 9, "flags": [flag] }).to_string(), 9, true);
    let context = json!({ "targetingKey": "u" });
    let (_, first, _) = tagged(&plane, &context, "").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, tag, _) = tagged(&plane, &context, &first).await;
        assert_eq!(status == 304, tag == first);
        if tag != first {
            break;
        }
        assert!(Instant::now() < deadline, "a step every 1.08 s does not show");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn failures_speak_the_protocol() {
    let plane = plane().await;
    let deep = format!("{{\"context\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let cases = [
        ("", "PARSE_ERROR"),
        ("{\"context\":", "PARSE_ERROR"),
        (&deep, "PARSE_ERROR"),
        ("{}", "INVALID_CONTEXT"),
        ("[]", "INVALID_CONTEXT"),
        ("{\"context\":null}", "INVALID_CONTEXT"),
        ("{\"context\":\"u\"}", "INVALID_CONTEXT"),
        ("{\"context\":{\"targetingKey\":7}}", "INVALID_CONTEXT"),
    ];
    for (body, code) in cases {
        for (path, key) in [("", Value::Null), ("/static", json!("static"))] {
            let (status, reply) = answer(plane.ofrep(path).body(body.to_owned())).await;
            assert_eq!((status, &reply["errorCode"], &reply["key"]), (400, &json!(code), &key), "{body:.40}");
            assert!(reply["errorDetails"].as_str().is_some_and(|details| !details.is_empty()));
            assert_eq!(reply.get("key").is_some(), key != Value::Null, "no key where none was asked for");
        }
    }
    let huge = format!("{{\"context\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20));
    let (status, reply) = answer(plane.ofrep("").body(huge)).await;
    assert_eq!((status, &reply["error"]), (413, &json!("payload_too_large")));

    let url = format!("http://{}/ofrep/v1/evaluate/flags", plane.address);
    let ask = || plane.http.post(&url).json(&json!({ "context": {} }));
    for request in [ask(), ask().bearer_auth("ff_no"), ask().header("x-api-key", "no").bearer_auth(KEY)] {
        assert_eq!(answer(request).await, (401, Value::Null));
    }
    assert_eq!(answer(ask().bearer_auth(KEY)).await.0, 200);
    assert_eq!(answer(ask().header("x-api-key", KEY).bearer_auth("no")).await.0, 200);

    let preflight =
        plane.http.request(reqwest::Method::OPTIONS, format!("{url}/static")).send().await.expect("an answer");
    assert_eq!(preflight.status(), 204);
    assert!(
        preflight.headers()["access-control-allow-headers"].to_str().is_ok_and(|text| text.contains("authorization"))
    );

    plane.directory.put_key(KeyFacts { rate_limit_per_minute: 1, ..facts(KEY) });
    let mut last = plane.ofrep("").json(&json!({ "context": {} })).send().await.expect("an answer");
    for _ in 0..3 {
        last = plane.ofrep("").json(&json!({ "context": {} })).send().await.expect("an answer");
    }
    assert_eq!(last.status(), 429, "three more within two minutes");
    let wait: u64 = last.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&wait));
    assert_eq!(last.json::<Value>().await.expect("JSON")["error"], "RATE_LIMITED");

    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    assert_eq!(answer(plane.ofrep("").json(&json!({ "context": {} }))).await, (401, Value::Null));
    plane.directory.put_key(facts(KEY));
    plane.publish(&configuration(), 10, false);
    assert_eq!(answer(plane.ofrep("").json(&json!({ "context": {} }))).await, (403, Value::Null));
}

#[tokio::test]
async fn switched_off_ofrep_is_forbidden_and_the_rest_is_not() {
    let settings = Settings { ofrep: false, ..Settings::default() };
    let plane = Plane::start_with(settings, Limits::default()).await;
    for path in ["", "/new-checkout", "/no-such"] {
        let answer = plane.ofrep(path).json(&json!({ "context": {} })).send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.text().await.expect("text").as_str()), (403, ""), "{path}");
    }
    let url = format!("http://{}/ofrep/v1/evaluate/flags", plane.address);
    assert_eq!(plane.http.post(url).send().await.expect("an answer").status(), 401, "who asks is told first");
    assert_eq!(plane.evaluate().json(&json!({})).send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn over_the_monthly_limit_only_what_is_held_already_is_served() {
    let plane = plane().await;
    let context = json!({ "targetingKey": "u" });
    let (_, tag, _) = tagged(&plane, &context, "").await;
    let until_us = chrono::Utc::now().timestamp_micros() + 7_000_000_000;
    let limit = Limit { meter: Meter::ApiCalls, until_us, plan: "Free".into() };
    plane.directory.set_limits(HashMap::from([(identity().organization, vec![limit])]));
    for path in ["", "/static"] {
        let answer = plane.ofrep(path).json(&json!({ "context": context })).send().await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (429, &"3600".parse().unwrap()),
            "{path}"
        );
        assert_eq!(answer.json::<Value>().await.expect("JSON")["error"], "QUOTA_EXCEEDED");
    }
    assert_eq!(tagged(&plane, &context, &tag).await.0, 304, "it costs no call");
    assert_eq!(answer(plane.ofrep("/none").json(&json!({ "context": context }))).await.0, 404);
    plane.directory.set_limits(HashMap::new());
    assert_eq!(tagged(&plane, &context, "").await.0, 200);
    let batches = plane.recorded().await;
    assert_eq!(batches.iter().flat_map(|(_, batch)| &batch.calls).map(|call| call.api_calls).sum::<u32>(), 2);
}

#[tokio::test]
async fn calls_are_recorded_as_ofrep_and_failures_without_a_decision() {
    let plane = plane().await;
    let context = json!({ "context": { "targetingKey": "planted-key-17", "email": "planted@example.com" } });
    for path in ["/static", "/split", ""] {
        assert_eq!(answer(plane.ofrep(path).json(&context)).await.0, 200);
    }
    assert_eq!(answer(plane.ofrep("/none").json(&context)).await.0, 404);
    assert_eq!(answer(plane.ofrep("/split").json(&json!({ "context": {} }))).await.0, 400);
    assert_eq!(answer(plane.ofrep("/split").body("x")).await.0, 400);
    assert_eq!(answer(plane.ofrep("").json(&json!({}))).await.0, 400);
    let batches = plane.recorded().await;
    let calls: Vec<_> = batches.iter().flat_map(|(_, batch)| &batch.calls).collect();
    assert_eq!(calls.iter().map(|call| call.api_calls).sum::<u32>(), 3);
    assert_eq!(calls.iter().map(|call| call.decisions).sum::<u32>(), 1 + 1 + 6);
    let mut failures: Vec<_> = calls.iter().filter_map(|call| call.error_code).collect();
    failures.sort_unstable();
    let expected =
        [ErrorCode::TargetingKeyMissing, ErrorCode::ParseError, ErrorCode::InvalidContext, ErrorCode::FlagNotFound];
    assert_eq!(failures, expected);
    assert!(calls.iter().all(|call| call.error_code.is_none() || call.decisions + call.api_calls == 0));
    for (_, batch) in &batches {
        let is_ofrep = |caller: &flagmint_schemas::batch::Caller| {
            (caller.transport, caller.trigger) == (Transport::Ofrep, Trigger::Ofrep)
        };
        assert!(batch.callers.iter().all(is_ofrep), "{:?}", batch.callers);
        assert!(!format!("{batch:?}").contains("planted"));
    }
}
