//! ATT-3: `GET /api/attributes/{key}`.

use axum::extract::State;

use super::{Attribute, find};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Key;

/// One attribute.
#[utoipa::path(get, path = "/api/attributes/{key}", tag = "Attributes", params(("key" = String, Path)), responses(
    (status = 200, body = Envelope<Attribute>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn get(State(plane): State<ControlPlane>, Viewer(caller): Viewer, Key(key): Key) -> Reply<Attribute> {
    let mut connection = plane.pool().acquire().await?;
    ok(find(&mut connection, &caller, &key).await?)
}
