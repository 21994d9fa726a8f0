//! What each organization has used this month, published for whoever enforces limits: the very sums that billing shows.
//!
//! One aggregator, the one that has the first partition, asks the store four times a second, once a second while folding is behind, and publishes what changed, keyed by organization
//! and month: `{"organization","month","api_calls","connections","track_events"}`. Totals only grow; while two aggregators publish, an older one may
//! come later, so a follower keeps the greatest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Months, NaiveDate, Utc};
use flagmint_aggregator::Status;
use flagmint_log::kafka::SideTopics;
use flagmint_log::wall_clock_us;
use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::{CellValue, Table};
use flagmint_store::{Period, RollupQuery, RollupStore, Rows};
use serde_json::json;
use tokio::sync::watch;
use tracing::debug;

use super::maintenance::every;
use super::process::Assembly;
use crate::limits::{USAGE_TOTALS_BEHIND, USAGE_TOTALS_INTERVAL};

/// The meters of one organization in one month.
type Meters = [u64; 3];

const METERS: [&str; 3] = ["api_calls", "connections", "track_events"];

/// Starts publishing.
pub fn start<S: RollupStore>(
    assembly: &mut Assembly,
    store: Arc<S>,
    topics: SideTopics,
    statuses: watch::Receiver<Status>,
) {
    let published = Arc::new(tokio::sync::Mutex::new(HashMap::new()));
    let asked = Arc::new(Mutex::new(None));
    every(assembly, USAGE_TOTALS_INTERVAL, move || {
        let (store, topics, published) = (Arc::clone(&store), topics.clone(), Arc::clone(&published));
        let is_mine = statuses.borrow().partition(0).is_some();
        let is_due = is_due(&asked, statuses.borrow().complete_through_us());
        async move {
            if !is_due {
                return;
            }
            let mut published = published.lock().await;
            if !is_mine {
                // Another one publishes; what it said is not known here.
                published.clear();
            } else if let Err(error) = publish(&*store, &topics, &mut published).await {
                metrics::counter!("flagmint_aggregator_usage_totals_failures_total").increment(1);
                debug!(error, "usage totals are published later");
            }
        }
    });
}

/// Whether it is time to ask: what is far behind anyway is asked for less often. Takes note of it.
fn is_due(asked: &Mutex<Option<Instant>>, complete_through_us: Option<i64>) -> bool {
    let is_fresh =
        complete_through_us.is_some_and(|to_us| wall_clock_us() - to_us < USAGE_TOTALS_BEHIND.0.as_micros() as i64);
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = is_fresh || asked.is_none_or(|at| at.elapsed() >= USAGE_TOTALS_BEHIND.1);
    if is_due {
        *asked = Some(Instant::now());
    }
    is_due
}

async fn publish<S: RollupStore>(
    store: &S,
    topics: &SideTopics,
    published: &mut HashMap<(OrganizationId, NaiveDate), Meters>,
) -> Result<(), String> {
    let month = Utc::now().date_naive().with_day(1).expect("every month has a first day");
    let rows = store.query(&question(month)).await.map_err(|error| error.to_string())?;
    let totals = totals(&rows).ok_or("the store's answer lacks a column")?;
    let changed: Vec<_> = totals
        .into_iter()
        .filter(|(organization, meters)| published.get(&(*organization, month)) != Some(meters))
        .collect();
    let records = changed.iter().map(|(organization, meters)| record(*organization, month, *meters));
    topics.publish_usage(records).await.map_err(|error| error.to_string())?;
    published.retain(|(_, of), _| *of == month);
    published.extend(changed.into_iter().map(|(organization, meters)| ((organization, month), meters)));
    Ok(())
}

fn question(month: NaiveDate) -> RollupQuery {
    let start_us = |day: NaiveDate| DateTime::<Utc>::from_naive_utc_and_offset(day.into(), Utc).timestamp_micros();
    RollupQuery {
        table: Table::Usage,
        organization: None,
        time_us: start_us(month)..start_us(month + Months::new(1)),
        filters: Vec::new(),
        group_by: vec!["organization"],
        period: Period::Whole,
        values: None,
        having: None,
        page: None,
    }
}

fn totals(rows: &Rows) -> Option<Vec<(OrganizationId, Meters)>> {
    let column = |name: &str| rows.batch.column_by_name(name).and_then(u64::from_array);
    let organizations = rows.batch.column_by_name("organization").and_then(OrganizationId::from_array)?;
    let [calls, connections, events] = METERS.map(column);
    let (calls, connections, events) = (calls?, connections?, events?);
    let meters = |(at, organization)| (organization, [calls[at], connections[at], events[at]]);
    Some(organizations.into_iter().enumerate().map(meters).collect())
}

fn record(organization: OrganizationId, month: NaiveDate, meters: Meters) -> (Bytes, Bytes) {
    let month = month.format("%Y-%m").to_string();
    let [api_calls, connections, track_events] = meters;
    let total = json!({
        "organization": organization, "month": month,
        "api_calls": api_calls, "connections": connections, "track_events": track_events,
    });
    (format!("{organization}/{month}").into(), total.to_string().into())
}
