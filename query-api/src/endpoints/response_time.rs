//! ANA-3: `GET /projects/{projectId}/analytics/response-time`, times weighed by decisions over all flags.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use axum::extract::State;
use flagmint_store::{RollupStore, Rows};
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use crate::QueryApi;
use crate::caller::Viewer;
use crate::error::{ApiError, ErrorBody};
use crate::measures::{Times, Timing};
use crate::members::{PathId, QueryMembers};
use crate::meta::{Meta, Moment};
use crate::period::Span;
use crate::questions::Refine;
use crate::reply::{Envelope, Reply, ok};
use crate::rows::column;

/// Response times over all flags.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ResponseTime {
    /// A point per day or hour, those without data included.
    series: Vec<ResponseTimePoint>,
    /// The whole period.
    overall: ServedTimes,
    meta: Meta,
}

/// Response times of one day or hour.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ResponseTimePoint {
    /// The day, or the hour's start.
    date: String,
    #[serde(flatten)]
    times: ServedTimes,
}

/// Times and how many decisions they are of.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ServedTimes {
    #[serde(flatten)]
    times: Times,
    /// Served decisions: the weights.
    served: u64,
}

/// Response times, each decision weighing the same, by day or hour.
#[utoipa::path(get, path = "/projects/{projectId}/analytics/response-time", tag = "Analytics", params(
    ("projectId" = Uuid, Path), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("environment_id" = Option<Uuid>, Query), ("granularity" = Option<String>, Query),
), responses((status = 200, body = Envelope<ResponseTime>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn response_time<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    PathId(project): PathId,
    members: QueryMembers,
) -> Reply<ResponseTime> {
    let (Asked { scope, span }, ()) = Asked::parse(organization, Some(project), &members, api.now(), |_| ())?;
    api.directory().check_project(organization, project, scope.environment).await?;
    let moment = api.moment();
    let totals = scope.totals(span).per_point(span).only(&["served", "latency_us", "evaluation_ns", "buckets"]);
    let (totals, ledger) = tokio::try_join!(api.ask(totals), api.ask(scope.ledger(span)))?;
    ok(answer(span, moment, &totals, &ledger)?)
}

fn answer(span: Span, moment: Moment, totals: &Rows, ledger: &Rows) -> Result<ResponseTime, ApiError> {
    let mut overall = Timing::default();
    let mut points = vec![Timing::default(); span.points_us().len()];
    for (time_us, timing) in column::<i64>(totals, "time_us")?.into_iter().zip(Timing::by_row(totals)?) {
        overall.merge(&timing);
        if let Some(point) = span.point_of(time_us) {
            points[point].merge(&timing);
        }
    }
    let point =
        |(point_us, timing): (i64, &Timing)| ResponseTimePoint { date: span.label(point_us), times: of(timing) };
    let series = span.points_us().zip(&points).map(point).collect();
    Ok(ResponseTime { series, overall: of(&overall), meta: moment.meta(span, ledger)? })
}

fn of(timing: &Timing) -> ServedTimes {
    ServedTimes { times: timing.times(), served: timing.served }
}
