//! BIL-1 and the reconciliation against the naive model.

use axum::http::StatusCode;
use flagmint_schemas::rollup::{Cell, DecisionCell, LedgerCell, Table};
use serde_json::json;

use crate::analytics::us;
use crate::support::events::{self, HOUR_US, floor};
use crate::support::{World, emit, ids, naive};

#[tokio::test]
async fn usage_is_this_months() {
    let world = World::new(20).await;
    let (status, mut body) = world.get_as(ids::ORGANIZATION, "editor", "/billing/usage").await;
    assert_eq!(status, StatusCode::OK);
    let month: Vec<_> = world.events.iter().filter(|event| event.time_us >= us("2026-03-01T00:00:00Z")).collect();
    naive::check_users(&body["observedContexts"]["used"], &month);
    body["observedContexts"]["used"].take();
    let calls = month.len();
    assert_eq!(
        body,
        json!({
            "apiCalls": {"used": calls, "limit": 50_000},
            "flags": {"used": 2, "limit": 25, "total": 2},
            "projects": {"used": 2, "limit": 3},
            "connections": {"used": 2 * calls, "limit": null},
            "observedContexts": {"used": null, "limit": null},
            "trackEvents": {"used": 3 * calls, "limit": null},
            "period": {"from": "2026-03-01T00:00:00.000Z", "to": "2026-04-01T00:00:00.000Z"},
            "complete_through": "2026-03-15T10:20:30.200Z",
        })
    );
}

#[tokio::test]
async fn every_decision_is_accounted_for() {
    let world = World::new(21).await;
    let (_, body) = world.get_as(ids::ORGANIZATION, "admin", "/audit/reconciliation").await;
    let data = &body["data"];
    let counted: u64 = world.events.iter().map(|event| event.count).sum();
    let served = world.events.iter().filter(|event| event.measure == flagmint_schemas::rollup::measure::SERVED);
    let served: u64 = served.map(|event| event.count).sum();
    assert_eq!(
        data["cross_checks"],
        json!({"ledger_counted": counted, "decision_cells": counted, "served_decision_cells": served,
            "latency_cells": served, "flag_cells": counted, "total_cells": counted, "api_calls": world.events.len(), "holds": true})
    );
    assert_eq!(
        (&data["holds"], &data["totals"]["counted"], &data["totals"]["in_flight"]),
        (&json!(true), &json!(counted), &json!(0))
    );
    for hour in data["hours"].as_array().unwrap() {
        let start = us(hour["hour"].as_str().unwrap());
        let of_hour = world.events.iter().filter(|event| floor(event.time_us, HOUR_US) == start);
        let counted: u64 = of_hour.map(|event| event.count).sum();
        let number = |field: &str| hour[field].as_u64().unwrap();
        assert_eq!((number("counted"), number("duplicates")), (counted, counted), "{hour}");
        assert_eq!(number("produced"), 2 * counted + number("parked"), "{hour}");
        assert_eq!(hour["holds"], json!(true));
    }
}

#[tokio::test]
async fn what_is_missing_shows() {
    let world = World::new(22).await;
    // A header that announced more than was folded, long complete; and a decision that no ledger knows.
    let batches: Vec<_> = events::cells(&world.events);
    let batch = |table| batches.iter().find(|(other, _)| *other == table).map(|(_, batch)| batch).unwrap();
    let mut ledger = LedgerCell::from_batch(batch(Table::Ledger)).unwrap().swap_remove(0);
    ledger.produced += 9;
    let mut decision = DecisionCell::from_batch(batch(Table::Decisions)).unwrap().swap_remove(0);
    decision.chunk = 1_999;
    let hour = ledger.time_us;
    emit(
        &world.store,
        vec![(Table::Ledger, LedgerCell::to_batch(&[ledger])), (Table::Decisions, DecisionCell::to_batch(&[decision]))],
    )
    .await;
    let (_, body) = world.get_as(ids::ORGANIZATION, "admin", "/audit/reconciliation").await;
    let data = &body["data"];
    assert_eq!((&data["holds"], &data["cross_checks"]["holds"]), (&json!(false), &json!(false)));
    let broken: Vec<_> =
        data["hours"].as_array().unwrap().iter().filter(|hour| hour["holds"] == json!(false)).collect();
    assert_eq!((broken.len(), us(broken[0]["hour"].as_str().unwrap()), &broken[0]["in_flight"]), (1, hour, &json!(9)));
}
