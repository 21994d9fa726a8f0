//! VAR-1: `GET /projects/{projectId}/flags/{flagId}/variations`.

use axum::extract::State;

use super::{Variation, of_flag};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// The flag's variations by `order_index`.
#[utoipa::path(get, path = "/projects/{projectId}/flags/{flagId}/variations", tag = "Variations",
    params(("projectId" = Uuid, Path), ("flagId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<Vec<Variation>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<2>,
) -> Reply<Vec<Variation>> {
    let [project, flag] = ids;
    let mut connection = plane.pool().acquire().await?;
    scope::flag(&mut connection, &caller, project, flag).await?;
    ok(of_flag(&mut connection, &caller, flag).await?)
}
