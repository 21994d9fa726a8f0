//! PRJ-3: `GET /projects/{projectId}`.

use axum::extract::State;

use super::{Project, SELECT};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::query_as;
use crate::error::{ApiError, ErrorBody};
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;

/// One project.
#[utoipa::path(get, path = "/projects/{projectId}", tag = "Projects", params(("projectId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<Project>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn get(State(plane): State<ControlPlane>, Editor(caller): Editor, Ids(ids): Ids<1>) -> Reply<Project> {
    let [project] = ids;
    let row: Option<Project> =
        query_as(&format!("{SELECT} WHERE p.id = $1 AND p.organization_id = $2 AND p.deleted_at IS NULL"))
            .bind(project)
            .bind(caller.organization)
            .fetch_optional(plane.pool())
            .await?;
    ok(row.ok_or(ApiError::NotFound("Project"))?)
}
