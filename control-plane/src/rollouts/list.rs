//! ROL-2: `GET /projects/{projectId}/flags/{flagId}/environments/{envId}/rollouts`.

use axum::extract::State;

use super::Rollout;
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::query_as;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// The rollouts of a flag in an environment, the oldest first: without rules it is the one that applies.
#[utoipa::path(get, path = "/projects/{projectId}/flags/{flagId}/environments/{envId}/rollouts", tag = "Rollouts",
    params(("projectId" = Uuid, Path), ("flagId" = Uuid, Path), ("envId" = Uuid, Path)),
    responses((status = 200, body = Envelope<Vec<Rollout>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<3>,
) -> Reply<Vec<Rollout>> {
    let [project, flag, environment] = ids;
    let mut connection = plane.pool().acquire().await?;
    scope::flag(&mut connection, &caller, project, flag).await?;
    scope::environment(&mut connection, &caller, project, environment).await?;
    let rows = query_as(
        "SELECT id, flag_id, environment_id, strategy, config, created_at, updated_at, deleted_at FROM rollouts
         WHERE flag_id = $1 AND environment_id = $2 AND organization_id = $3 AND deleted_at IS NULL
         ORDER BY created_at, id",
    )
    .bind(flag)
    .bind(environment)
    .bind(caller.organization)
    .fetch_all(&mut *connection)
    .await?;
    ok(rows)
}
