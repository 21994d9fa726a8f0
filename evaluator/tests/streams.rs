//! The stream and what is posted for it, over real HTTP, line by line of data-plane.md section 6.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::SubsecRound as _;
use flagmint_evaluator::directory::KeyFacts;
use flagmint_evaluator::http::Settings;
use flagmint_evaluator::quota::{Limit, Meter};
use flagmint_evaluator::serve::Limits;
use flagmint_evaluator::session::Sessions;
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};
use flagmint_schemas::ids::{EnvironmentId, KeyId};
use serde_json::{Value, json};
use support::clients::{Event, Stream, calls, irish, post_context, post_context_with, session, totals, until};
use support::{CONFIGURATION, KEY, Plane, facts, identity};
use uuid::Uuid;

fn map(new_checkout: bool) -> Value {
    json!({ "new-checkout": new_checkout, "button \"color\"": "blue" })
}

fn limited() -> HashMap<flagmint_schemas::ids::OrganizationId, Vec<Limit>> {
    let until_us = chrono::Utc::now().timestamp_micros() + 86_400_000_000;
    HashMap::from([(identity().organization, vec![Limit { meter: Meter::ApiCalls, until_us, plan: "Free".into() }])])
}

#[tokio::test]
async fn connected_comes_first_then_flags_with_analytics() {
    let plane = Plane::start().await;
    let identity = "&sdkVersion=2.1.0&platform=browser&wrapperName=react&wrapperVersion=1.4";
    let mut stream = Stream::open(&plane, Some(&irish("u1")), identity).await;
    let connected = stream.expect("connected").await;
    assert!(connected["connectionId"].as_str().is_some_and(|id| !id.is_empty()), "{connected}");
    let analytics = json!({ "new-checkout": true, "button \"color\"": false });
    assert_eq!(stream.expect("flags").await, json!({ "flags": map(true), "analytics": analytics }));
    let mut without = Stream::open(&plane, None, "&sdkVersion=2.2.0&platform=nodejs").await;
    assert_eq!(without.begin().await.1, map(false));
    let calls = calls(&plane.recorded().await);
    assert!(calls.iter().all(|(_, caller)| caller.transport == Transport::Sse));
    assert_eq!(totals(&calls, Trigger::Context), [1, 2, 0, 1]);
    assert_eq!(totals(&calls, Trigger::Connect), [1, 2, 0, 1]);
    let of = |version: &str| calls.iter().find(|(_, caller)| caller.sdk_version == version).expect("recorded");
    assert_eq!((of("2.1.0").0.counted, of("2.2.0").0.counted), (true, false), "2.2 reports by itself");
    assert_eq!((of("2.1.0").1.wrapper.as_str(), of("2.2.0").1.wrapper.as_str()), ("react/1.4", "native-js"));
}

#[tokio::test]
async fn contexts_are_decoded_leniently() {
    let plane = Plane::start().await;
    // Its base64 has both special characters.
    let context = json!({ "kind": "user", "key": "\u{3ff}\u{fbe}?>~", "country": "IE" }).to_string();
    let standard = STANDARD.encode(&context);
    assert!(standard.contains('/') || standard.contains('+'), "{standard}");
    let encoded = standard.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let spaces = standard.replace('+', "%20").replace('=', "%3D");
    let texts = [encoded, standard.clone(), spaces, URL_SAFE_NO_PAD.encode(&context), standard.replace('=', "")];
    for text in texts {
        let id = session(&plane).await;
        let mut stream = Stream::with_query(&plane, &format!("sessionId={id}&context={text}")).await;
        assert_eq!(stream.begin().await.1, map(true), "{text}");
    }
    for empty in [
        "",
        "&context=",
        &format!("&context={}", STANDARD.encode("{}")),
        &format!("&context={}", STANDARD.encode("null")),
    ] {
        let id = session(&plane).await;
        let mut stream = Stream::with_query(&plane, &format!("sessionId={id}{empty}")).await;
        assert_eq!(stream.begin().await.1, map(false), "{empty}");
    }
}

#[tokio::test]
async fn failures_are_named_events_in_a_200() {
    let plane = Plane::start().await;
    for query in ["", "sessionId=", "sessionId=fm_asl_AAAA", "sessionId=%ff", "other=1"] {
        Stream::with_query(&plane, query).await.expect_error("session_id_missing").await;
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let contexts =
        ["%%%".into(), STANDARD.encode("[]"), STANDARD.encode("{"), STANDARD.encode(deep), STANDARD.encode([0xff])];
    for context in contexts {
        let id = session(&plane).await;
        let query = format!("sessionId={id}&context={context}");
        Stream::with_query(&plane, &query).await.expect_error("invalid_context").await;
        Stream::with_query(&plane, &query).await.expect_error("session_id_missing").await;
    }
    plane.publish(CONFIGURATION, 8, false);
    Stream::open(&plane, None, "").await.expect_error("subscription_inactive").await;
    plane.publish(CONFIGURATION, 9, true);
    let id = session(&plane).await;
    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    Stream::with_query(&plane, &format!("sessionId={id}")).await.expect_error("invalid_api_key").await;
    let calls = calls(&plane.recorded().await);
    let failed = |code| calls.iter().filter(|(call, _)| call.error_code == Some(code)).count();
    assert_eq!((failed(ErrorCode::InvalidContext), failed(ErrorCode::ParseError)), (1, 4));
    assert_eq!(plane.open_streams(), 0);
}

#[tokio::test]
async fn a_session_is_good_once_on_any_instance_that_shares_the_secret() {
    let settings = || Settings { secret: [7; 32].into(), ..Settings::default() };
    let here = Plane::start_with(settings(), Limits::default()).await;
    let there = Plane::start_with(settings(), Limits::default()).await;
    let id = session(&here).await;
    let mut stream = Stream::with_query(&there, &format!("sessionId={id}")).await;
    assert_eq!(stream.begin().await.1, map(false));
    Stream::with_query(&there, &format!("sessionId={id}")).await.expect_error("session_id_missing").await;
    let stranger = Plane::start().await;
    let foreign = session(&stranger).await;
    Stream::with_query(&here, &format!("sessionId={foreign}")).await.expect_error("session_id_missing").await;
    // One that has expired, and one of an environment that the key has nothing to do with.
    let key = flagmint_evaluator::directory::key_hash(KEY);
    let expired = Sessions::new(&[7; 32]).issue(key, identity().environment, None, 0);
    Stream::with_query(&here, &format!("sessionId={expired}")).await.expect_error("session_id_missing").await;
    let now_us = chrono::Utc::now().timestamp_micros();
    let other = Sessions::new(&[7; 32]).issue(key, EnvironmentId(Uuid::from_u128(99)), None, now_us);
    Stream::with_query(&here, &format!("sessionId={other}")).await.expect_error("invalid_api_key").await;
}

#[tokio::test]
async fn posted_contexts_are_debounced_and_each_post_is_a_call() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, None, "").await;
    let (id, first) = stream.begin().await;
    assert_eq!(first, map(false));
    let started = Instant::now();
    let accepted = (202, json!({ "statusCode": 202, "message": "Accepted" }));
    for key in ["u1", "u2", "u3"] {
        assert_eq!(post_context(&plane, &id, &irish(key)).await, accepted);
    }
    assert_eq!(stream.expect("flags").await["flags"], map(true));
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    // The same map again: after a post it is always sent.
    assert_eq!(post_context(&plane, &id, &irish("u4")).await.0, 202);
    assert_eq!(stream.expect("flags").await["flags"], map(true));
    assert_eq!(post_context_with(&plane, KEY, json!({ "connectionId": id }).to_string()).await.0, 202);
    assert_eq!(stream.expect("flags").await["flags"], map(false), "no context is an empty one");
    assert!(stream.is_silent_for(Duration::from_millis(600)).await);
    let calls = calls(&plane.recorded().await);
    // Five posts are five API calls; the first three were evaluated once.
    assert_eq!(totals(&calls, Trigger::Context), [8, 6, 5, 0]);
}

#[tokio::test]
async fn a_stream_of_posts_is_evaluated_within_two_seconds() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, None, "").await;
    let (id, _) = stream.begin().await;
    let started = Instant::now();
    let posting = async {
        loop {
            assert_eq!(post_context(&plane, &id, &irish("u1")).await.0, 202);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = posting => unreachable!("it never ends"),
        data = stream.expect("flags") => assert_eq!(data["flags"], map(true)),
    }
    let waited = started.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn posts_are_refused_by_name() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, None, "").await;
    let (id, _) = stream.begin().await;
    let forged = format!("{}A", &id[..id.len() - 1]);
    let forged = if forged == id { format!("{}B", &id[..id.len() - 1]) } else { forged };
    let stranger = Plane::start().await;
    let mut elsewhere = Stream::open(&stranger, None, "").await;
    let (foreign, _) = elsewhere.begin().await;
    for lost in [forged.as_str(), "", "1", &foreign, &"x".repeat(5000)] {
        let (status, body) = post_context(&plane, lost, &json!({})).await;
        assert_eq!((status, &body["error"]), (404, &json!("connection_not_found")), "{lost:.40}");
    }
    for context in [json!([]), json!("x"), json!(7), json!(true)] {
        let (status, body) = post_context(&plane, &id, &context).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_context")), "{context}");
    }
    for body in ["", "[]", "{", r#"{"context":{}}"#, r#"{"connectionId":7}"#] {
        let (status, reply) = post_context_with(&plane, KEY, body.into()).await;
        assert_eq!((status, &reply["error"]), (400, &json!("parse_error")), "{body}");
    }
    assert_eq!(post_context_with(&plane, "ff_nobody", "{}".into()).await.0, 401);
    assert_eq!(post_context_with(&plane, KEY, "x".repeat(70_000)).await.0, 413);
    // A key of another environment does not find the connection.
    let other = EnvironmentId(Uuid::from_u128(33));
    plane.directory.put_key(KeyFacts { id: KeyId(Uuid::from_u128(44)), environment: other, ..facts("other") });
    let body = json!({ "connectionId": id, "context": irish("u1") }).to_string();
    assert_eq!(post_context_with(&plane, "other", body).await.0, 404);
    // Nor is one found that has ended.
    drop(stream);
    until("the stream is closed", || plane.open_streams() == 0).await;
    assert_eq!(post_context(&plane, &id, &json!({})).await.0, 404);
}

#[tokio::test]
async fn a_post_reaches_the_instance_that_holds_the_stream() {
    let settings = || Settings { secret: [7; 32].into(), ..Settings::default() };
    let holding = Plane::start_with(settings(), Limits::default()).await;
    let asked = Plane::start_with(settings(), Limits::default()).await;
    let mut stream = Stream::open(&holding, None, "").await;
    let (id, _) = stream.begin().await;
    assert_eq!(post_context(&asked, &id, &irish("u1")).await.0, 202);
    assert_eq!(stream.expect("flags").await["flags"], map(true));
    holding.directory.set_limits(limited());
    let (status, body) = post_context(&asked, &id, &irish("u2")).await;
    assert_eq!((status, &body["error"], &body["data"]), (429, &json!("QUOTA_EXCEEDED"), &map(true)));
    stream.expect("quota_exceeded").await;
    drop(stream);
    until("the stream is closed", || holding.open_streams() == 0).await;
    assert_eq!(post_context(&asked, &id, &irish("u1")).await.0, 404);
    // What nobody sealed is not taken.
    let url = format!("http://{}/internal/stream-context", holding.address);
    assert_eq!(holding.http.post(url).body("{}").send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn heartbeats_keep_a_stream_open() {
    let settings = Settings { heartbeat_interval: Duration::from_millis(100), ..Settings::default() };
    let plane = Plane::start_with(settings, Limits::default()).await;
    let mut stream = Stream::open(&plane, None, "").await;
    stream.begin().await;
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(stream.next().await, Some(Event { name: String::new(), data: Value::Null }));
    }
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn publishes_are_evaluated_per_context_and_sent_if_the_map_changed() {
    let plane = Plane::start().await;
    let mut streams = Vec::new();
    for context in [irish("u1"), irish("u1"), irish("u1"), irish("u2"), json!({})] {
        let mut stream = Stream::open(&plane, Some(&context), "").await;
        stream.begin().await;
        streams.push(stream);
    }
    plane.publish(&CONFIGURATION.replace("\"IE\"", "\"FR\""), 8, true);
    for stream in &mut streams[..4] {
        assert_eq!(stream.expect("flags").await["flags"], map(false));
    }
    assert!(streams[4].is_silent_for(Duration::from_millis(500)).await, "its map is what it was");
    // Analytics alone: a stream is told, since its client gates events by it.
    let tracked =
        CONFIGURATION.replace("\"IE\"", "\"FR\"").replace("\"analytics_enabled\":false", "\"analytics_enabled\":true");
    plane.publish(&tracked, 9, true);
    for stream in &mut streams {
        let data = stream.expect("flags").await;
        assert_eq!(data["analytics"], json!({ "new-checkout": true, "button \"color\"": true }));
    }
    let calls = calls(&plane.recorded().await);
    assert_eq!(totals(&calls, Trigger::Publish), [6, 12, 0, 0], "three contexts, two publishes");
}

#[tokio::test]
async fn a_storm_of_publishes_is_coalesced() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, None, "").await;
    stream.begin().await;
    let started = Instant::now();
    for version in 8..208 {
        let value = if version == 207 { "last".to_owned() } else { format!("v{version}") };
        plane.publish(
            &CONFIGURATION.replace("\"default_value\":\"blue\"", &format!("\"default_value\":\"{value}\"")),
            version,
            true,
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let rounds_max = started.elapsed().as_millis() / 200 + 3;
    let mut received = 0;
    loop {
        received += 1;
        if stream.expect("flags").await["flags"]["button \"color\""] == "last" {
            break;
        }
    }
    assert!(received <= rounds_max, "{received} maps for 200 publishes in {:?}", started.elapsed());
    assert!(stream.is_silent_for(Duration::from_millis(500)).await);
}

#[tokio::test]
async fn a_step_of_a_gradual_rollout_is_pushed() {
    let plane = Plane::start().await;
    // To the millisecond, as steps are.
    let start = chrono::Utc::now().trunc_subsecs(3) + chrono::Duration::seconds(2);
    let configuration = json!({ "version": 8, "segments": {}, "flags": [{
        "id": "00000000-0000-0000-0000-0000000000f1", "key": "ramp", "type": "boolean", "default_value": false,
        "variations": [{ "id": "00000000-0000-0000-0000-0000000000a1", "value": true }], "targeting_rules": [],
        "rollouts": { "00000000-0000-0000-0000-0000000000c1": { "strategy": "gradual", "target_percentage": 100,
            "increment": 50, "interval_hours": 1.0 / 3600.0, "salt": "s", "start_at": start.to_rfc3339() } },
    }] });
    plane.publish(&configuration.to_string(), 8, true);
    // Buckets by this salt: `u1` is in 26, so it is in with the first step; 99 would be with the second.
    let mut stream = Stream::open(&plane, Some(&json!({ "kind": "user", "key": "u1" })), "").await;
    assert_eq!(stream.begin().await.1, json!({ "ramp": false }));
    assert_eq!(stream.expect("flags").await["flags"], json!({ "ramp": true }));
    assert!(chrono::Utc::now() >= start, "not before it starts");
    assert!(stream.is_silent_for(Duration::from_millis(1500)).await, "the second step changes nothing for it");
    assert!(totals(&calls(&plane.recorded().await), Trigger::Publish)[0] >= 2, "both steps were evaluated");
}

#[tokio::test]
async fn over_the_quota_a_stream_is_told_and_ends() {
    let plane = Plane::start().await;
    let mut open = Stream::open(&plane, Some(&irish("u1")), "").await;
    let (id, _) = open.begin().await;
    plane.directory.set_limits(limited());
    assert!(open.is_silent_for(Duration::from_millis(300)).await, "an open stream stays until its next context");
    let mut refused = Stream::open(&plane, Some(&irish("u2")), "").await;
    refused.expect("connected").await;
    let message = refused.expect("quota_exceeded").await;
    assert_eq!((&message["statusCode"], &message["error"]), (&json!(429), &json!("QUOTA_EXCEEDED")));
    assert_eq!((&message["retryAfter"], &message["data"]), (&json!(3600), &map(false)));
    assert_eq!(message["message"], "Monthly API call limit reached for the \"free\" plan.");
    assert_eq!(refused.next().await, None);
    let (status, body) = post_context(&plane, &id, &irish("u3")).await;
    assert_eq!((status, &body["data"]), (429, &map(true)), "the connection's last map");
    assert_eq!(open.expect("quota_exceeded").await["data"], map(true));
    assert_eq!(open.next().await, None);
    // By REST: the values for nobody.
    let answer = plane.evaluate().json(&json!({ "context": irish("u1") })).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().ok()), (429, Some("3600")));
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!((&body["error"], &body["data"]), (&json!("QUOTA_EXCEEDED"), &map(false)));
    plane.directory.set_limits(HashMap::new());
    assert_eq!(plane.evaluate().json(&json!({})).send().await.expect("an answer").status(), 200);
    let calls = calls(&plane.recorded().await);
    assert_eq!(calls.iter().map(|(call, _)| call.api_calls).sum::<u32>(), 1, "only the last was served");
}

#[tokio::test]
async fn without_flags_the_quota_message_has_no_data() {
    let plane = Plane::start().await;
    plane.publish(r#"{"version":8,"flags":[],"segments":{}}"#, 8, true);
    plane.directory.set_limits(limited());
    let mut stream = Stream::open(&plane, None, "").await;
    stream.expect("connected").await;
    assert!(stream.expect("quota_exceeded").await.get("data").is_none());
}

#[tokio::test]
async fn open_streams_end_with_their_key_their_subscription_and_their_server() {
    let plane = Plane::start().await;
    let open = async || {
        let mut stream = Stream::open(&plane, None, "").await;
        stream.begin().await;
        stream
    };
    let mut stream = open().await;
    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    stream.expect_error("invalid_api_key").await;
    let in_a_second_us = chrono::Utc::now().timestamp_micros() + 1_000_000;
    plane.directory.put_key(KeyFacts { expires_at_us: Some(in_a_second_us), ..facts(KEY) });
    let mut stream = open().await;
    stream.expect_error("invalid_api_key").await;
    assert!(chrono::Utc::now().timestamp_micros() >= in_a_second_us, "not before it expires");
    plane.directory.put_key(facts(KEY));
    let mut stream = open().await;
    plane.publish(CONFIGURATION, 8, false);
    stream.expect_error("subscription_inactive").await;
    plane.publish(CONFIGURATION, 9, true);
    let mut stream = open().await;
    plane.plane.drain().await;
    assert_eq!(stream.next().await, None, "it just ends, and the client comes back elsewhere");
    Stream::open(&plane, None, "").await.expect_error("internal_error").await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_dropped_and_the_others_are_not_held_up() {
    let limits = Limits { unread_max: Duration::from_millis(500), ..Limits::default() };
    let plane = Plane::start_with(Settings::default(), limits).await;
    let large = |version: u64| {
        let value = format!("\"default_value\":\"{version} {}\"", "x".repeat(300_000));
        CONFIGURATION.replace("\"default_value\":\"blue\"", &value)
    };
    let id = session(&plane).await;
    let mut slow = tokio::net::TcpStream::connect(plane.address).await.expect("a connection");
    let request = format!("GET /evaluator/v2/flags/stream?sessionId={id} HTTP/1.1\r\nHost: x\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut slow, request.as_bytes()).await.expect("sent");
    let mut quick = Stream::open(&plane, None, "").await;
    quick.begin().await;
    until("both are open", || plane.open_streams() == 2).await;
    let mut version = 8;
    while plane.open_streams() == 2 {
        plane.publish(&large(version), version, true);
        let data = quick.expect("flags").await;
        let text = data["flags"]["button \"color\""].as_str().expect("text");
        assert!(text.starts_with(&format!("{version} ")));
        version += 1;
        assert!(version < 200, "the slow reader is still there");
    }
    assert_eq!(plane.open_streams(), 1);
}

#[tokio::test]
async fn half_a_head_and_crowds_from_one_address_are_not_kept() {
    let limits = Limits { head_read_max: Duration::from_millis(500), per_address_max: 5, ..Limits::default() };
    let plane = Plane::start_with(Settings::default(), limits).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut connection = tokio::net::TcpStream::connect(plane.address).await.expect("a connection");
        tokio::io::AsyncWriteExt::write_all(&mut connection, b"GET /evaluator/v2/fl").await.expect("sent");
        slow.push(connection);
    }
    // The sixth is dropped at once, whatever it sends.
    let mut sixth = tokio::net::TcpStream::connect(plane.address).await.expect("a connection");
    let mut bytes = Vec::new();
    let read =
        tokio::time::timeout(Duration::from_secs(10), tokio::io::AsyncReadExt::read_to_end(&mut sixth, &mut bytes));
    assert!(matches!(read.await.expect("dropped in time"), Ok(0) | Err(_)));
    for mut connection in slow {
        let mut bytes = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut bytes);
        let _ = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("half a head is not waited for");
    }
    let mut stream = Stream::open(&plane, None, "").await;
    stream.begin().await;
}

/// A connection that was used before, and one whose head comes in pieces, are served the usual way.
#[tokio::test]
async fn a_stream_may_be_any_request_of_a_connection_and_come_in_pieces() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let plane = Plane::start().await;
    for pieces in [1, 3] {
        let mut connection = tokio::net::TcpStream::connect(plane.address).await.expect("a connection");
        let mut text = Vec::new();
        if pieces == 1 {
            let body = "{}";
            let first = format!(
                "POST /evaluator/evaluate HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(first.as_bytes()).await.expect("sent");
            while !String::from_utf8_lossy(&text).contains("blue") {
                assert!(connection.read_buf(&mut text).await.expect("readable") > 0, "closed");
            }
        }
        let id = session(&plane).await;
        let request = format!("GET /evaluator/v2/flags/stream?sessionId={id} HTTP/1.1\r\nHost: x\r\n\r\n");
        for piece in request.as_bytes().chunks(request.len().div_ceil(pieces)) {
            connection.write_all(piece).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        while !String::from_utf8_lossy(&text).contains("event: flags") {
            assert!(connection.read_buf(&mut text).await.expect("readable") > 0, "closed");
        }
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("HTTP/1.1 200 OK") && text.contains("event: connected"), "{text}");
        drop(connection);
        until("the stream is closed with its connection", || plane.open_streams() == 0).await;
    }
}

/// Pages of other origins read streams, too, errors among them.
#[tokio::test]
async fn streams_may_be_read_from_any_origin() {
    let plane = Plane::start().await;
    for query in ["".to_owned(), format!("?sessionId={}", session(&plane).await), "?sessionId=x".to_owned()] {
        let url = format!("http://{}/evaluator/v2/flags/stream{query}", plane.address);
        let answer = plane.http.get(url).send().await.expect("an answer");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*", "{query}");
        assert!(answer.headers().contains_key("date"));
    }
    let url = format!("http://{}/evaluator/v2/flags/stream", plane.address);
    let preflight = plane.http.request(reqwest::Method::OPTIONS, url).send().await.expect("an answer");
    assert_eq!(
        (preflight.status().as_u16(), preflight.headers()["access-control-max-age"].to_str().ok()),
        (204, Some("86400"))
    );
}
