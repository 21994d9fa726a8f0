//! A key's rate limit over two instances on one Postgres.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{PATIENCE, Person, Place, Server, Shop};

/// A key's limit is one for all instances, but for what it may send while they learn of each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_a_key_s_limit() {
    let place = Place::new().await;
    let servers = [place.start(), place.start_in(&place.data_dir().with_file_name("second"))];
    let person = Person::sign_in(&servers[0].url).await;
    let shop = Shop::open(&person).await;
    let ask = json!({ "name": "limited", "environment_id": shop.environment_id, "rate_limit_per_minute": 100 });
    let key = person.post(&format!("/api-keys/{}", shop.project_id), ask).await;
    let key = key["key"].as_str().expect("a key");
    let remaining = async |server: &Server| {
        let request = person.http.post(format!("{}/evaluator/evaluate", server.url)).header("x-api-key", key);
        let answer = request.json(&json!({})).send().await.expect("an answer");
        let header = |name: &str| answer.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        Some((header("x-ratelimit-remaining")?, header("x-ratelimit-reset")?))
    };
    let deadline = Instant::now() + 2 * PATIENCE;
    'minutes: loop {
        assert!(Instant::now() < deadline, "two instances do not learn of each other");
        for _ in 0..60 {
            remaining(&servers[0]).await;
        }
        let Some((_, minute)) = remaining(&servers[0]).await else { continue };
        for asked in 1..=30 {
            match remaining(&servers[1]).await {
                // By itself the second instance would have more than 60 left.
                Some((left, same)) if same == minute && left < 40 => return,
                Some((_, same)) if same != minute => continue 'minutes,
                _ => tokio::time::sleep(Duration::from_millis(100 + asked)).await,
            }
        }
    }
}
