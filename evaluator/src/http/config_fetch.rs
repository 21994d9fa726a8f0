//! `GET /evaluator/v2/flags/config`: signed configuration by REST, with a session for each fetch (data-plane.md 7.5).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::DataPlane;
use super::admission::enter;
use super::error::DataPlaneError;
use super::query::member;
use super::received::Received;
use crate::config_sync::MacKey;
use crate::config_sync::feed::{Ask, Feed};
use crate::directory::Key;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Signed payloads: a lease, and what the client lacks. No API call.
#[utoipa::path(get, path = "/evaluator/v2/flags/config", tag = "Config-sync",
    params(("x-api-key" = String, Header, description = "An SDK key"),
        ("sessionId" = String, Query, description = "From a handshake with clientPublicKey; good once"),
        ("sinceVersion" = Option<String>, Query, description = "The configuration version that the client has")),
    responses((status = 200, body = serde_json::Value, description = "{\"payloads\": [lease, …]}"),
        (status = 400, description = "config_mac_required"), (status = 401, description = "invalid_api_key, invalid_session"),
        (status = 403, description = "subscription_inactive"), (status = 429, description = "RATE_LIMITED, with Retry-After"),
        (status = 500, description = "internal_error")))]
pub async fn config_fetch(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, _) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    enter(&plane, &parts.headers, &received, async |key: Arc<Key>| answer(&plane, query, &key, &received).await).await
}

async fn answer(
    plane: &DataPlane,
    query: &str,
    key: &Arc<Key>,
    received: &Received,
) -> Result<Response, DataPlaneError> {
    let is_active = key.environment.snapshot().as_ref().map(|snapshot| snapshot.subscription_active);
    if !is_active.ok_or(DataPlaneError::Internal)? {
        return Err(DataPlaneError::SubscriptionInactive);
    }
    let mac_key = redeem(plane, &member(query, "sessionId").unwrap_or_default(), key, received).await?;
    let ask = Ask::of(None, member(query, "sinceVersion").as_deref()).unwrap_or(Ask::Full);
    let (directory, environment) = (Arc::clone(plane.directory()), Arc::clone(&key.environment));
    let opened = Feed::open(directory, environment, mac_key, ask, plane.inner.clock.now_ms()).await;
    let (_, payloads) = opened.ok_or(DataPlaneError::Internal)?;
    let payloads: Vec<String> = payloads.into_iter().map(|payload| payload.json).collect();
    let body =
        format!(r#"{{"statusCode":200,"message":"Resource Found","data":{{"payloads":[{}]}}}}"#, payloads.join(","));
    Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
}

/// The key of a session of this SDK key, which is used up with this.
async fn redeem(plane: &DataPlane, id: &str, key: &Key, received: &Received) -> Result<MacKey, DataPlaneError> {
    let session = plane.sessions().open(id, received.time_us).filter(|session| session.key == key.facts.hash);
    let session = session.ok_or(DataPlaneError::InvalidSession)?;
    if !plane.used_sessions().claim(id, session.expires_us, received.time_us).await {
        return Err(DataPlaneError::InvalidSession);
    }
    session.mac_key.ok_or(DataPlaneError::ConfigMacRequired)
}
