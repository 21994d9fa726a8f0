//! `POST /auth/asl-handshake` over real HTTP: every body that clients send, and those that nobody should.

mod support;

use flagmint_evaluator::directory::KeyFacts;
use flagmint_evaluator::session::agreement::{NAME, Offer, public_key};
use serde_json::{Value, json};
use support::{CONFIGURATION, KEY, Plane, facts};

async fn shake(plane: &Plane, body: impl Into<String>) -> (u16, Value) {
    let url = format!("http://{}/auth/asl-handshake", plane.address);
    let request = plane.http.post(url).header("X-API-Key", KEY).body(body.into());
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_session_is_plain_without_a_key_and_signs_with_one() {
    let plane = Plane::start().await;
    let php = r#"{"sdkVersion":"0.1.4","platform":"php","wrapperName":"laravel","wrapperVersion":"1","more":[1]}"#;
    for body in ["", "null", "{}", " \n", r#"{"clientPublicKey":null}"#, php] {
        let (status, reply) = shake(&plane, body).await;
        assert_eq!((status, &reply["statusCode"], &reply["message"]), (200, &json!(200), &json!("OK")), "{body}");
        let data = reply["data"].as_object().expect("data");
        assert!(data.len() == 1 && data["sessionId"].as_str().is_some_and(|id| id.starts_with("fm_asl_")), "{body}");
    }
    let client = Offer::new();
    let body = json!({ "clientPublicKey": hex::encode(client.public_key()) }).to_string();
    let (status, first) = shake(&plane, body.clone()).await;
    assert_eq!(status, 200);
    let data = &first["data"];
    assert!(data["sessionId"].as_str().is_some_and(|id| id.starts_with("fm_asl_")));
    assert!(data["serverPublicKey"].as_str().and_then(public_key).is_some());
    assert_eq!((data["salt"].as_str().map(str::len), &data["keyAgreement"]), (Some(32), &json!(NAME)));
    let (_, second) = shake(&plane, body).await;
    for member in ["sessionId", "serverPublicKey", "salt"] {
        assert_ne!(first["data"][member], second["data"][member], "{member} is fresh each time");
    }
    assert!(plane.recorded().await.is_empty(), "a handshake is no call");
}

#[tokio::test]
async fn what_is_no_key_is_refused_by_name() {
    let plane = Plane::start().await;
    let zeros = json!({ "clientPublicKey": "0".repeat(64) }).to_string();
    let one = json!({ "clientPublicKey": format!("01{}", "0".repeat(62)) }).to_string();
    let cases = [
        (zeros.as_str(), "invalid_client_public_key"),
        (&one, "invalid_client_public_key"),
        (r#"{"clientPublicKey":"abc"}"#, "invalid_client_public_key"),
        (r#"{"clientPublicKey":7}"#, "invalid_client_public_key"),
        (r#"{"clientPublicKey":""}"#, "invalid_client_public_key"),
        ("[]", "parse_error"),
        ("{", "parse_error"),
        ("7", "parse_error"),
    ];
    for (body, error) in cases {
        let (status, reply) = shake(&plane, body).await;
        assert_eq!((status, &reply["error"]), (400, &json!(error)), "{body}");
        assert!(reply["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(shake(&plane, "x".repeat(70_000)).await.0, 413);
}

#[tokio::test]
async fn keys_are_checked_and_limited_but_a_lapsed_subscription_is_not_refused() {
    let plane = Plane::start().await;
    plane.publish(CONFIGURATION, 8, false);
    assert_eq!(shake(&plane, "").await.0, 200, "the stream says that the subscription has lapsed");
    plane.directory.put_key(KeyFacts { revoked: true, ..facts(KEY) });
    let (status, reply) = shake(&plane, "").await;
    assert_eq!((status, &reply["error"]), (401, &json!("invalid_api_key")));
    plane.directory.put_key(KeyFacts { rate_limit_per_minute: 1, ..facts(KEY) });
    let statuses = [shake(&plane, "").await.0, shake(&plane, "").await.0, shake(&plane, "").await.0];
    assert!(statuses.contains(&429), "{statuses:?}");
}
