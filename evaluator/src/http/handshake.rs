//! `POST /auth/asl-handshake`: a session for one stream or one configuration fetch (data-plane.md section 5).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::DataPlane;
use super::admission::{enter, read_body};
use super::error::DataPlaneError;
use super::members::members;
use super::received::Received;
use crate::directory::Key;
use crate::limits::BODY_BYTES_MAX;
use crate::session::agreement::{NAME, Offer, public_key};

/// A session id, good once and for a minute. With a `clientPublicKey` (X25519, 64 hex digits), what the client needs to derive the
/// key that its configuration is signed with. No API call, and not refused for a lapsed subscription: the stream says so.
#[utoipa::path(post, path = "/auth/asl-handshake", tag = "Evaluation",
    params(("x-api-key" = String, Header, description = "An SDK key")),
    request_body(content = serde_json::Value, description = "Absent, empty, null or {} for a plain session, or {\"clientPublicKey\": \"…\"}"),
    responses((status = 200, body = serde_json::Value, description = "sessionId; with a client key serverPublicKey, salt, keyAgreement"),
        (status = 400, description = "parse_error, invalid_client_public_key"), (status = 401, description = "invalid_api_key"),
        (status = 413, description = "payload_too_large"), (status = 429, description = "RATE_LIMITED, with Retry-After")))]
pub async fn handshake(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, body) = request.into_parts();
    enter(&plane, &parts.headers, &received, async |key: Arc<Key>| {
        let body = read_body(body, BODY_BYTES_MAX).await?;
        let data = session(&plane, &key, &body, received.time_us)?;
        Ok::<_, DataPlaneError>(Json(json!({ "statusCode": 200, "message": "OK", "data": data })))
    })
    .await
}

fn session(plane: &DataPlane, key: &Key, body: &Bytes, now_us: i64) -> Result<Value, DataPlaneError> {
    let issue = |mac_key| plane.sessions().issue(key.facts.hash, key.environment.id, mac_key, now_us);
    let Some(client_key) = client_public_key(body)? else { return Ok(json!({ "sessionId": issue(None) })) };
    let offer = Offer::new();
    let (server_key, salt) = (offer.public_key(), offer.salt);
    let mac_key = offer.agree(client_key).ok_or(DataPlaneError::InvalidClientPublicKey("degenerate"))?;
    Ok(json!({
        "sessionId": issue(Some(mac_key)),
        "serverPublicKey": hex::encode(server_key),
        "salt": hex::encode(salt),
        "keyAgreement": NAME,
    }))
}

fn client_public_key(body: &[u8]) -> Result<Option<[u8; 32]>, DataPlaneError> {
    if matches!(body.trim_ascii(), b"" | b"null") {
        return Ok(None);
    }
    let key = match members(body)?.get("clientPublicKey") {
        None => return Ok(None),
        Some(key) if key.get() == "null" => return Ok(None),
        Some(key) => serde_json::from_str::<String>(key.get()).ok(),
    };
    let key = key.as_deref().and_then(public_key);
    key.map(Some).ok_or(DataPlaneError::InvalidClientPublicKey("not 64 hex digits"))
}
