//! An evaluator starts with Kafka away: it decides, keeps what it decided, says so, and nothing is missing in the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Place, end};
use crate::counts::complete;
use crate::load::send;
use crate::support::{PATIENCE, Person, Server, Shop};

async fn log(url: &str) -> Value {
    let answer = reqwest::get(format!("{url}/health/ready")).await.expect("an answer");
    assert_eq!(answer.status(), 200, "it can decide");
    answer.json::<Value>().await.expect("JSON")["log"].take()
}

async fn log_until(url: &str, accept: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = log(url).await;
        if accept(&log) {
            return log;
        }
        assert!(Instant::now() < deadline, "{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From now on whoever connects to an address reaches a broker; it tells where it is by itself.
async fn appear(address: &str, broker: String) {
    let listener = TcpListener::bind(address).await.expect("the port was free");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let broker = broker.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(broker).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluator_starts_with_kafka_away() {
    let place = Place::new().await;
    place.migrate();
    let (control, query, aggregator) = (place.control_plane(), place.query_api(), place.aggregator());
    let manager = Person::sign_in(&control.url).await;
    let shop = Arc::new(Shop::open(&manager).await);
    let person = Person { url: query.url.clone(), http: manager.http.clone(), token: manager.token.clone() };
    // Nobody listens there any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    let nowhere = port.to_string();
    let evaluator = Server::start(place.role_but("evaluator", &[("--kafka", &nowhere)]));
    let asked = shop.wait_until_served(&person.http, &evaluator.url).await;
    send(&shop, std::slice::from_ref(&evaluator.url), 500, Duration::ZERO).await;
    let told = log_until(&evaluator.url, |log| log["spool_bytes"].as_u64() > Some(0)).await;
    let state = told["state"].as_str().unwrap_or_default();
    assert!(
        state.contains("batches wait") && state.contains("no Kafka broker answers") && state.contains(&nowhere),
        "{told}"
    );

    appear(&nowhere, place.kafka.clone()).await;
    log_until(&evaluator.url, |log| log["state"] == "appending" && log["spool_bytes"] == 0).await;
    let metrics = complete(&person, &format!("/flags/{}/metrics", shop.flag_id)).await;
    let counted = metrics["data"]["totals"]["evaluations"].as_u64().expect("a count");
    // Calls before the flag was there did not evaluate it.
    assert!((501..=500 + asked).contains(&counted), "{counted} of 500 and {asked}: {metrics}");
    let reconciliation = person.get("/audit/reconciliation").await["data"].take();
    let totals = &reconciliation["totals"];
    assert_eq!((&totals["gaps"], &totals["duplicates"]), (&0.into(), &0.into()), "{totals}");
    for server in [evaluator, aggregator, query, control] {
        end(server);
    }
}
