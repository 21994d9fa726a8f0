//! `POST /evaluator/evaluate` over real HTTP: reply shapes, errors, limits, and what lands in the log.

mod support;

use base64::Engine as _;
use flagmint_evaluator::directory::KeyFacts;
use flagmint_schemas::context_key::ContextKey;
use flagmint_schemas::decision::{ErrorCode, Reason, Transport};
use serde_json::{Value, json};
use support::{CONFIGURATION, KEY, Plane, facts, redactor};

async fn status_and_body(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn the_reply_shape_follows_the_client() {
    let plane = Plane::start().await;
    let flat = json!({ "new-checkout": true, "button \"color\"": "blue" });
    let enveloped = json!({ "statusCode": 200, "message": "OK", "data": flat });
    let context = json!({ "kind": "user", "key": "u1", "country": "IE" });
    let header = base64::engine::general_purpose::STANDARD.encode(context.to_string());
    let with_source =
        |source: &str| json!({ "kind": "user", "key": "u1", "country": "IE", "custom": { "source": source } });

    let cases = [
        (plane.evaluate().json(&json!({ "context": context })), &flat),
        (plane.evaluate().json(&json!({ "context": with_source("SDK") })), &enveloped),
        (plane.evaluate().json(&json!({ "context": with_source("API") })), &enveloped),
        (plane.evaluate().json(&json!({ "context": with_source("mine") })), &flat),
        (plane.evaluate().json(&json!({ "context": with_source("SDK") })).header("x-flagmint-context", "e30="), &flat),
        (plane.evaluate().json(&json!({})).header("x-flagmint-context", header), &flat),
    ];
    for (request, expected) in cases {
        assert_eq!(status_and_body(request).await, (200, expected.clone()));
    }
    let alias = format!("http://{}/evaluator/evaluate/evaluator/evaluate", plane.address);
    let request = plane.http.post(alias).header("x-api-key", KEY).json(&json!({ "context": null }));
    assert_eq!(status_and_body(request).await, (200, json!({ "new-checkout": false, "button \"color\"": "blue" })));
}

#[tokio::test]
async fn bad_requests_are_named_and_harm_nobody() {
    let plane = Plane::start().await;
    let deep = format!("{{\"context\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let nul = "{\"context\":{\"kind\":\"user\",\"key\":\"a\\u0000b\"}}";
    let cases: [(&str, u16, &str); 9] = [
        ("", 400, "parse_error"),
        ("{\"context\":", 400, "parse_error"),
        ("[]", 400, "parse_error"),
        ("{\"context\":{\"a\":\"\\ud800\"}}", 400, "parse_error"),
        (&deep, 400, "parse_error"),
        ("{\"context\":[]}", 400, "invalid_context"),
        ("{\"context\":\"x\"}", 400, "invalid_context"),
        ("{\"context\":7}", 400, "invalid_context"),
        ("{\"context\":true}", 400, "invalid_context"),
    ];
    for (body, status, code) in cases {
        let (found, reply) = status_and_body(plane.evaluate().body(body.to_owned())).await;
        assert_eq!(
            (found, &reply["error"], &reply["statusCode"]),
            (status, &json!(code), &json!(status)),
            "{body:.60}"
        );
        assert!(reply["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(status_and_body(plane.evaluate().body(vec![0xff, 0xfe])).await.0, 400);
    let huge = format!("{{\"context\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20));
    let (status, reply) = status_and_body(plane.evaluate().body(huge)).await;
    assert_eq!((status, &reply["error"]), (413, &json!("payload_too_large")));
    for fine in [nul, "{\"context\":{\"__proto__\":{},\"n\":1e400}}", "{\"context\":{\"a\":9007199254740993}}"] {
        let status = status_and_body(plane.evaluate().body(fine.to_owned())).await.0;
        assert!(status == 200 || status == 400, "{fine}: {status}");
    }
    assert_eq!(status_and_body(plane.evaluate().json(&json!({}))).await.0, 200);
}

#[tokio::test]
async fn keys_end_at_once() {
    let plane = Plane::start().await;
    let ask = || status_and_body(plane.evaluate().json(&json!({})));
    assert_eq!(ask().await.0, 200);
    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    let (status, body) = ask().await;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_api_key")));
    plane.directory.put_key(KeyFacts { expires_at_us: Some(1), ..facts(KEY) });
    assert_eq!(ask().await.0, 401);
    plane.directory.put_key(facts(KEY));
    assert_eq!(ask().await.0, 200);
    let url = format!("http://{}/evaluator/evaluate", plane.address);
    for key in ["", "ff_", "\u{e9}", &KEY[1..]] {
        let request = plane.http.post(&url).header("x-api-key", key.as_bytes()).json(&json!({}));
        assert_eq!(status_and_body(request).await.0, 401, "{key:?}");
    }
    assert_eq!(status_and_body(plane.http.post(&url).json(&json!({}))).await.0, 401);
    plane.publish(CONFIGURATION, 8, false);
    let (status, body) = ask().await;
    assert_eq!((status, &body["error"]), (403, &json!("subscription_inactive")));
}

#[tokio::test]
async fn the_rate_limit_is_told_and_kept() {
    let plane = Plane::start().await;
    plane.directory.put_key(KeyFacts { rate_limit_per_minute: 3, ..facts(KEY) });
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let answer = plane.evaluate().json(&json!({})).send().await.expect("an answer");
        assert_eq!(answer.headers()["x-ratelimit-limit"], "3");
        assert!(
            answer.headers().contains_key("x-ratelimit-remaining")
                && answer.headers().contains_key("x-ratelimit-reset")
        );
        if answer.status() == 429 {
            let header = answer.headers()["retry-after"].to_str().expect("text").to_owned();
            let body: Value = answer.json().await.expect("JSON");
            assert_eq!((&body["error"], body["retryAfter"].to_string()), (&json!("RATE_LIMITED"), header));
            statuses.push(429);
        } else {
            statuses.push(answer.status().as_u16());
        }
    }
    // The minute may turn once under the test.
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert!((3..=6).contains(&admitted) && statuses[..3] == [200, 200, 200], "{statuses:?}");
    let bypass = plane.evaluate().header("x-bypass-rate-limit", "let-me-pass").json(&json!({}));
    assert_eq!(status_and_body(bypass).await.0, 200);
}

#[tokio::test]
async fn any_origin_may_ask() {
    let plane = Plane::start().await;
    let url = format!("http://{}/evaluator/evaluate", plane.address);
    let preflight = plane.http.request(reqwest::Method::OPTIONS, &url).send().await.expect("an answer");
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-max-age"], "86400");
    assert!(
        preflight.headers()["access-control-allow-headers"]
            .to_str()
            .is_ok_and(|text| text.contains("x-flagmint-wrapper-version"))
    );
    let refused = plane.http.post(&url).send().await.expect("an answer");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["access-control-allow-origin"]),
        (401, &"*".parse().unwrap())
    );
}

#[tokio::test]
async fn what_was_decided_is_in_the_log_without_raw_keys() {
    let plane = Plane::start().await;
    let context = json!({ "kind": "user", "key": "planted-key-93", "email": "planted@example.com", "country": "IE" });
    for _ in 0..3 {
        assert_eq!(status_and_body(plane.evaluate().json(&json!({ "context": context }))).await.0, 200);
    }
    assert_eq!(status_and_body(plane.evaluate().body("[]")).await.0, 400);
    let batches = plane.recorded().await;
    let decisions: usize = batches.iter().map(|(_, batch)| batch.decisions.len()).sum();
    let calls: Vec<_> = batches.iter().flat_map(|(_, batch)| &batch.calls).collect();
    assert_eq!((decisions, calls.len()), (6, 4));
    assert_eq!(calls.iter().map(|call| call.api_calls).sum::<u32>(), 3);
    assert_eq!(calls.iter().filter(|call| call.error_code == Some(ErrorCode::ParseError)).count(), 1);
    assert!(calls.iter().all(|call| call.config_version == 7));
    for (_, batch) in &batches {
        assert!(batch.callers.iter().all(|caller| caller.transport == Transport::Rest));
        assert!(batch.contexts.iter().all(|context| matches!(context.key, ContextKey::Pseudonym(_))));
        let text = format!("{batch:?}");
        assert!(!text.contains("planted"), "{text}");
        for outcome in &batch.outcomes {
            let expected = if outcome.flag_key == "new-checkout" { Reason::TargetingMatch } else { Reason::Static };
            assert_eq!((outcome.reason, outcome.analytics_enabled), (expected, outcome.flag_key == "new-checkout"));
        }
    }
}

#[tokio::test]
async fn contexts_outlast_a_publish_unless_something_else_may_be_logged_of_them() {
    let plane = Plane::start().await;
    let ask = || plane.evaluate().json(&json!({ "context": { "kind": "user", "key": "u", "salary": 90_210 } }));
    let kept = || {
        let environment = plane.directory.authenticate(KEY, 0).expect("a key").environment.clone();
        let snapshot = environment.snapshot();
        std::sync::Arc::clone(&snapshot.as_ref().expect("a snapshot").contexts)
    };
    assert_eq!(status_and_body(ask()).await.0, 200);
    let first = kept();
    plane.publish(CONFIGURATION, 8, true);
    assert!(std::sync::Arc::ptr_eq(&first, &kept()));
    assert_eq!(status_and_body(ask()).await.0, 200);
    plane.publish_with(redactor().with_private(["salary"]), CONFIGURATION, 9, true);
    assert!(!std::sync::Arc::ptr_eq(&first, &kept()));
    assert_eq!(status_and_body(ask()).await.0, 200);

    let batches = plane.recorded().await;
    let calls = batches.iter().flat_map(|(_, batch)| batch.calls.iter().map(move |call| (call, batch)));
    let told = |version: u64| {
        let calls = calls.clone().filter(move |(call, _)| call.config_version == version);
        calls
            .map(|(call, batch)| batch.contexts[call.context as usize].attributes_json().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(7), [r#"{"salary":90210}"#]);
    assert_eq!(told(8).len(), 1);
    let [private] = &told(9)[..] else { panic!("one call") };
    assert!(private.contains("p1_") && !private.contains("90210"), "{private}");
}
