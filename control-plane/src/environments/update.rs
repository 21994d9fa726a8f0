//! ENV-3: `PUT /projects/{projectId}/environments/{envId}`.

use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::reload;
use crate::ControlPlane;
use crate::caller::Admin;
use crate::db::{query, query_as};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::projects::Environment;
use crate::reply::{Envelope, Reply, ok};
use crate::request::{Body, Ids};
use crate::scope::Write;
use crate::text::check_name;

/// What changes; members left out stay.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EnvironmentChange {
    name: Option<String>,
    /// Whether raw targeting keys and private attributes go into the decision log. Off by default.
    log_raw_context: Option<bool>,
}

const SELECT: &str = "SELECT id, name, slug, is_default, project_id, created_at, updated_at, log_raw_context
     FROM environments WHERE id = $1 AND project_id = $2 AND organization_id = $3 AND deleted_at IS NULL";

/// Renames an environment, or switches the logging of raw contexts, which is audited by itself.
#[utoipa::path(put, path = "/projects/{projectId}/environments/{envId}", tag = "Environments",
    request_body = EnvironmentChange, params(("projectId" = Uuid, Path), ("envId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<Environment>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn update(
    State(plane): State<ControlPlane>,
    Admin(caller): Admin,
    Ids(ids): Ids<2>,
    Body(change): Body<EnvironmentChange>,
) -> Reply<Environment> {
    let [project, environment] = ids;
    let mut problems = Problems::default();
    if let Some(name) = &change.name {
        check_name(&mut problems, "name", name);
    }
    problems.finish()?;
    let mut write = Write::begin(&plane, caller, project).await?;
    let select = || query_as::<_, Environment>(SELECT).bind(environment).bind(project).bind(caller.organization);
    let before = select().fetch_optional(&mut *write.tx).await?.ok_or(ApiError::NotFound("Environment"))?;
    query(
        "UPDATE environments SET name = COALESCE($3, name), log_raw_context = COALESCE($4, log_raw_context), updated_at = now()
         WHERE id = $1 AND organization_id = $2",
    )
    .bind(environment)
    .bind(caller.organization)
    .bind(&change.name)
    .bind(change.log_raw_context)
    .execute(&mut *write.tx)
    .await?;
    let after = select().fetch_one(&mut *write.tx).await?;
    if before.name != after.name {
        let payload =
            json!({"environment_id": environment, "before": {"name": before.name}, "after": {"name": after.name}});
        write.audit("environment.updated", payload).await?;
    }
    if before.log_raw_context != after.log_raw_context {
        switch_raw_logging(&mut write, &after).await?;
    }
    write.tx.commit().await?;
    ok(after)
}

async fn switch_raw_logging(write: &mut Write, after: &Environment) -> Result<(), ApiError> {
    query("UPDATE environment_snapshots SET log_raw_context = $3 WHERE environment_id = $1 AND organization_id = $2")
        .bind(after.id)
        .bind(write.caller.organization)
        .bind(after.log_raw_context)
        .execute(&mut *write.tx)
        .await?;
    let payload = json!({"environment_id": after.id, "log_raw_context": after.log_raw_context});
    write.audit("environment.raw_logging_changed", payload).await?;
    reload(write, after.id).await
}
