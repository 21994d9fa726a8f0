//! From embedded to distributed: what is answered before and after the move is the same, to the last number.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Place, end, flagmint};
use crate::load::send;
use crate::support::{EMAIL, PASSWORD, Person, Server, Shop};

/// What differs between two answers to the same question: when they were given, and how far the log is known.
const TIMES: [&str; 2] = ["generated_at", "complete_through"];

fn without_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for name in TIMES {
                members.remove(name);
            }
            members.values_mut().for_each(without_times);
        }
        Value::Array(values) => values.iter_mut().for_each(without_times),
        _ => {}
    }
}

async fn answers(person: &Person, shop: &Shop, from: &str, to: &str) -> Vec<(String, Value)> {
    let period = format!("from={from}&to={to}");
    let analytics = format!("/projects/{}/analytics", shop.project_id);
    let paths = [
        format!("/flags/{}/metrics?{period}", shop.flag_id),
        format!("{analytics}/metrics?{period}"),
        format!("{analytics}/evaluations?{period}&granularity=hour"),
        format!("{analytics}/top-flags?{period}"),
        format!("{analytics}/response-time?{period}"),
        format!("{analytics}/distribution?{period}"),
        "/contexts/observed-contexts?limit=100".to_owned(),
        "/billing/usage".to_owned(),
        format!("/audit/reconciliation?{period}"),
    ];
    let mut answers = Vec::new();
    for path in paths {
        let mut answer = person.get(&path).await;
        without_times(&mut answer);
        answers.push((path, answer));
    }
    answers
}

fn embedded(place: &Place) -> Command {
    let password = place.path("password");
    std::fs::write(&password, PASSWORD).expect("a password file");
    let mut command = flagmint("up");
    command.args(["--listen", "127.0.0.1:0", "--admin-email", EMAIL, "--log-level", "warn"]);
    command.arg("--data-dir").arg(place.path("data")).arg("--admin-password-file").arg(password);
    command.args(["--postgres", &place.postgres]);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_same_after_the_move_to_clickhouse() {
    let place = Place::new().await;
    let server = Server::start(embedded(&place));
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    shop.wait_until_served(&person.http, &server.url).await;
    send(&shop, std::slice::from_ref(&server.url), 3_000, Duration::ZERO).await;
    end(server);
    // Once more, so that nothing is under way when the questions are asked.
    let server = Server::start(embedded(&place));
    let person = Person { url: server.url.clone(), ..person };
    let now = chrono::Utc::now();
    let iso = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let (from, to) = (iso(now - chrono::Duration::hours(30)), iso(now));
    let before = answers(&person, &shop, &from, &to).await;
    let evaluations = before[0].1["data"]["totals"]["evaluations"].as_u64().expect("a count");
    assert!(evaluations >= 3_000, "{evaluations}");
    end(server);

    // Twice: a move that was cut off is repeated.
    for _ in 0..2 {
        let mut command = flagmint("migrate-data");
        command.arg("--data-dir").arg(place.path("data")).args(["--clickhouse", &place.clickhouse]);
        let output = command.output().expect("flagmint runs");
        assert!(output.status.success(), "{output:?}");
    }
    let query = place.query_api();
    let person = Person { url: query.url.clone(), ..person };
    let after = answers(&person, &shop, &from, &to).await;
    for ((path, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(before, after, "{path}");
    }
    end(query);
}
