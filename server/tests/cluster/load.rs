//! A known load: as many requests as are asked for, all of which must be answered.

use std::sync::Arc;
use std::time::Duration;

use crate::support::Shop;

const CONNECTIONS: u64 = 8;

/// Sends `requests` over several connections to the instances in turn; each rests for `pause` after an answer.
pub async fn send(shop: &Arc<Shop>, urls: &[String], requests: u64, pause: Duration) {
    let worker = |number: u64| {
        let (shop, url) = (Arc::clone(shop), urls[number as usize % urls.len()].clone());
        tokio::spawn(async move {
            let http = reqwest::Client::new();
            for request in (number..requests).step_by(CONNECTIONS as usize) {
                let (status, values) =
                    shop.evaluate(&http, &url, &format!("user-{}", request % 500)).await.expect("an answer");
                assert_eq!(status, 200, "{values}");
                tokio::time::sleep(pause).await;
            }
        })
    };
    let workers: Vec<_> = (0..CONNECTIONS).map(worker).collect();
    for worker in workers {
        worker.await.expect("no worker panics");
    }
}
