//! An evaluator starts with Postgres away, from the configuration it had; what had been revoked stays revoked.

use serde_json::{Value, json};

use crate::cluster::{Place, end};
use crate::support::{PATIENCE, Person, Shop, allow_connections};

async fn configuration_state(url: &str) -> (u16, String) {
    let answer = reqwest::get(format!("{url}/health/ready")).await.expect("an answer");
    let status = answer.status().as_u16();
    let health: Value = answer.json().await.expect("JSON");
    (status, health["configuration"]["state"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluator_starts_with_postgres_away() {
    let place = Place::new().await;
    let control = place.control_plane();
    let manager = Person::sign_in(&control.url).await;
    let shop = Shop::open(&manager).await;
    let ask = json!({ "name": "revoked", "environment_id": shop.environment_id, "rate_limit_per_minute": 0 });
    let revoked = manager.post(&format!("/api-keys/{}", shop.project_id), ask).await;
    let (id, text) = (revoked["id"].as_str().expect("an id"), revoked["key"].as_str().expect("a key"));
    let revoke = manager.http.delete(format!("{}/api-keys/{}/{id}", control.url, shop.project_id));
    let answer = revoke.bearer_auth(&manager.token).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    let evaluator = place.evaluator(1);
    shop.wait_until_served(&manager.http, &evaluator.url).await;
    assert_eq!(configuration_state(&evaluator.url).await, (200, "in step".into()));
    end(evaluator);

    allow_connections(&place.postgres, false).await;
    let evaluator = place.evaluator(1);
    let (status, state) = configuration_state(&evaluator.url).await;
    assert_eq!(status, 200, "it can decide");
    assert!(state.contains("from the copy on disk of 20") && state.contains("Postgres is away"), "{state}");
    let (status, values) = shop.evaluate(&manager.http, &evaluator.url, "somebody").await.expect("an answer");
    assert_eq!((status, values), (200, json!({ "checkout": true })));
    let body = json!({ "context": { "kind": "user", "key": "somebody" } });
    let request =
        manager.http.post(format!("{}/evaluator/evaluate", evaluator.url)).header("x-api-key", text).json(&body);
    assert_eq!(request.send().await.expect("an answer").status(), 401, "revoked stays revoked");

    allow_connections(&place.postgres, true).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while configuration_state(&evaluator.url).await.1 != "in step" {
        assert!(std::time::Instant::now() < deadline, "it did not come back into step");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    end(evaluator);
    end(control);
}
