//! `POST /internal/stream-context`: a context for a stream held here, forwarded by the instance at which it was posted. Only instances
//! can seal one.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use flagmint_schemas::ids::EnvironmentId;

use super::DataPlane;
use super::admission::read_body;
use super::context_post::deliver;
use super::error::DataPlaneError;
use super::received::Received;
use crate::limits::FORWARDED_BYTES_MAX;

/// Delivers it; the answer is the client's.
pub async fn forwarded(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let body = match read_body(request.into_body(), FORWARDED_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let sealed = std::str::from_utf8(&body).unwrap_or_default();
    let Some(forwarded) = plane.peers().open(sealed, received.time_us) else {
        return DataPlaneError::InvalidApiKey.into_response();
    };
    // A later run of the instance that was meant holds other streams under the same numbers.
    if forwarded.instance != plane.streams().instance() {
        return DataPlaneError::ConnectionNotFound.into_response();
    }
    let environment = EnvironmentId(forwarded.environment);
    let delivered = deliver(&plane, &received, environment, forwarded.number, &forwarded.context);
    delivered.unwrap_or_else(DataPlaneError::into_response)
}
