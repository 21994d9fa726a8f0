//! ANA-2: `GET /projects/{projectId}/analytics/evaluations`, counts over all flags by day or hour.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use axum::extract::State;
use flagmint_store::{RollupQuery, RollupStore, Rows};
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use crate::QueryApi;
use crate::caller::Viewer;
use crate::error::{ApiError, ErrorBody};
use crate::measures::counts_by_row;
use crate::members::{PathId, QueryMembers};
use crate::meta::{Meta, Moment};
use crate::period::{Granularity, Span};
use crate::questions::Refine;
use crate::reply::{Envelope, Reply, ok};
use crate::rows::column;
use crate::users;
use flagmint_schemas::rollup::Tallies;

/// Counts over all flags.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Evaluations {
    /// A point per day or hour, those without data included.
    series: Vec<EvaluationPoint>,
    /// The whole period; its users are counted once, however many days they came.
    total: EvaluationCounts,
    meta: Meta,
}

/// Counts of one day or hour.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct EvaluationPoint {
    /// The day, or the hour's start.
    date: String,
    #[serde(flatten)]
    counts: EvaluationCounts,
}

/// Counts of some time.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct EvaluationCounts {
    /// `served + reported`.
    evaluations: u64,
    /// Decisions made by the server.
    served: u64,
    /// Evaluations that clients reported.
    reported: u64,
    /// Served decisions with reason `ERROR`.
    errors: u64,
    /// Distinct user keys, estimated; null by hour.
    unique_users: Option<u64>,
}

/// Counts over all flags by day or hour.
#[utoipa::path(get, path = "/projects/{projectId}/analytics/evaluations", tag = "Analytics", params(
    ("projectId" = Uuid, Path), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("environment_id" = Option<Uuid>, Query), ("granularity" = Option<String>, Query),
), responses((status = 200, body = Envelope<Evaluations>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn evaluations<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    PathId(project): PathId,
    members: QueryMembers,
) -> Reply<Evaluations> {
    let (asked, ()) = Asked::parse(organization, Some(project), &members, api.now(), |_| ())?;
    api.directory().check_project(organization, project, asked.scope.environment).await?;
    let moment = api.moment();
    let [totals, users, ledger] = plan(&asked);
    let (totals, users, ledger) = tokio::try_join!(api.ask(totals), api.ask(users), api.ask(ledger))?;
    ok(answer(asked.span, moment, &totals, &users, &ledger)?)
}

/// Questions for totals, users and ledger.
fn plan(asked: &Asked) -> [RollupQuery; 3] {
    let Asked { scope, span } = *asked;
    let days = Span { granularity: Granularity::Day, ..span };
    let totals = scope.totals(span).per_point(span).only(&["served", "reported", "errors"]);
    [totals, scope.users(span).per_point(days), scope.ledger(span)]
}

fn answer(span: Span, moment: Moment, totals: &Rows, users: &Rows, ledger: &Rows) -> Result<Evaluations, ApiError> {
    let mut total = Tallies::default();
    let mut points = vec![Tallies::default(); span.points_us().len()];
    for (time_us, counts) in column::<i64>(totals, "time_us")?.into_iter().zip(counts_by_row(totals)?) {
        total += counts;
        if let Some(point) = span.point_of(time_us) {
            points[point] += counts;
        }
    }
    let (all_users, daily) = (users::whole(users)?.estimate(), users::by::<i64>(users, "time_us")?);
    let daily = users::estimates(&daily);
    let users_of = |point_us: i64| match span.granularity {
        Granularity::Day => Some(daily.get(&point_us).copied().unwrap_or(0)),
        Granularity::Hour => None,
    };
    let series = span.points_us().zip(points).map(|(point_us, counts)| EvaluationPoint {
        date: span.label(point_us),
        counts: readable(counts, users_of(point_us)),
    });
    let meta = moment.meta(span, ledger)?.with_users(span);
    Ok(Evaluations { series: series.collect(), total: readable(total, Some(all_users)), meta })
}

fn readable(counts: Tallies, unique_users: Option<u64>) -> EvaluationCounts {
    EvaluationCounts {
        evaluations: counts.evaluations(),
        served: counts.served,
        reported: counts.reported,
        errors: counts.errors,
        unique_users,
    }
}
