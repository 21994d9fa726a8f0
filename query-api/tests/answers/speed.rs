//! What answers cost: it depends on cells, not on decisions. The bar is a p99 below 50 ms on a machine of its own
//! (docs/performance.md has figures); here only a gross regression fails, since other tests share the machine.

use std::time::{Duration, Instant};

use flagmint_schemas::ids::FlagId;
use flagmint_schemas::rollup::{Cell, DecisionCell, FlagCell, LatencyCell, Table, TotalCell};
use flagmint_schemas::sketch::latency::Histogram;
use uuid::Uuid;

use crate::analytics::{ANALYTICS, analytics};
use crate::support::events::{self, HOUR_US, floor};
use crate::support::{World, emit, ids};

/// Asked this often per endpoint.
const ROUNDS: usize = 40;

/// Well above the bar, well below a scan of decisions.
const GROSS_REGRESSION: Duration = Duration::from_secs(2);

/// Hourly cells of 12 flags in 30 days with `decisions` in all.
async fn fill(world: &World, decisions: u64) -> usize {
    let batches = events::cells(&world.events);
    let batch = |table| batches.iter().find(|(other, _)| *other == table).map(|(_, batch)| batch).unwrap();
    let decision = DecisionCell::from_batch(batch(Table::Decisions)).unwrap().swap_remove(0);
    let latency = LatencyCell::from_batch(batch(Table::Latency)).unwrap().swap_remove(0);
    let last_us = floor(world.events.iter().map(|event| event.time_us).max().unwrap(), HOUR_US);
    let places: Vec<(FlagId, u8, i64)> = (0..12)
        .flat_map(|flag| (1..=6).flat_map(move |reason| (0..720).map(move |hour| (flag, reason, hour))))
        .map(|(flag, reason, hour)| (FlagId(Uuid::from_u128(0x500 + flag)), reason, last_us - hour * HOUR_US))
        .collect();
    let count = decisions.div_ceil(places.len() as u64);
    let decision_cells: Vec<DecisionCell> = places
        .iter()
        .map(|&(flag, reason, time_us)| DecisionCell {
            flag,
            reason,
            time_us,
            counting: 2,
            measure: 1,
            count,
            ..decision.clone()
        })
        .collect();
    // From 0.1 to 3 ms, five doublings: a busy service's spread.
    let mut buckets = vec![0; 380];
    (220..380).for_each(|bucket| buckets[bucket] = 1 + count / 160);
    let buckets = Histogram::from_dense(&buckets).encode();
    let latency_cells: Vec<LatencyCell> = places
        .iter()
        .filter(|(_, reason, _)| *reason == 1)
        .map(|&(flag, _, time_us)| LatencyCell {
            flag,
            time_us,
            counting: 2,
            count,
            buckets: buckets.clone(),
            ..latency.clone()
        })
        .collect();
    let flag = FlagCell::from_batch(batch(Table::Flags)).unwrap().swap_remove(0);
    let flag_cells: Vec<FlagCell> = latency_cells
        .iter()
        .map(|cell| FlagCell { flag: cell.flag, time_us: cell.time_us, counting: 2, served: 6 * count, ..flag.clone() })
        .collect();
    let total = TotalCell::from_batch(batch(Table::Totals)).unwrap().swap_remove(0);
    let hours = latency_cells.iter().filter(|cell| cell.flag == latency_cells[0].flag);
    let total_cells: Vec<TotalCell> = hours
        .map(|cell| TotalCell {
            time_us: cell.time_us,
            counting: 2,
            served: 12 * 6 * count,
            buckets: buckets.clone(),
            ..total.clone()
        })
        .collect();
    let cells = vec![
        (Table::Decisions, DecisionCell::to_batch(&decision_cells)),
        (Table::Latency, LatencyCell::to_batch(&latency_cells)),
        (Table::Flags, FlagCell::to_batch(&flag_cells)),
        (Table::Totals, TotalCell::to_batch(&total_cells)),
    ];
    emit(&world.store, cells).await;
    places.len()
}

#[tokio::test]
async fn cost_does_not_depend_on_decisions() {
    for decisions in [1_000_000, 100_000_000] {
        let world = World::new(40).await;
        let cells = fill(&world, decisions).await;
        let mut paths: Vec<String> = ANALYTICS.iter().map(|name| analytics(name, "")).collect();
        paths.push(format!("/flags/{}/metrics", ids::CHECKOUT));
        paths.extend(["/contexts/observed-contexts", "/billing/usage", "/audit/reconciliation"].map(str::to_owned));
        for path in paths {
            let mut took = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                let start = Instant::now();
                let (status, body) = world.get_as(ids::ORGANIZATION, "admin", &path).await;
                took.push(start.elapsed());
                assert!(status.is_success(), "{path} {body}");
            }
            took.sort_unstable();
            let (p50, p99) = (took[ROUNDS / 2], took[ROUNDS - 1]);
            println!("{decisions} decisions, {cells} cells: p50 {p50:?}, slowest of {ROUNDS} {p99:?}, {path}");
            assert!(p50 < GROSS_REGRESSION, "{path}: {p50:?}");
        }
    }
}
