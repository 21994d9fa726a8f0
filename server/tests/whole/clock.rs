//! The wall clock set back while the whole binary serves: nothing is lost, nothing counted twice, and no watermark goes back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::load::Load;
use crate::support::{Person, Place, Server, Shop, flagmint, machine};
use crate::wall_clock::Clock;

/// Between the requests of a connection.
const PAUSE: Duration = Duration::from_millis(5);

/// Long against a flush, a tick of the aggregator and a heartbeat.
const SPELL: Duration = Duration::from_secs(2);

fn start(place: &Place, clock: &Clock) -> Server {
    let mut command = flagmint(&place.data_dir());
    command.args(["--postgres", &place.database]);
    command.envs(clock.settings());
    Server::start(command)
}

/// The flag's evaluations of these days, whatever the server takes for today.
fn metrics(shop: &Shop) -> String {
    let day = |offset: i64| (chrono::Utc::now() + chrono::Duration::days(offset)).format("%Y-%m-%d").to_string();
    format!("/flags/{}/metrics?from={}&to={}", shop.flag_id, day(-1), day(1))
}

fn counted(answer: &Value) -> u64 {
    answer["data"]["totals"]["evaluations"].as_u64().expect("a count")
}

fn complete_through(answer: &Value) -> String {
    answer["data"]["meta"]["complete_through"].as_str().unwrap_or_default().to_owned()
}

/// Load for a spell; returns how many were answered, having seen that the watermark never goes back.
async fn spell(person: &Person, shop: &Arc<Shop>) -> u64 {
    let load = Load::start(Arc::clone(shop), person.url.clone(), PAUSE);
    let started = std::time::Instant::now();
    let mut told = String::new();
    while started.elapsed() < SPELL {
        let now = complete_through(&person.get(&metrics(shop)).await);
        assert!(now >= told, "complete_through went from {told} back to {now}");
        told = now;
    }
    let answered = load.finish().await;
    assert_eq!(answered.unanswered, 0, "a clock stops no answer");
    answered.at.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_back_loses_and_repeats_nothing() {
    let _alone = machine().await;
    let place = Place::new().await;
    let clock = Clock::new(place.data_dir().parent().expect("inside the place"));
    let mut server = start(&place, &clock);
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    shop.wait_until_served(&person.http, &server.url).await;
    let before = counted(&person.get_until(&metrics(&shop), |answer| counted(answer) > 0).await);
    let mut answered = spell(&person, &shop).await;
    for offset_s in [-600, 0, -3600] {
        let told = complete_through(&person.get(&metrics(&shop)).await);
        clock.set(offset_s);
        answered += spell(&person, &shop).await;
        let now = complete_through(&person.get(&metrics(&shop)).await);
        assert!(now >= told, "with {offset_s} s, complete_through went from {told} back to {now}");
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    // Started with the clock still an hour back.
    let mut server = start(&place, &clock);
    let person = Person::sign_in(&server.url).await;
    let found = counted(&person.get(&metrics(&shop)).await) - before;
    assert_eq!(found, answered, "after the drain and a restart, what was answered is counted once");
    shop.wait_until_served(&person.http, &server.url).await;
    let before = counted(&person.get_until(&metrics(&shop), |answer| counted(answer) > before + found).await);
    let answered = spell(&person, &shop).await;
    let found = person.get_until(&metrics(&shop), |answer| counted(answer) - before >= answered).await;
    assert_eq!(counted(&found) - before, answered);
    let audit = person.get("/audit/reconciliation").await;
    for none in ["gaps", "duplicates", "parked"] {
        assert_eq!(audit["data"]["totals"][none], 0, "{none}: {audit}");
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
