//! FLG-7 and ANA-1 to ANA-5 against the naive model.

use std::collections::BTreeMap;
use std::ops::Range;

use flagmint_schemas::rollup::measure;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::events::{DAY_US, Event, HOUR_US, floor};
use crate::support::{World, ids, naive};

/// The paths of the project analytics.
pub const ANALYTICS: [&str; 5] = ["metrics", "evaluations", "response-time", "top-flags", "distribution"];

pub fn us(time: &str) -> i64 {
    time.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_micros()
}

pub fn analytics(name: &str, query: &str) -> String {
    format!("/projects/{}/analytics/{name}?{query}", ids::PROJECT)
}

/// Times of each point of a series.
fn points(series: &Value, step_us: i64) -> Vec<(Range<i64>, Value)> {
    let point = |point: &Value| {
        let date = point["date"].as_str().unwrap();
        let start = if date.len() == 10 { us(&format!("{date}T00:00:00Z")) } else { us(date) };
        (start..start + step_us, point.clone())
    };
    series.as_array().unwrap().iter().map(point).collect()
}

fn shares_sum_to_one(parts: &Value) {
    let sum: f64 = parts.as_array().unwrap().iter().map(|part| part["share"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
}

const LAST_30_DAYS: &str = "2026-02-14T00:00:00Z";

#[tokio::test]
async fn flag_metrics_are_what_happened() {
    let world = World::new(1).await;
    let data = world.data(&format!("/flags/{}/metrics", ids::CHECKOUT)).await;
    let from_us = us(LAST_30_DAYS);
    let events = naive::counted(&world.events, |event| event.flag == ids::CHECKOUT && event.time_us >= from_us);
    assert_eq!(data["flag"], json!({"id": ids::CHECKOUT, "key": "checkout", "name": "Checkout", "type": "boolean"}));
    naive::check_measures(&data["totals"], &events);
    naive::check_users(&data["totals"]["unique_users"], &events);
    let series = points(&data["series"], DAY_US);
    assert_eq!((series.len(), series[0].0.start), (30, from_us));
    for (day, point) in series {
        let of_day: Vec<&Event> = events.iter().copied().filter(|event| day.contains(&event.time_us)).collect();
        naive::check_measures(&point, &of_day);
        naive::check_users(&point["unique_users"], &of_day);
    }
    check_parts(&data, &events);
}

fn check_parts(data: &Value, events: &[&Event]) {
    let by = |key: &dyn Fn(&Event) -> Value| {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for event in events.iter().filter(|event| [measure::SERVED, measure::REPORTED].contains(&event.measure)) {
            *sums.entry(key(event).to_string()).or_default() += event.count;
        }
        sums
    };
    let told = |parts: &Value, key: &dyn Fn(&Value) -> Value| -> BTreeMap<String, u64> {
        let part = |part: &Value| (key(part).to_string(), part["evaluations"].as_u64().unwrap());
        parts.as_array().unwrap().iter().map(part).filter(|(_, evaluations)| *evaluations > 0).collect()
    };
    let variation = |event: &Event| if event.variation.is_nil() { json!(null) } else { json!(event.variation) };
    assert_eq!(told(&data["variations"], &|part| part["variation_id"].clone()), by(&variation));
    let reason = |event: &Event| json!([event.reason.as_str(), event.error_code.map(|code| code.as_str())]);
    assert_eq!(told(&data["reasons"], &|part| json!([part["reason"], part["error_code"]])), by(&reason));
    assert_eq!(
        told(&data["environments"], &|part| part["environment_id"].clone()),
        by(&|event| json!(event.environment))
    );
    shares_sum_to_one(&data["variations"]);
    shares_sum_to_one(&data["reasons"]);
    for part in data["variations"].as_array().unwrap() {
        match part["variation_id"].as_str() {
            Some(id) => {
                let got_it = |event: &&&Event| event.variation == id.parse::<Uuid>().unwrap();
                naive::check_users(&part["unique_users"], &events.iter().filter(got_it).copied().collect::<Vec<_>>());
            }
            None => assert_eq!(part["unique_users"], Value::Null),
        }
    }
    let never = data["variations"].as_array().unwrap().iter().find(|part| part["key"] == "never").unwrap();
    assert_eq!((&never["evaluations"], &never["value"]), (&json!(0), &json!(false)));
}

#[tokio::test]
async fn hours_and_environments_are_told_apart() {
    let world = World::new(2).await;
    let query = format!("granularity=hour&from=2026-03-12T05:30:10Z&to=2026-03-14&environment_id={}", ids::STAGING);
    let data = world.data(&format!("/flags/{}/metrics?{query}", ids::CHECKOUT)).await;
    let span = us("2026-03-12T05:30:00Z")..us("2026-03-15T00:00:00Z");
    let events = naive::counted(&world.events, |event| {
        event.flag == ids::CHECKOUT && event.environment == ids::STAGING && span.contains(&event.time_us)
    });
    naive::check_measures(&data["totals"], &events);
    let series = points(&data["series"], HOUR_US);
    assert_eq!((series.len(), data["series"][0]["date"].as_str()), (67, Some("2026-03-12T05:00:00.000Z")));
    for (hour, point) in series {
        let of_hour: Vec<&Event> = events.iter().copied().filter(|event| hour.contains(&event.time_us)).collect();
        naive::check_measures(&point, &of_hour);
        assert_eq!(point["unique_users"], Value::Null);
    }
    assert_eq!(data["environments"].as_array().unwrap().len(), 1);
    let meta = &data["meta"];
    assert_eq!(meta["from"], "2026-03-12T05:30:00.000Z");
    assert_eq!(meta["to"], "2026-03-15T00:00:00.000Z");
    assert_eq!(meta["unique_users_days"], json!({"from": "2026-03-12", "to": "2026-03-14"}));
    assert_eq!((&meta["granularity"], &meta["unique_users_error"]), (&json!("hour"), &json!(0.01625)));
    assert_eq!(meta["generated_at"], "2026-03-15T10:20:30.500Z");
    assert_eq!(meta["complete_through"], "2026-03-15T10:20:30.200Z");
    let late = world.events.iter().zip(0..).filter(|(event, _)| {
        event.environment == ids::STAGING && (us("2026-03-12T05:00:00Z")..span.end).contains(&event.time_us)
    });
    let cells: std::collections::BTreeSet<_> =
        late.map(|(event, index)| (index % 2, floor(event.time_us, HOUR_US))).collect();
    assert_eq!(meta["late_events"], json!(cells.len()));
}

#[tokio::test]
async fn project_metrics_compare_with_the_period_before() {
    let world = World::new(3).await;
    let data = world.data(&analytics("metrics", "from=2026-03-01&to=2026-03-15")).await;
    let period = |from: &str, to: &str| {
        let span = us(from)..us(to);
        naive::counted(&world.events, move |event| span.contains(&event.time_us))
    };
    let current = period("2026-03-01T00:00:00Z", "2026-03-16T00:00:00Z");
    let previous = period("2026-02-14T00:00:00Z", "2026-03-01T00:00:00Z");
    for (told, events) in [(&data["current"], &current), (&data["previous"], &previous)] {
        naive::check_measures(told, events);
        naive::check_users(&told["unique_users"], events);
        assert_eq!(told["active_flags"], json!(3));
    }
    let number = |period: &str, field: &str| data[period][field].as_f64().unwrap();
    for field in [
        "evaluations",
        "served",
        "reported",
        "errors",
        "error_rate",
        "goals",
        "app_errors",
        "unique_users",
        "active_flags",
        "avg_response_time_ms",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "avg_evaluation_us",
    ] {
        let (now, before) = (number("current", field), number("previous", field));
        let told = data["change"][field].as_f64().unwrap();
        assert!((told - (now / before - 1.0)).abs() < 1e-9, "{field}: {told} from {before} to {now}");
        if let Some(told) = data["change"].get(format!("{field}_difference")) {
            assert!((told.as_f64().unwrap() - (now - before)).abs() < 1e-9, "{field}");
        }
    }
    // Nothing to compare with: all null.
    let data = world.data(&analytics("metrics", "from=2025-12-01&to=2025-12-31")).await;
    assert!(
        data["change"]
            .as_object()
            .unwrap()
            .iter()
            .all(|(field, change)| change.is_null() || field == "error_rate_difference"),
        "{}",
        data["change"]
    );
}

#[tokio::test]
async fn evaluations_and_response_times_by_day() {
    let world = World::new(4).await;
    let from_us = us(LAST_30_DAYS);
    let events = naive::counted(&world.events, |event| event.time_us >= from_us);
    let data = world.data(&analytics("evaluations", "")).await;
    let times = world.data(&analytics("response-time", "")).await;
    assert_eq!(data["total"]["evaluations"], json!(naive::evaluations(&events)));
    naive::check_users(&data["total"]["unique_users"], &events);
    naive::check_times(&times["overall"], &events);
    let series = points(&data["series"], DAY_US);
    assert_eq!(series.len(), 30);
    for ((day, point), times) in series.into_iter().zip(times["series"].as_array().unwrap()) {
        let of_day: Vec<&Event> = events.iter().copied().filter(|event| day.contains(&event.time_us)).collect();
        assert_eq!(point["evaluations"], json!(naive::evaluations(&of_day)));
        assert_eq!(point["served"], json!(naive::total(&of_day, &[measure::SERVED])));
        assert_eq!(point["reported"], json!(naive::total(&of_day, &[measure::REPORTED])));
        naive::check_users(&point["unique_users"], &of_day);
        assert_eq!((&times["date"], &times["served"]), (&point["date"], &point["served"]));
        naive::check_times(times, &of_day);
    }
    // The day without data is there, with zeros and nulls.
    let silent =
        |data: &Value| data["series"].as_array().unwrap().iter().find(|it| it["date"] == "2026-03-10").cloned();
    assert_eq!(
        silent(&data),
        Some(
            json!({"date": "2026-03-10", "evaluations": 0, "served": 0, "reported": 0, "errors": 0, "unique_users": 0})
        )
    );
    assert_eq!(
        silent(&times),
        Some(
            json!({"date": "2026-03-10", "avg_response_time_ms": null, "p50_ms": null, "p90_ms": null, "p99_ms": null, "served": 0})
        )
    );
}

#[tokio::test]
async fn flags_are_ranked_and_their_shares_sum_to_one() {
    let world = World::new(5).await;
    let from_us = us(LAST_30_DAYS);
    let all = naive::counted(&world.events, |event| event.time_us >= from_us);
    let of = |flag: Uuid| all.iter().copied().filter(|event| event.flag == flag).collect::<Vec<_>>();
    let mut expected: Vec<(u64, &str, Uuid)> =
        [("checkout", ids::CHECKOUT), ("banner", ids::BANNER), ("old", ids::OLD)]
            .map(|(key, flag)| (naive::evaluations(&of(flag)), key, flag))
            .into();
    expected.sort_by_key(|(evaluations, key, _)| (std::cmp::Reverse(*evaluations), *key));
    let total: u64 = expected.iter().map(|(evaluations, ..)| evaluations).sum();

    let top = world.data(&analytics("top-flags", "")).await;
    let distribution = world.data(&analytics("distribution", "")).await;
    assert_eq!(distribution["total"], json!(total));
    assert_eq!(distribution["other"], json!({"evaluations": 0, "share": 0.0}));
    shares_sum_to_one(&top["flags"]);
    shares_sum_to_one(&distribution["flags"]);
    let rows = top["flags"].as_array().unwrap().iter().zip(distribution["flags"].as_array().unwrap());
    assert_eq!(rows.len(), expected.len());
    for ((rank, (evaluations, key, flag)), (ranked, part)) in (1..).zip(expected).zip(rows) {
        assert_eq!((&ranked["rank"], &ranked["flag_id"], &ranked["key"]), (&json!(rank), &json!(flag), &json!(key)));
        assert_eq!((&ranked["evaluations"], &part["evaluations"]), (&json!(evaluations), &json!(evaluations)));
        assert_eq!((&part["flag_id"], &part["key"], &part["name"]), (&ranked["flag_id"], &json!(key), &ranked["name"]));
        naive::check_close(&ranked["share"], Some(evaluations as f64 / total as f64), 1e-9);
        naive::check_users(&ranked["unique_users"], &of(flag));
        let metrics = world.data(&format!("/flags/{flag}/metrics")).await;
        for field in ["error_rate", "avg_response_time_ms", "p99_ms", "unique_users", "evaluations"] {
            assert_eq!(ranked[field], metrics["totals"][field], "{key} {field}");
        }
    }
    let limited = world.data(&analytics("top-flags", "limit=1")).await;
    assert_eq!(limited["flags"], json!([top["flags"][0]]));
}

#[tokio::test]
async fn either_spelling_works_and_an_empty_project_has_zeros() {
    let world = World::new(6).await;
    for name in ANALYTICS {
        let second = format!("/projects/{}/analytics-{name}?from=2026-03-01", ids::PROJECT);
        assert_eq!(world.data(&analytics(name, "from=2026-03-01")).await, world.data(&second).await, "{name}");
    }
    let empty = async |name: &str| {
        let mut data = world.data(&format!("/projects/{}/analytics/{name}?from=2026-03-14", ids::EMPTY_PROJECT)).await;
        data.as_object_mut().unwrap().remove("meta");
        data
    };
    assert_eq!(empty("top-flags").await, json!({"flags": []}));
    assert_eq!(
        empty("distribution").await,
        json!({"total": 0, "flags": [], "other": {"evaluations": 0, "share": 0.0}})
    );
    let none = json!({"evaluations": 0, "served": 0, "reported": 0, "errors": 0, "unique_users": 0});
    let evaluations = empty("evaluations").await;
    assert_eq!((&evaluations["total"], evaluations["series"].as_array().unwrap().len()), (&none, 2));
    let times = json!({"avg_response_time_ms": null, "p50_ms": null, "p90_ms": null, "p99_ms": null, "served": 0});
    assert_eq!(empty("response-time").await["overall"], times);
    let metrics = empty("metrics").await;
    assert_eq!(metrics["current"], metrics["previous"]);
    naive::check_measures(&metrics["current"], &[]);
    assert_eq!((&metrics["current"]["active_flags"], &metrics["change"]["evaluations"]), (&json!(0), &Value::Null));
}
