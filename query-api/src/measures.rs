//! The measures of management API section 11: how merged cells become the numbers that people read.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use flagmint_schemas::rollup::Tallies;
use flagmint_schemas::sketch::latency::Histogram;
use flagmint_store::Rows;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::rows::{column, damaged};

/// Share of the served decisions that are errors; 0 when none were served.
pub(crate) fn error_rate(tallies: &Tallies) -> f64 {
    share(tallies.errors, tallies.served)
}

/// The numbers of each row of an answer from `totals` or `flags`, or of one that has `measure`, `reason` and `count`.
pub(crate) fn counts_by_row(rows: &Rows) -> Result<Vec<Tallies>, ApiError> {
    if rows.batch.column_by_name("served").is_some() {
        return added_up(rows);
    }
    let (measures, reasons) = (column::<u8>(rows, "measure")?, column::<u8>(rows, "reason")?);
    let counts = column::<u64>(rows, "count")?;
    let row = |((measure, reason), count): ((u8, u8), u64)| {
        let mut row = Tallies::default();
        row.add(measure, reason, count);
        row
    };
    Ok(measures.into_iter().zip(reasons).zip(counts).map(row).collect())
}

/// The numbers of rows that have them side by side; those not asked for are 0.
fn added_up(rows: &Rows) -> Result<Vec<Tallies>, ApiError> {
    let numbers = |name| match rows.batch.column_by_name(name) {
        Some(_) => column::<u64>(rows, name),
        None => Ok(vec![0; rows.batch.num_rows()]),
    };
    let (served, reported, errors) = (numbers("served")?, numbers("reported")?, numbers("errors")?);
    let (app_errors, goals) = (numbers("app_errors")?, numbers("goals")?);
    let row = |row: usize| Tallies {
        served: served[row],
        reported: reported[row],
        errors: errors[row],
        app_errors: app_errors[row],
        goals: goals[row],
    };
    Ok((0..rows.batch.num_rows()).map(row).collect())
}

/// Times of served decisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timing {
    /// Decisions.
    pub(crate) served: u64,
    latency_us: u64,
    evaluation_ns: u64,
    histogram: Histogram,
}

impl Timing {
    /// The times of each row of an answer from `latency` or `totals`.
    pub(crate) fn by_row(rows: &Rows) -> Result<Vec<Self>, ApiError> {
        let (latencies, evaluations) = (column::<u64>(rows, "latency_us")?, column::<u64>(rows, "evaluation_ns")?);
        let count = if rows.batch.column_by_name("served").is_some() { "served" } else { "count" };
        let (counts, buckets) = (column::<u64>(rows, count)?, column::<Vec<u8>>(rows, "buckets")?);
        let sums = counts.into_iter().zip(latencies).zip(evaluations);
        sums.zip(buckets)
            .map(|(((served, latency_us), evaluation_ns), buckets)| {
                let histogram = Histogram::decode(&buckets).map_err(damaged)?;
                Ok(Self { served, latency_us, evaluation_ns, histogram })
            })
            .collect()
    }

    /// Adds other decisions' times.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.served += other.served;
        self.latency_us += other.latency_us;
        self.evaluation_ns += other.evaluation_ns;
        self.histogram.merge_sum(&other.histogram);
    }

    /// What people read.
    pub(crate) fn times(&self) -> Times {
        let quantile = |quantile| self.histogram.quantile_us(quantile).map(|us| us / 1e3);
        let mean = |sum: u64, unit| (self.served > 0).then(|| sum as f64 / self.served as f64 / unit);
        Times {
            avg_response_time_ms: mean(self.latency_us, 1e3),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
        }
    }

    /// Mean time in the evaluator for one flag, microseconds; `None` without served decisions.
    pub(crate) fn avg_evaluation_us(&self) -> Option<f64> {
        (self.served > 0).then(|| self.evaluation_ns as f64 / self.served as f64 / 1e3)
    }
}

/// Server time of the calls in which decisions were made, one weight per decision; null without served decisions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Times {
    /// Mean, milliseconds.
    pub(crate) avg_response_time_ms: Option<f64>,
    /// Median, milliseconds; as all percentiles at most 1.1 % off.
    pub(crate) p50_ms: Option<f64>,
    /// 90th percentile, milliseconds.
    pub(crate) p90_ms: Option<f64>,
    /// 99th percentile, milliseconds.
    pub(crate) p99_ms: Option<f64>,
}

/// Every measure of some decisions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Measures {
    /// `served + reported`.
    pub(crate) evaluations: u64,
    /// Decisions made by the server for clients that do not report their own.
    pub(crate) served: u64,
    /// Evaluations that clients reported.
    pub(crate) reported: u64,
    /// Served decisions with reason `ERROR`.
    pub(crate) errors: u64,
    /// Their share of `served`, 0 to 1; 0 when none were served.
    pub(crate) error_rate: f64,
    /// Clients' `error` events.
    pub(crate) app_errors: u64,
    /// Clients' `custom` events.
    pub(crate) goals: u64,
    /// Distinct user keys, estimated; null by hour, since sketches are kept by day.
    pub(crate) unique_users: Option<u64>,
    #[serde(flatten)]
    pub(crate) times: Times,
    /// Mean time in the evaluator for the one flag, microseconds; null without served decisions.
    pub(crate) avg_evaluation_us: Option<f64>,
}

impl Measures {
    /// What people read of these sums.
    pub(crate) fn of(counts: Tallies, timing: &Timing, unique_users: Option<u64>) -> Self {
        Self {
            evaluations: counts.evaluations(),
            served: counts.served,
            reported: counts.reported,
            errors: counts.errors,
            error_rate: error_rate(&counts),
            app_errors: counts.app_errors,
            goals: counts.goals,
            unique_users,
            times: timing.times(),
            avg_evaluation_us: timing.avg_evaluation_us(),
        }
    }
}

/// `part / whole`, 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::rollup::{Cell, LatencyCell};

    use super::*;

    #[test]
    fn nothing_served_is_zero_and_null() {
        let measures = Measures::of(Tallies::default(), &Timing::default(), Some(0));
        assert_eq!(measures.error_rate, 0.0);
        assert_eq!(measures.times, Times { avg_response_time_ms: None, p50_ms: None, p90_ms: None, p99_ms: None });
        assert_eq!(measures.avg_evaluation_us, None);
    }

    #[test]
    fn an_answer_without_a_column_is_an_error() {
        let rows = Rows { batch: LatencyCell::to_batch(&[]), total: 0 };
        assert!(matches!(counts_by_row(&rows), Err(ApiError::Internal(_))));
        assert_eq!(Timing::by_row(&rows).map(|rows| rows.len()), Ok(0));
    }
}
