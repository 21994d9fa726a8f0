//! The measures computed a second way: from events one by one, without cells, buckets or sketches.

use std::collections::BTreeSet;

use flagmint_schemas::decision::Reason;
use flagmint_schemas::rollup::{counting, measure};
use flagmint_schemas::sketch::unique::STANDARD_ERROR;
use serde_json::{Value, json};

use super::events::Event;

/// The events of those given that count in analytics.
pub fn counted(events: &[Event], choose: impl Fn(&Event) -> bool) -> Vec<&Event> {
    events.iter().filter(|event| event.counting == counting::COUNTED && choose(event)).collect()
}

/// How often something was measured.
pub fn total(events: &[&Event], measures: &[u8]) -> u64 {
    events.iter().filter(|event| measures.contains(&event.measure)).map(|event| event.count).sum()
}

/// Served and reported.
pub fn evaluations(events: &[&Event]) -> u64 {
    total(events, &[measure::SERVED, measure::REPORTED])
}

/// Distinct users.
pub fn users(events: &[&Event]) -> u64 {
    events.iter().map(|event| event.user).collect::<BTreeSet<_>>().len() as u64
}

/// Holds an estimate to four standard errors.
pub fn check_users(actual: &Value, events: &[&Event]) {
    let (actual, exact) = (actual.as_f64().unwrap(), users(events) as f64);
    assert!((actual - exact).abs() <= (4.0 * STANDARD_ERROR * exact).max(1.0), "{actual} users for {exact}");
}

/// Holds a number to a relative error.
pub fn check_close(actual: &Value, exact: Option<f64>, error: f64) {
    match (actual.as_f64(), exact) {
        (None, None) => assert!(actual.is_null(), "{actual}"),
        (Some(actual), Some(exact)) => assert!((actual - exact).abs() <= error * exact.abs(), "{actual} for {exact}"),
        (_, exact) => panic!("{actual} for {exact:?}"),
    }
}

/// Response times, from the sorted latencies of all served decisions.
pub fn check_times(actual: &Value, events: &[&Event]) {
    let served = events.iter().filter(|event| event.measure == measure::SERVED);
    let mut latencies: Vec<u64> =
        served.flat_map(|event| std::iter::repeat_n(event.latency_us, event.count as usize)).collect();
    latencies.sort_unstable();
    let mean = latencies.iter().sum::<u64>() as f64 / latencies.len() as f64 / 1e3;
    check_close(&actual["avg_response_time_ms"], (!latencies.is_empty()).then_some(mean), 1e-9);
    for (field, quantile) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
        let rank = (quantile * latencies.len() as f64).ceil() as usize;
        let exact = latencies.get(rank.wrapping_sub(1)).map(|us| *us as f64 / 1e3);
        check_close(&actual[field], exact, 0.0111);
    }
}

/// All measures but `unique_users`.
pub fn check_measures(actual: &Value, events: &[&Event]) {
    let served: Vec<&Event> = events.iter().copied().filter(|event| event.measure == measure::SERVED).collect();
    let errors: u64 = served.iter().filter(|event| event.reason == Reason::Error).map(|event| event.count).sum();
    let counts = [
        ("evaluations", evaluations(events)),
        ("served", total(events, &[measure::SERVED])),
        ("reported", total(events, &[measure::REPORTED])),
        ("errors", errors),
        ("goals", total(events, &[measure::GOAL])),
        ("app_errors", total(events, &[measure::APP_ERROR])),
    ];
    for (field, exact) in counts {
        assert_eq!(actual[field], json!(exact), "{field}");
    }
    let weight: u64 = served.iter().map(|event| event.count).sum();
    let mean = |sum: u64| (weight > 0).then(|| sum as f64 / weight as f64);
    check_close(&actual["error_rate"], Some(mean(errors).unwrap_or(0.0)), 1e-9);
    let evaluation_ns = served.iter().map(|event| event.count * event.evaluation_ns).sum();
    check_close(&actual["avg_evaluation_us"], mean(evaluation_ns).map(|ns| ns / 1e3), 1e-9);
    check_times(actual, events);
}
