//! BIL-1: `GET /billing/usage`, what the organization used this month and what its plan allows. No envelope.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use axum::Json;
use axum::extract::State;
use flagmint_schemas::ids::{FlagId, OrganizationId};
use flagmint_schemas::rollup::Table;
use flagmint_store::{RollupQuery, RollupStore, Rows};
use serde::Serialize;
use utoipa::ToSchema;

use crate::QueryApi;
use crate::caller::Editor;
use crate::directory::PlanUsage;
use crate::error::{ApiError, ErrorBody};
use crate::meta::Moment;
use crate::period::{Span, iso};
use crate::questions::{Refine, Scope};
use crate::rows::sum;
use crate::users;

/// This month's usage.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    /// Billable API calls appended to the log this month.
    api_calls: Meter,
    /// Flags, neither archived nor deleted.
    flags: FlagsMeter,
    /// Projects, neither archived nor deleted.
    projects: Meter,
    /// Connections opened this month.
    connections: Meter,
    /// Distinct contexts seen this month, estimated.
    observed_contexts: Meter,
    /// Custom and error events accepted this month.
    track_events: Meter,
    period: UsagePeriod,
    /// The time up to which all calls are known to be counted; null before the first.
    #[serde(rename = "complete_through")]
    complete_through: Option<String>,
}

/// One meter.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Meter {
    /// Used so far.
    used: u64,
    /// What the plan allows; null when unlimited.
    limit: Option<u64>,
}

/// Flags, whose limit is per project.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FlagsMeter {
    /// Flags of the project that has most.
    used: u64,
    /// What the plan allows per project; null when unlimited.
    limit: Option<u64>,
    /// Flags of all projects.
    total: u64,
}

/// The calendar month in UTC.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UsagePeriod {
    /// Its start, included.
    from: String,
    /// The next month's start, not included.
    to: String,
}

/// What the organization used this month.
#[utoipa::path(get, path = "/billing/usage", tag = "Billing", responses((status = 200, body = Usage),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn usage<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Editor(organization): Editor,
) -> Result<Json<Usage>, ApiError> {
    let moment = api.moment();
    let month = Span::month(moment.now);
    let [meters, contexts] = plan(organization, month);
    let (plan, meters, contexts) =
        tokio::try_join!(api.directory().plan_usage(organization), api.ask(meters), api.ask(contexts))?;
    Ok(Json(answer(month, moment, &plan, &meters, &contexts)?))
}

/// Questions for the meters, and for the contexts seen in every environment, counted or not.
fn plan(organization: OrganizationId, month: Span) -> [RollupQuery; 2] {
    let scope = Scope { organization, project: None, environment: None };
    [
        scope.question(Table::Usage, month.range_us()),
        scope.question(Table::Uniques, month.range_us()).of_flags(&[FlagId::NONE]),
    ]
}

fn answer(month: Span, moment: Moment, plan: &PlanUsage, meters: &Rows, contexts: &Rows) -> Result<Usage, ApiError> {
    let meter = |used, limit: Option<i64>| Meter { used, limit: limit.map(natural) };
    Ok(Usage {
        api_calls: meter(sum(meters, "api_calls")?, plan.max_api_calls),
        flags: FlagsMeter {
            used: natural(plan.flags_of_fullest),
            limit: plan.max_flags.map(natural),
            total: natural(plan.flags),
        },
        projects: meter(natural(plan.projects), plan.max_projects),
        connections: meter(sum(meters, "connections")?, plan.max_connections),
        observed_contexts: meter(users::whole(contexts)?.estimate(), plan.max_observed_contexts),
        track_events: meter(sum(meters, "track_events")?, plan.max_track_events),
        period: UsagePeriod { from: iso(month.from_us), to: iso(month.to_us) },
        complete_through: moment.complete_through(),
    })
}

/// Postgres has signed numbers only; counts and limits are none below zero.
fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
