//! The endpoints, one file each, and their routes.

mod distribution;
mod evaluations;
mod flag_metrics;
mod observed_contexts;
mod project_metrics;
mod reconciliation;
mod response_time;
mod top_flags;
mod usage;

use axum::Router;
use axum::routing::{MethodRouter, get};
use chrono::{DateTime, Utc};
use flagmint_schemas::ids::OrganizationId;
use flagmint_store::RollupStore;
use utoipa::OpenApi;
use uuid::Uuid;

use crate::QueryApi;
use crate::error::{ApiError, ErrorBody, Problems};
use crate::members::QueryMembers;
use crate::period::Span;
use crate::questions::Scope;

/// The second spelling of `…/analytics/x` is `…/analytics-x`.
const SPELLINGS: [&str; 2] = ["/analytics/", "/analytics-"];

/// The routes of the query API. There is no fallback, so the router can be merged with others.
pub fn router<S: RollupStore>(api: QueryApi<S>) -> Router {
    let analytics: [(&str, MethodRouter<QueryApi<S>>); 5] = [
        ("metrics", get(project_metrics::project_metrics::<S>)),
        ("evaluations", get(evaluations::evaluations::<S>)),
        ("response-time", get(response_time::response_time::<S>)),
        ("top-flags", get(top_flags::top_flags::<S>)),
        ("distribution", get(distribution::distribution::<S>)),
    ];
    let mut router = Router::new()
        .route("/flags/{flagId}/metrics", get(flag_metrics::flag_metrics::<S>))
        .route("/contexts/observed-contexts", get(observed_contexts::observed_contexts::<S>))
        .route("/billing/usage", get(usage::usage::<S>))
        .route("/audit/reconciliation", get(reconciliation::reconciliation::<S>));
    for (name, handler) in analytics {
        for spelling in SPELLINGS {
            router = router.route(&format!("/projects/{{projectId}}{spelling}{name}"), handler.clone());
        }
    }
    router.with_state(api)
}

/// The endpoints as OpenAPI sees them, in their first spelling.
#[derive(OpenApi)]
#[openapi(
    paths(
        flag_metrics::flag_metrics,
        project_metrics::project_metrics,
        evaluations::evaluations,
        response_time::response_time,
        top_flags::top_flags,
        distribution::distribution,
        observed_contexts::observed_contexts,
        usage::usage,
        reconciliation::reconciliation,
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// The query API's part of the OpenAPI document, both spellings included.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let second = |(path, item): (&String, &utoipa::openapi::PathItem)| {
        let mut item = item.clone();
        let operation = item.get.as_mut()?;
        operation.operation_id = operation.operation_id.as_ref().map(|id| format!("{id}_alias"));
        path.contains(SPELLINGS[0]).then(|| (path.replace(SPELLINGS[0], SPELLINGS[1]), item))
    };
    let aliases: Vec<_> = document.paths.paths.iter().filter_map(second).collect();
    document.paths.paths.extend(aliases);
    document
}

/// What the analytics of a project are asked for.
struct Asked {
    scope: Scope,
    span: Span,
}

impl Asked {
    /// Reads the members that all analytics have, and whatever else `more` reads.
    fn parse<T>(
        organization: OrganizationId,
        project: Option<Uuid>,
        members: &QueryMembers,
        now: DateTime<Utc>,
        more: impl FnOnce(&mut Problems) -> T,
    ) -> Result<(Self, T), ApiError> {
        let mut problems = Problems::default();
        let span = Span::parse(members, now, &mut problems);
        let environment = members.id("environment_id", &mut problems);
        let more = more(&mut problems);
        problems.finish()?;
        Ok((Self { scope: Scope { organization, project, environment }, span }, more))
    }
}
