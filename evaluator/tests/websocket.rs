//! `GET /ws/sdk` over real sockets, line by line of data-plane.md section 4.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flagmint_evaluator::directory::KeyFacts;
use flagmint_evaluator::http::Settings;
use flagmint_evaluator::quota::{Limit, Meter};
use flagmint_evaluator::serve::Limits;
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use support::clients::{Socket, calls, irish, totals, until};
use support::{CONFIGURATION, KEY, Plane, facts, identity};
use tokio_tungstenite::tungstenite::Message;

/// 2026-12-01T00:00:00Z and a while later.
const MONTH_END_US: i64 = 4_102_444_800_000_000;

fn map(new_checkout: bool) -> Value {
    json!({ "new-checkout": new_checkout, "button \"color\"": "blue" })
}

#[tokio::test]
async fn every_upgrade_is_accepted_and_bad_keys_are_closed_by_name() {
    let plane = Plane::start().await;
    plane.directory.put_key(KeyFacts { expires_at_us: Some(1), ..facts("expired") });
    plane.directory.put_key(KeyFacts { revoked: true, ..facts("revoked") });
    for query in
        ["", "?apiKey=", "?apiKey=ff_nobody", "?apiKey=expired", "?apiKey=revoked", "?apiKey=%ff%fe", "?other=1"]
    {
        let mut socket = Socket::with(&plane, query, &[]).await;
        assert_eq!(socket.closed().await, (1008, "Invalid API key".into()), "{query}");
    }
    // A second try within a minute is closed a second later.
    let started = Instant::now();
    assert_eq!(Socket::with(&plane, "?apiKey=ff_nobody", &[]).await.closed().await.0, 1008);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    plane.publish(CONFIGURATION, 8, false);
    assert_eq!(Socket::open(&plane).await.closed().await, (1008, "Subscription inactive".into()));
    assert!(plane.recorded().await.is_empty(), "nothing was served");
}

#[tokio::test]
async fn the_query_wins_over_the_header() {
    let plane = Plane::start().await;
    let mut by_header = Socket::with(&plane, "", &[("x-api-key", KEY)]).await;
    assert_eq!(by_header.flags().await, map(false));
    let mut by_query = Socket::with(&plane, &format!("?apiKey={KEY}"), &[("x-api-key", "ff_nobody")]).await;
    assert_eq!(by_query.flags().await, map(false));
    let mut refused = Socket::with(&plane, "?apiKey=ff_nobody", &[("x-api-key", KEY)]).await;
    assert_eq!(refused.closed().await.0, 1008);
}

#[tokio::test]
async fn the_first_map_comes_unasked_between_20_and_50_ms() {
    let plane = Plane::start().await;
    let mut soonest = Duration::MAX;
    for _ in 0..20 {
        let before = Instant::now();
        let mut socket = Socket::open(&plane).await;
        let upgraded = Instant::now();
        assert_eq!(socket.flags().await, map(false));
        // The upgrade lies between the two; however busy the machine is, the map is never sooner after it than this.
        assert!(before.elapsed() >= Duration::from_millis(20), "{:?}", before.elapsed());
        soonest = soonest.min(upgraded.elapsed());
    }
    assert!(soonest < Duration::from_millis(50), "{soonest:?} at best");
}

#[tokio::test]
async fn contexts_are_answered_with_whole_maps_and_metered() {
    let plane = Plane::start().await;
    let header = STANDARD.encode(irish("u1").to_string());
    let mut with_header =
        Socket::with(&plane, &format!("?apiKey={KEY}"), &[("x-flagmint-context", &header), ("user-agent", "go/1.2")])
            .await;
    assert_eq!(with_header.flags().await, map(true), "the upgrade's context");
    let mut socket = Socket::open(&plane).await;
    assert_eq!(socket.flags().await, map(false));
    let mut answers = Vec::new();
    for (context, new_checkout) in [(irish("u2"), true), (json!({}), false), (Value::Null, false), (irish("u2"), true)]
    {
        let sent = Instant::now();
        socket.send_context(&context).await;
        assert_eq!(socket.flags().await, map(new_checkout), "{context}");
        answers.push(sent.elapsed());
    }
    // What disagrees with the header replaces it.
    with_header.send_context(&json!({ "kind": "user", "key": "u1", "country": "FR" })).await;
    assert_eq!(with_header.flags().await, map(false));
    assert!(answers.iter().min().is_some_and(|answer| *answer < Duration::from_millis(50)), "{answers:?}");
    let calls = calls(&plane.recorded().await);
    assert!(calls.iter().all(|(_, caller)| caller.transport == Transport::Websocket));
    assert_eq!(totals(&calls, Trigger::Connect), [1, 2, 0, 1], "a connect without a context");
    assert_eq!(totals(&calls, Trigger::Context), [6, 12, 5, 1], "five messages, and a connect with one");
    assert_eq!(calls.iter().filter(|(_, caller)| caller.sdk_name == "go" && caller.sdk_version == "1.2").count(), 2);
}

#[tokio::test]
async fn pings_are_answered_and_everything_else_is_ignored() {
    let plane = Plane::start().await;
    let mut socket = Socket::open(&plane).await;
    socket.flags().await;
    socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(socket.next().await.expect("a pong"), json!({ "type": "pong" }));
    let deep = format!(r#"{{"type":"context","context":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let deep_object = format!(r#"{{"type":"context","context":{}1{}}}"#, "{\"a\":".repeat(8_000), "}".repeat(8_000));
    let ignored = [
        "",
        "x",
        "[]",
        "null",
        "7",
        "{",
        r#"["context",{}]"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"flag_update","flags":{}}"#,
        r#"{"type":7,"context":{}}"#,
        r#"{"context":{}}"#,
        r#"{"type":"context","context":[]}"#,
        r#"{"type":"context","context":"x"}"#,
        r#"{"type":"context","context":7}"#,
        r#"{"type":"context","context":true}"#,
        &deep,
        &deep_object,
    ];
    for text in ignored {
        socket.send(text).await;
    }
    socket.stream.send(Message::binary(b"\xff\x00".to_vec())).await.expect("sent");
    socket.send(r#"{"type":"ping","type":"ping","more":1}"#).await;
    assert_eq!(socket.next().await.expect("a pong"), json!({ "type": "pong" }), "nothing before it was answered");
    socket.send_context(&irish("u1")).await;
    assert_eq!(socket.flags().await, map(true));
    let calls = calls(&plane.recorded().await);
    let failed = |code| calls.iter().filter(|(call, _)| call.error_code == Some(code)).count();
    assert_eq!((failed(ErrorCode::InvalidContext), failed(ErrorCode::ParseError)), (4, 2));
    assert_eq!(totals(&calls, Trigger::Context)[2], 1, "what is ignored is no API call");
}

#[tokio::test]
async fn a_header_that_is_no_context_counts_as_none_and_is_recorded() {
    let plane = Plane::start().await;
    for header in ["%%%", &STANDARD.encode("[]"), &STANDARD.encode("{")] {
        let mut socket = Socket::with(&plane, &format!("?apiKey={KEY}"), &[("x-flagmint-context", header)]).await;
        assert_eq!(socket.flags().await, map(false), "{header}");
    }
    let calls = calls(&plane.recorded().await);
    let failed = |code| calls.iter().filter(|(call, _)| call.error_code == Some(code)).count();
    assert_eq!((failed(ErrorCode::InvalidContext), failed(ErrorCode::ParseError)), (1, 2));
}

#[tokio::test]
async fn a_frame_over_64_kib_closes_1009() {
    let plane = Plane::start().await;
    let mut socket = Socket::open(&plane).await;
    socket.flags().await;
    let head = r#"{"type":"context","context":{"kind":"user","country":"IE","key":""#;
    let message = |length: usize| format!("{head}{}\"}}}}", "x".repeat(length - head.len() - 3));
    socket.send(message(64 * 1024)).await;
    assert_eq!(socket.flags().await, map(true), "64 KiB are within the limit");
    socket.send(message(64 * 1024 + 1)).await;
    assert_eq!(socket.closed().await.0, 1009);
    // A message in two frames is no way around it.
    let mut socket = Socket::open(&plane).await;
    socket.flags().await;
    let half = message(64 * 1024 + 2);
    let frame = |text: &str, is_first: bool| {
        use tokio_tungstenite::tungstenite::protocol::frame::Frame;
        use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
        let code = if is_first { Data::Text } else { Data::Continue };
        Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(code), !is_first))
    };
    for (text, is_first) in [(&half[..40_000], true), (&half[40_000..], false)] {
        socket.stream.send(frame(text, is_first)).await.expect("sent");
    }
    assert_eq!(socket.closed().await.0, 1009);
}

#[tokio::test]
async fn publishes_reach_those_whose_map_changed_and_nobody_else() {
    let plane = Plane::start().await;
    let (mut nobody, mut irish_one) = (Socket::open(&plane).await, Socket::open(&plane).await);
    nobody.flags().await;
    irish_one.flags().await;
    irish_one.send_context(&irish("u1")).await;
    assert_eq!(irish_one.flags().await, map(true));
    plane.publish(&CONFIGURATION.replace("\"IE\"", "\"FR\""), 8, true);
    assert_eq!(irish_one.flags().await, map(false));
    assert!(nobody.is_silent_for(Duration::from_millis(500)).await, "its map is what it was");
    plane.publish(&CONFIGURATION.replace("\"default_value\":\"blue\"", "\"default_value\":\"red\""), 9, true);
    assert_eq!(nobody.flags().await, json!({ "new-checkout": false, "button \"color\"": "red" }));
    assert_eq!(irish_one.flags().await, json!({ "new-checkout": true, "button \"color\"": "red" }));
    let calls = calls(&plane.recorded().await);
    assert_eq!(totals(&calls, Trigger::Publish), [4, 8, 0, 0], "two contexts, two publishes, no API call");
}

#[tokio::test]
async fn over_the_quota_the_first_context_closes_with_the_months_end() {
    let plane = Plane::start().await;
    let limit = Limit { meter: Meter::ApiCalls, until_us: MONTH_END_US, plan: "Free".into() };
    plane.directory.set_limits(HashMap::from([(identity().organization, vec![limit])]));
    let mut socket = Socket::open(&plane).await;
    assert_eq!(socket.flags().await, map(false), "connecting works");
    socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(socket.next().await.expect("a pong"), json!({ "type": "pong" }));
    socket.send_context(&irish("u1")).await;
    assert_eq!(socket.closed().await, (1008, "Rate limit exceeded, retry after 2100-01-01T00:00:00.000Z".into()));
    let calls = calls(&plane.recorded().await);
    assert_eq!(totals(&calls, Trigger::Context), [0; 4]);
    assert_eq!(totals(&calls, Trigger::Connect), [1, 2, 0, 1]);
}

#[tokio::test]
async fn open_sockets_end_with_their_key_their_subscription_and_their_server() {
    let plane = Plane::start().await;
    let open = async || {
        let mut socket = Socket::open(&plane).await;
        socket.flags().await;
        socket
    };
    let mut socket = open().await;
    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    assert_eq!(socket.closed().await, (1008, "Invalid API key".into()), "revoked");
    plane.directory.put_key(facts(KEY));
    let in_a_second_us = chrono::Utc::now().timestamp_micros() + 1_000_000;
    plane.directory.put_key(KeyFacts { expires_at_us: Some(in_a_second_us), ..facts(KEY) });
    let mut socket = open().await;
    assert_eq!(socket.closed().await, (1008, "Invalid API key".into()), "expired");
    assert!(chrono::Utc::now().timestamp_micros() >= in_a_second_us);
    plane.directory.put_key(facts(KEY));
    let mut socket = open().await;
    plane.publish(CONFIGURATION, 8, false);
    assert_eq!(socket.closed().await, (1008, "Subscription inactive".into()));
    plane.publish(CONFIGURATION, 9, true);
    let mut socket = open().await;
    plane.plane.drain().await;
    assert_eq!(socket.closed().await.0, 1001);
    assert_eq!(Socket::open(&plane).await.closed().await.0, 1001, "no new ones either");
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_closed_and_one_that_does_is_not() {
    let settings = Settings { ping_interval: Duration::from_millis(200), ..Settings::default() };
    let plane = Plane::start_with(settings, Limits::default()).await;
    let (mut answering, mut silent) = (Socket::open(&plane).await, Socket::open(&plane).await);
    answering.flags().await;
    silent.flags().await;
    until("two open", || plane.open_streams() == 2).await;
    // Reading answers protocol pings; the other is not read any more, as if its machine were gone.
    let opened = Instant::now();
    let reading = async { answering.is_silent_for(Duration::from_secs(30)).await };
    tokio::select! {
        _ = reading => panic!("the one that answers was closed"),
        () = until("the silent one is closed", || plane.open_streams() == 1) => {}
    }
    assert!(opened.elapsed() >= Duration::from_millis(500), "two pings were waited for: {:?}", opened.elapsed());
    answering.send(r#"{"type":"ping"}"#).await;
    assert_eq!(answering.next().await.expect("a pong"), json!({ "type": "pong" }));
}

#[tokio::test]
async fn pings_by_the_thousand_harm_nobody_else() {
    let plane = Plane::start().await;
    let mut flood = Socket::open(&plane).await;
    flood.flags().await;
    let (mut sink, mut stream) = flood.stream.split();
    let sending = tokio::spawn(async move {
        for number in 0..5_000 {
            let ping =
                if number % 2 == 0 { Message::text(r#"{"type":"ping"}"#) } else { Message::Ping(vec![7].into()) };
            if sink.send(ping).await.is_err() {
                break;
            }
        }
        sink
    });
    let draining = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
    let mut other = Socket::open(&plane).await;
    other.flags().await;
    for _ in 0..20 {
        other.send_context(&irish("u1")).await;
        assert_eq!(other.flags().await, map(true));
    }
    sending.abort();
    draining.abort();
}

#[tokio::test]
async fn connections_of_one_key_are_bounded_and_refusals_harmless() {
    let settings = Settings { connections_per_key_max: 20, ..Settings::default() };
    let plane = Plane::start_with(settings, Limits::default()).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut socket = Socket::open(&plane).await;
        socket.flags().await;
        held.push(socket);
    }
    for _ in 0..500 {
        assert_eq!(Socket::open(&plane).await.closed().await.0, 1001, "try again later");
    }
    assert_eq!(plane.open_streams(), 20);
    held[0].send_context(&irish("u1")).await;
    assert_eq!(held[0].flags().await, map(true), "those that are open are served");
    held.pop();
    until("a place is free", || plane.open_streams() == 19).await;
    assert_eq!(Socket::open(&plane).await.flags().await, map(false));
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    let plane = Plane::start().await;
    let url = format!("http://{}/ws/sdk?apiKey={KEY}", plane.address);
    let answer = plane.http.get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
}
