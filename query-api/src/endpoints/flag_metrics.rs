//! FLG-7: `GET /flags/{flagId}/metrics`, everything about one flag's evaluations.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod breakdown;

use axum::extract::State;
use flagmint_schemas::ids::{FlagId, VariationId};
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::{RollupQuery, RollupStore, Rows};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Asked;
use crate::QueryApi;
use crate::caller::Viewer;
use crate::directory::{Environment, Flag, Variation};
use crate::error::{ApiError, ErrorBody};
use crate::measures::{Measures, Timing, counts_by_row};
use crate::members::{PathId, QueryMembers};
use crate::meta::{Meta, Moment};
use crate::period::{Granularity, Span};
use crate::questions::Refine;
use crate::reply::{Envelope, Reply, ok};
use crate::rows::column;
use crate::users;
use flagmint_schemas::rollup::Tallies;

/// Everything about one flag's evaluations.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FlagMetrics {
    flag: FlagName,
    /// The whole period.
    totals: Measures,
    /// A point per day or hour, those without data included.
    series: Vec<FlagPoint>,
    /// Variations that the flag has, and former or none if any were recorded; most evaluations first.
    variations: Vec<VariationPart>,
    /// Reasons recorded, most evaluations first.
    reasons: Vec<ReasonPart>,
    /// Environments asked for, oldest first.
    environments: Vec<EnvironmentPart>,
    meta: Meta,
}

/// Which flag.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FlagName {
    #[schema(value_type = Uuid)]
    id: FlagId,
    key: String,
    name: String,
    /// `boolean`, `string`, `number` or `json`.
    r#type: String,
}

/// One day or hour.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FlagPoint {
    /// The day, or the hour's start.
    date: String,
    #[serde(flatten)]
    measures: Measures,
}

/// What one variation was.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct VariationPart {
    /// Null for values served that are no variation's.
    #[schema(value_type = Option<Uuid>)]
    variation_id: Option<VariationId>,
    key: Option<String>,
    /// Its value now.
    value: Option<Value>,
    evaluations: u64,
    /// Of all evaluations of the flag, 0 to 1.
    share: f64,
    /// Distinct user keys that got it, estimated; null where `variation_id` is.
    unique_users: Option<u64>,
}

/// What one reason was.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ReasonPart {
    /// OpenFeature's reason; `UNKNOWN` for evaluations that clients reported.
    reason: &'static str,
    /// OpenFeature's error code, for `ERROR` alone.
    error_code: Option<&'static str>,
    evaluations: u64,
    /// Of all evaluations of the flag, 0 to 1.
    share: f64,
}

/// What one environment was.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct EnvironmentPart {
    environment_id: Uuid,
    /// Null when the environment is purged and only its counts are left.
    name: Option<String>,
    evaluations: u64,
}

/// Everything about one flag's evaluations.
#[utoipa::path(get, path = "/flags/{flagId}/metrics", tag = "Analytics", params(
    ("flagId" = Uuid, Path), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("environment_id" = Option<Uuid>, Query), ("granularity" = Option<String>, Query),
), responses((status = 200, body = Envelope<FlagMetrics>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn flag_metrics<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    PathId(flag): PathId,
    members: QueryMembers,
) -> Reply<FlagMetrics> {
    let (mut asked, ()) = Asked::parse(organization, None, &members, api.now(), |_| ())?;
    let flag = api.directory().flag(organization, flag).await?;
    asked.scope.project = Some(flag.project);
    let (_, variations, environments) = tokio::try_join!(
        api.directory().check_project(organization, flag.project, asked.scope.environment),
        api.directory().variations(organization, flag.id),
        api.directory().environments(organization, flag.project),
    )?;
    let known = Known { flag, variations, environments };
    let moment = api.moment();
    let [decisions, latency, uniques, ledger] = plan(&asked, known.flag.id);
    let (decisions, latency, uniques, ledger) =
        tokio::try_join!(api.ask(decisions), api.ask(latency), api.ask(uniques), api.ask(ledger))?;
    ok(answer(&asked, moment, known, &Answers { decisions, latency, uniques, ledger })?)
}

/// What the directory knows.
struct Known {
    flag: Flag,
    variations: Vec<Variation>,
    environments: Vec<Environment>,
}

/// What the store answered.
struct Answers {
    decisions: Rows,
    latency: Rows,
    uniques: Rows,
    ledger: Rows,
}

/// Questions for decisions, latencies, users and ledger. One question brings all decisions, so that totals, series and
/// parts agree whatever is counted meanwhile.
fn plan(asked: &Asked, flag: FlagId) -> [RollupQuery; 4] {
    let Asked { scope, span } = *asked;
    let days = Span { granularity: Granularity::Day, ..span };
    let dimensions = ["variation", "reason", "error_code", "measure", "environment"];
    [
        scope.decisions(span, &dimensions).of_flags(&[flag]).per_point(span),
        scope.latency(span).of_flags(&[flag]).per_point(span),
        scope.uniques(span, &[flag], &["variation"]).per_point(days),
        scope.ledger(span),
    ]
}

fn answer(asked: &Asked, moment: Moment, known: Known, answers: &Answers) -> Result<FlagMetrics, ApiError> {
    let span = asked.span;
    let (totals, series) = measures(span, answers)?;
    let mut parts = breakdown::Parts::of(&answers.decisions, &answers.uniques)?;
    let asked_for = |environment: &Environment| asked.scope.environment.is_none_or(|id| id == environment.id.0);
    let environments: Vec<_> = known.environments.into_iter().filter(asked_for).collect();
    Ok(FlagMetrics {
        totals,
        series,
        variations: parts.variations(known.variations),
        reasons: parts.reasons(),
        environments: parts.environments(environments),
        meta: moment.meta(span, &answers.ledger)?.with_users(span),
        flag: FlagName { id: known.flag.id, key: known.flag.key, name: known.flag.name, r#type: known.flag.kind },
    })
}

/// Sums of one point.
#[derive(Clone, Default)]
struct Point {
    counts: Tallies,
    timing: Timing,
    users: Option<Registers>,
}

/// The totals and the series.
fn measures(span: Span, answers: &Answers) -> Result<(Measures, Vec<FlagPoint>), ApiError> {
    let mut total = Point::default();
    let mut points = vec![Point::default(); span.points_us().len()];
    let times = column::<i64>(&answers.decisions, "time_us")?;
    for (time_us, counts) in times.into_iter().zip(counts_by_row(&answers.decisions)?) {
        total.counts += counts;
        if let Some(point) = span.point_of(time_us) {
            points[point].counts += counts;
        }
    }
    for (time_us, timing) in
        column::<i64>(&answers.latency, "time_us")?.into_iter().zip(Timing::by_row(&answers.latency)?)
    {
        total.timing.merge(&timing);
        if let Some(point) = span.point_of(time_us) {
            points[point].timing.merge(&timing);
        }
    }
    let mut daily = users::of_flag_by_day(&answers.uniques)?;
    let mut all_users = Registers::default();
    daily.values().for_each(|day| all_users.merge_max(day));
    if span.granularity == Granularity::Day {
        for (point_us, point) in span.points_us().zip(&mut points) {
            point.users = Some(daily.remove(&point_us).unwrap_or_default());
        }
    }
    total.users = Some(all_users);
    let readable =
        |point: &Point| Measures::of(point.counts, &point.timing, point.users.as_ref().map(Registers::estimate));
    let series = span.points_us().zip(&points);
    let series = series.map(|(point_us, point)| FlagPoint { date: span.label(point_us), measures: readable(point) });
    Ok((readable(&total), series.collect()))
}
