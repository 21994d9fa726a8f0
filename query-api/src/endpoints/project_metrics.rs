//! ANA-1: `GET /projects/{projectId}/analytics/metrics`, a project's totals compared with the period before.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use flagmint_schemas::ids::FlagId;
use flagmint_schemas::rollup::Tallies;
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::{Period, RollupQuery, RollupStore, Rows};
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use crate::QueryApi;
use crate::caller::Viewer;
use crate::error::{ApiError, ErrorBody};
use crate::measures::{Measures, Timing, counts_by_row};
use crate::members::{PathId, QueryMembers};
use crate::meta::Meta;
use crate::period::Span;
use crate::questions::{Refine, Scope};
use crate::reply::{Envelope, Reply, ok};
use crate::rows::column;
use crate::users;

/// A project's totals.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ProjectMetrics {
    /// The period asked for.
    current: Totals,
    /// The period of equal length that ends where it begins.
    previous: Totals,
    /// From the previous to the current one.
    change: Change,
    meta: Meta,
}

/// Totals of one period.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Totals {
    #[serde(flatten)]
    measures: Measures,
    /// Flags with at least one evaluation.
    active_flags: u64,
}

/// Changes as fractions of the previous value (0.12 is 12 % more), null from zero or nothing; rates and times as
/// differences in their own unit as well, null where either is.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Change {
    evaluations: Option<f64>,
    served: Option<f64>,
    reported: Option<f64>,
    errors: Option<f64>,
    error_rate: Option<f64>,
    error_rate_difference: Option<f64>,
    app_errors: Option<f64>,
    goals: Option<f64>,
    unique_users: Option<f64>,
    active_flags: Option<f64>,
    avg_response_time_ms: Option<f64>,
    avg_response_time_ms_difference: Option<f64>,
    p50_ms: Option<f64>,
    p50_ms_difference: Option<f64>,
    p90_ms: Option<f64>,
    p90_ms_difference: Option<f64>,
    p99_ms: Option<f64>,
    p99_ms_difference: Option<f64>,
    avg_evaluation_us: Option<f64>,
    avg_evaluation_us_difference: Option<f64>,
}

/// A project's totals, compared with the period before.
#[utoipa::path(get, path = "/projects/{projectId}/analytics/metrics", tag = "Analytics", params(
    ("projectId" = Uuid, Path), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("environment_id" = Option<Uuid>, Query), ("granularity" = Option<String>, Query),
), responses((status = 200, body = Envelope<ProjectMetrics>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn project_metrics<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    PathId(project): PathId,
    members: QueryMembers,
) -> Reply<ProjectMetrics> {
    let (Asked { scope, span }, ()) = Asked::parse(organization, Some(project), &members, api.now(), |_| ())?;
    let moment = api.moment();
    let [totals, by_flag, users] = plan(scope, span);
    let ((), totals, by_flag, users, ledger) = tokio::try_join!(
        api.directory().check_project(organization, project, scope.environment),
        api.ask(totals),
        api.ask(by_flag),
        api.ask(users),
        api.ask(scope.ledger(span)),
    )?;
    let users = users::by(&users, "time_us")?;
    let of = |span| answer(span, &totals, &by_flag, &users);
    let (current, previous) = (of(span)?, of(span.previous())?);
    let meta = moment.meta(span, &ledger)?.with_users(span);
    ok(ProjectMetrics { current, previous, change: change(&current, &previous), meta })
}

/// The store's questions, each about both periods: what a question costs is mostly that it is asked.
fn plan(scope: Scope, span: Span) -> [RollupQuery; 3] {
    let by_flag = scope.by_flag(span, &["served", "reported"]);
    // Sketches are kept by day, and the day in which one period ends and the other begins belongs to both.
    let days = span.previous().days_us().start..span.days_us().end;
    let users = RollupQuery { time_us: days, period: Period::Day, ..scope.users(span) };
    [scope.totals(span).with_previous(span), by_flag.with_previous(span), users]
}

/// The totals of one of both periods.
fn answer(span: Span, totals: &Rows, by_flag: &Rows, users: &BTreeMap<i64, Registers>) -> Result<Totals, ApiError> {
    let (mut counts, mut timing) = (Tallies::default(), Timing::default());
    let of_totals = counts_by_row(totals)?.into_iter().zip(Timing::by_row(totals)?);
    for (start_us, (row, times)) in column::<i64>(totals, "time_us")?.into_iter().zip(of_totals) {
        if start_us == span.from_us {
            counts += row;
            timing.merge(&times);
        }
    }
    let flags = column::<FlagId>(by_flag, "flag")?.into_iter().zip(column::<i64>(by_flag, "time_us")?);
    let active = flags
        .zip(counts_by_row(by_flag)?)
        .filter(|((_, start_us), row)| *start_us == span.from_us && row.evaluations() > 0);
    let active: BTreeSet<FlagId> = active.map(|((flag, _), _)| flag).collect();
    let mut of_days = Registers::default();
    users.range(span.days_us()).for_each(|(_, of_day)| of_days.merge_max(of_day));
    let measures = Measures::of(counts, &timing, Some(of_days.estimate()));
    Ok(Totals { measures, active_flags: active.len() as u64 })
}

fn change(current: &Totals, previous: &Totals) -> Change {
    let (now, before) = (&current.measures, &previous.measures);
    let count = |now: u64, before: u64| fraction(Some(now as f64), Some(before as f64));
    let (times, times_before) = (&now.times, &before.times);
    let (rate, rate_before) = (Some(now.error_rate), Some(before.error_rate));
    Change {
        evaluations: count(now.evaluations, before.evaluations),
        served: count(now.served, before.served),
        reported: count(now.reported, before.reported),
        errors: count(now.errors, before.errors),
        error_rate: fraction(rate, rate_before),
        error_rate_difference: difference(rate, rate_before),
        app_errors: count(now.app_errors, before.app_errors),
        goals: count(now.goals, before.goals),
        unique_users: count(now.unique_users.unwrap_or(0), before.unique_users.unwrap_or(0)),
        active_flags: count(current.active_flags, previous.active_flags),
        avg_response_time_ms: fraction(times.avg_response_time_ms, times_before.avg_response_time_ms),
        avg_response_time_ms_difference: difference(times.avg_response_time_ms, times_before.avg_response_time_ms),
        p50_ms: fraction(times.p50_ms, times_before.p50_ms),
        p50_ms_difference: difference(times.p50_ms, times_before.p50_ms),
        p90_ms: fraction(times.p90_ms, times_before.p90_ms),
        p90_ms_difference: difference(times.p90_ms, times_before.p90_ms),
        p99_ms: fraction(times.p99_ms, times_before.p99_ms),
        p99_ms_difference: difference(times.p99_ms, times_before.p99_ms),
        avg_evaluation_us: fraction(now.avg_evaluation_us, before.avg_evaluation_us),
        avg_evaluation_us_difference: difference(now.avg_evaluation_us, before.avg_evaluation_us),
    }
}

fn difference(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    Some(now? - before?)
}

fn fraction(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    let before = before.filter(|before| *before != 0.0)?;
    Some((now? - before) / before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_fractions_and_null_from_zero() {
        let check = |now, before, expected| assert_eq!(fraction(now, before), expected, "{before:?} to {now:?}");
        check(Some(112.0), Some(100.0), Some(0.12));
        check(Some(0.0), Some(4.0), Some(-1.0));
        check(Some(5.0), Some(0.0), None);
        check(Some(0.0), Some(0.0), None);
        check(None, Some(3.0), None);
        check(Some(3.0), None, None);
        assert_eq!(difference(Some(0.25), Some(0.0)), Some(0.25));
        assert_eq!((difference(None, Some(1.0)), difference(Some(1.0), None)), (None, None));
    }
}
