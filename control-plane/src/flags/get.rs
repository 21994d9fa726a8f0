//! FLG-3: `GET /projects/{projectId}/flags/{flagId}`.

use axum::extract::State;

use super::{Flag, select};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::query_as;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// One flag, archived or not.
#[utoipa::path(get, path = "/projects/{projectId}/flags/{flagId}", tag = "Flags",
    params(("projectId" = Uuid, Path), ("flagId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<Flag>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn get(State(plane): State<ControlPlane>, Viewer(caller): Viewer, Ids(ids): Ids<2>) -> Reply<Flag> {
    let [project, flag] = ids;
    let mut connection = plane.pool().acquire().await?;
    let head = scope::flag(&mut connection, &caller, project, flag).await?;
    let row = query_as(&format!("{} WHERE f.id = $1 AND f.organization_id = $2", select()))
        .bind(head.id)
        .bind(caller.organization)
        .fetch_one(&mut *connection)
        .await?;
    ok(row)
}
