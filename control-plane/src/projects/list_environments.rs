//! ENV-1: `GET /projects/{projectId}/environments`.

use axum::extract::State;

use super::Environment;
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::query_as;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// The project's environments, the oldest first.
#[utoipa::path(get, path = "/projects/{projectId}/environments", tag = "Environments",
    params(("projectId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<Vec<Environment>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list_environments(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<1>,
) -> Reply<Vec<Environment>> {
    let [project] = ids;
    let mut connection = plane.pool().acquire().await?;
    scope::project(&mut connection, &caller, project).await?;
    let rows = query_as(
        "SELECT id, name, slug, is_default, project_id, created_at, updated_at, log_raw_context
         FROM environments WHERE project_id = $1 AND organization_id = $2 AND deleted_at IS NULL
         ORDER BY created_at, id",
    )
    .bind(project)
    .bind(caller.organization)
    .fetch_all(&mut *connection)
    .await?;
    ok(rows)
}
