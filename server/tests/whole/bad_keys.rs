//! Who keeps sending keys that are none.

use std::time::Instant;

use serde_json::{Value, json};

use crate::hostile::metric;
use crate::support::{PATIENCE, Person, Place, Shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_sending_bad_keys_is_told_to_wait_and_good_keys_are_not() {
    let place = Place::new().await;
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let bad = async |path: &str| {
        let request = person.http.post(format!("{}{path}", server.url)).header("x-api-key", "ff_wrong");
        request.json(&json!({ "context": {} })).send().await.expect("an answer")
    };
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        let answer = bad("/evaluator/evaluate").await;
        if answer.status() != 401 {
            break answer;
        }
        assert!(Instant::now() < deadline, "bad keys are never limited");
    };
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["access-control-allow-origin"], "*");
    let wait = refused.headers()["retry-after"].to_str().expect("text").to_owned();
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!((&body["error"], body["retryAfter"].to_string()), (&json!("RATE_LIMITED"), wait));
    assert_eq!(shop.evaluate(&person.http, &server.url, "u").await.expect("an answer").0, 200);
    assert!(metric(&person, "flagmint_requests_refused_total{reason=\"bad_keys\"} ").await >= 1.0);
}
