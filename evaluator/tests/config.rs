//! `GET /evaluator/config` over real HTTP: the compiled form, and 304 by version.

mod support;

use flagmint_evaluator::http::Settings;
use flagmint_evaluator::serve::Limits;
use serde_json::{Value, json};
use support::{CONFIGURATION, KEY, Plane};

fn get(plane: &Plane) -> reqwest::RequestBuilder {
    plane.http.get(format!("http://{}/evaluator/config", plane.address)).header("x-api-key", KEY)
}

#[tokio::test]
async fn the_configuration_is_served_once_per_version() {
    let plane = Plane::start().await;
    let answer = get(&plane).send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert!(answer.headers().contains_key("x-ratelimit-limit"));
    let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
    let body: Value = answer.json().await.expect("JSON");
    let mut expected: Value = serde_json::from_str(CONFIGURATION).expect("JSON");
    for flag in expected["flags"].as_array_mut().expect("flags") {
        flag.as_object_mut().expect("a flag").shift_remove("id"); // Ours; no client knows it.
    }
    assert_eq!(body, json!({ "statusCode": 200, "message": "OK", "data": expected }));
    let known = |etag: &str| get(&plane).header("if-none-match", etag).send();
    for sent in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let answer = known(&sent).await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["etag"].to_str().unwrap()),
            (304, etag.as_str()),
            "{sent}"
        );
        assert!(answer.bytes().await.expect("nothing").is_empty());
    }
    plane.publish(CONFIGURATION, 8, true);
    let answer = known(&etag).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_ne!(answer.headers()["etag"].to_str().unwrap(), etag);
    assert_eq!(answer.json::<Value>().await.expect("JSON")["data"]["version"], 8);
    assert_eq!(plane.evaluate().json(&json!({})).send().await.expect("an answer").status(), 200);
    let calls: usize = plane.recorded().await.iter().map(|(_, batch)| batch.calls.len()).sum();
    assert_eq!(calls, 1, "a fetch is no call and decides nothing");
}

#[tokio::test]
async fn errors_are_as_everywhere() {
    let plane = Plane::start().await;
    let url = format!("http://{}/evaluator/config", plane.address);
    let answer = plane.http.get(&url).send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (401, &"*".parse().unwrap())
    );
    assert_eq!(answer.json::<Value>().await.expect("JSON")["error"], "invalid_api_key");
    plane.publish(CONFIGURATION, 8, false);
    let answer = get(&plane).send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.json::<Value>().await.expect("JSON")["error"], "subscription_inactive");
    let preflight = plane.http.request(reqwest::Method::OPTIONS, &url).send().await.expect("an answer");
    assert_eq!(preflight.status(), 204);
}

#[tokio::test]
async fn the_test_routes_are_served_only_when_asked_for() {
    let plane = Plane::start().await;
    let url = |path: &str| format!("http://{}/evaluator/v2/qa/config-sync/{path}", plane.address);
    assert_eq!(plane.http.get(url("clock")).header("x-api-key", KEY).send().await.expect("an answer").status(), 404);
    let settings = Settings { qa_routes: true, ..Settings::default() };
    let plane = Plane::start_with(settings, Limits::default()).await;
    let url = |path: &str| format!("http://{}/evaluator/v2/qa/config-sync/{path}", plane.address);
    let get = async |path: &str| -> (u16, Value) {
        let answer = plane.http.get(url(path)).header("x-api-key", KEY).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    };
    let post = async |path: &str, body: Value| -> (u16, Value) {
        let answer = plane.http.post(url(path)).header("x-api-key", KEY).json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    };
    assert_eq!(plane.http.get(url("clock")).send().await.expect("an answer").status(), 401);
    let (status, reply) = get("clock").await;
    let clock = &reply["data"];
    assert_eq!((status, &clock["offsetMs"], &clock["wallClockMs"]), (200, &json!(0), &clock["effectiveNowMs"]));
    let (_, reply) = post("clock/advance", json!({ "ms": 86_400_000 })).await;
    assert_eq!(reply["data"]["offsetMs"], 86_400_000);
    let iso = reply["data"]["effectiveNowIso"].as_str().expect("text");
    let shown_ms = chrono::DateTime::parse_from_rfc3339(iso).expect("ISO").timestamp_millis();
    assert_eq!(reply["data"]["effectiveNowMs"], shown_ms);
    assert_eq!(post("clock/advance", json!({ "ms": "soon" })).await.0, 400);
    assert_eq!(post("clock/reset", json!({})).await.1["data"]["offsetMs"], 0);
    assert_eq!(get("state").await.1["data"]["version"], 7);
    assert_eq!(post("clear", json!({})).await.0, 200);
    assert_eq!(post("replay", json!({ "sinceVersion": 7 })).await.1["data"]["toVersions"], json!([]));
    assert_eq!(post("replay", json!({ "sinceVersion": 6 })).await.1["data"]["toVersions"], Value::Null);
    assert_eq!(post("replay", json!({ "sinceVersion": -1 })).await.1["data"]["toVersions"], Value::Null);
}
