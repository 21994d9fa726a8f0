//! A known load through two evaluators, while aggregators come and go: what is answered afterwards is what was sent.

use std::sync::Arc;
use std::time::Duration;

use flagmint_log::kafka::{KafkaOptions, SideTopics, UsageEvent};
use serde_json::Value;

use crate::cluster::{Place, end};
use crate::load::send;
use crate::support::{PATIENCE, Person, Shop};

/// What three endpoints say about the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    evaluations: u64,
    billed: u64,
    produced: u64,
    counted: u64,
}

impl Counted {
    /// Once everything up to now is counted; the reconciliation must hold then.
    async fn now(person: &Person, shop: &Shop) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no count"));
        let metrics = complete(person, &format!("/flags/{}/metrics", shop.flag_id)).await;
        let usage = person.get("/billing/usage").await;
        let reconciliation = person.get("/audit/reconciliation").await["data"].take();
        assert_eq!(reconciliation["holds"], true, "{reconciliation}");
        let totals = &reconciliation["totals"];
        assert_eq!(
            (&totals["gaps"], &totals["duplicates"], &totals["parked"]),
            (&0.into(), &0.into(), &0.into()),
            "{totals}"
        );
        Self {
            evaluations: number(&metrics["data"]["totals"]["evaluations"]),
            billed: number(&usage["apiCalls"]["used"]),
            produced: number(&totals["produced"]),
            counted: number(&totals["counted"]),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            evaluations: self.evaluations - before.evaluations,
            billed: self.billed - before.billed,
            produced: self.produced - before.produced,
            counted: self.counted - before.counted,
        }
    }
}

/// The answer of a path once everything up to now is counted.
pub async fn complete(person: &Person, path: &str) -> Value {
    let first = person.get(path).await;
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let through = |answer: &Value| {
        answer["data"]["meta"]["complete_through"].as_str().is_some_and(|through| through > now.as_str())
    };
    if through(&first) { first } else { person.get_until(path, through).await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_what_is_counted_while_aggregators_come_and_go() {
    let place = Place::new().await;
    place.migrate();
    let control = place.control_plane();
    let query = place.query_api();
    let (first, mut second) = (place.aggregator(), place.aggregator());
    let evaluators = [place.evaluator(1), place.evaluator(2)];
    let urls = evaluators.each_ref().map(|evaluator| evaluator.url.clone());
    let manager = Person::sign_in(&control.url).await;
    let shop = Arc::new(Shop::open(&manager).await);
    let person = Person { url: query.url.clone(), http: manager.http.clone(), token: manager.token.clone() };
    for url in &urls {
        shop.wait_until_served(&person.http, url).await;
    }
    for server in [&control, &query, &first, &second, &evaluators[0]] {
        ready(server.url.as_str()).await;
    }

    let before = Counted::now(&person, &shop).await;
    let pause = Duration::from_millis(2);
    send(&shop, &urls, 2_000, pause).await;
    // One ends in order and one as if its machine had died, each under load; others take over.
    let sending = tokio::spawn({
        let (shop, urls) = (Arc::clone(&shop), urls.to_vec());
        async move { send(&shop, &urls, 8_000, pause).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    end(first);
    let third = place.aggregator();
    tokio::time::sleep(Duration::from_millis(700)).await;
    second.signal(libc::SIGKILL);
    second.wait();
    sending.await.expect("the load is answered");

    let after = Counted::now(&person, &shop).await;
    let sent = Counted { evaluations: 10_000, billed: 10_000, produced: 10_000, counted: 10_000 };
    assert_eq!(after.since(before), sent, "nothing twice, nothing missing");
    published(&place, after.billed).await;

    end(third);
    for server in evaluators {
        end(server);
    }
    end(control);
    end(query);
}

/// The topic of usage totals comes to say the same as billing.
async fn published(place: &Place, billed: u64) {
    let options = KafkaOptions::new(place.kafka.clone(), place.topic.clone());
    let topics = SideTopics::open(options).await.expect("the topics");
    let mut totals = topics.follow_usage().expect("a follower");
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = totals.recv().await {
            let UsageEvent::Total { total, .. } = event else { continue };
            let total: Value = serde_json::from_slice(&total).expect("JSON");
            if total["api_calls"] == billed {
                return;
            }
            assert!(total["api_calls"].as_u64() < Some(billed), "more than was billed: {total}");
        }
    });
    found.await.expect("the billed total is published");
}

async fn ready(url: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = reqwest::get(format!("{url}/health/ready")).await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
        if status.is_success() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{url} is not ready: {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (path, expected) in [("/version", "flagmint"), ("/openapi.json", "{"), ("/metrics", "flagmint_")] {
        let text = reqwest::get(format!("{url}{path}")).await.expect("an answer").text().await.expect("text");
        assert!(text.contains(expected), "{url}{path}: {text}");
    }
    let elsewhere = reqwest::get(format!("{url}/nowhere")).await.expect("an answer");
    assert_eq!(elsewhere.status(), 404);
}
