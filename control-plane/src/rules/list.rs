//! RUL-2: `GET /projects/{projectId}/envs/{envId}/flags/{flagId}/targeting-rules`.

use axum::extract::State;

use super::{Rule, SELECT};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::query_as;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// The rules of a flag in an environment, in the order they run.
#[utoipa::path(get, path = "/projects/{projectId}/envs/{envId}/flags/{flagId}/targeting-rules",
    tag = "Targeting rules", params(("projectId" = Uuid, Path), ("envId" = Uuid, Path), ("flagId" = Uuid, Path)),
    responses((status = 200, body = Envelope<Vec<Rule>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<3>,
) -> Reply<Vec<Rule>> {
    let [project, environment, flag] = ids;
    let mut connection = plane.pool().acquire().await?;
    scope::environment(&mut connection, &caller, project, environment).await?;
    scope::flag(&mut connection, &caller, project, flag).await?;
    let rows = query_as(&format!(
        "{SELECT} WHERE r.flag_id = $1 AND r.environment_id = $2 AND r.organization_id = $3 AND r.deleted_at IS NULL
         ORDER BY r.order_index, r.created_at, r.id"
    ))
    .bind(flag)
    .bind(environment)
    .bind(caller.organization)
    .fetch_all(&mut *connection)
    .await?;
    ok(rows)
}
