//! Routes for tests of config-sync (data-plane.md 7.8): a clock that can be shifted, so that a lease of 24 h expires while a test
//! waits, and a look at what clients would be sent. Served only where the server was started with them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::DataPlane;
use super::admission::authenticate;
use super::error::DataPlaneError;
use super::received::Received;
use crate::directory::Key;

/// The routes.
pub fn router() -> Router<DataPlane> {
    let routes = Router::new()
        .route("/clock", get(clock))
        .route("/clock/advance", post(advance))
        .route("/clock/reset", post(reset))
        .route("/state", get(state))
        .route("/clear", post(clear))
        .route("/replay", post(replay));
    Router::new().nest("/evaluator/v2/qa/config-sync", routes)
}

type Reply = Result<Response, DataPlaneError>;

fn ok(data: &Value) -> Response {
    Json(json!({ "statusCode": 200, "message": "OK", "data": data })).into_response()
}

fn key_of(plane: &DataPlane, headers: &HeaderMap) -> Result<Arc<Key>, DataPlaneError> {
    authenticate(plane, headers, &Received::now())
}

/// A whole number in the body, which must be an object.
fn number(body: &[u8], name: &str) -> Result<i64, DataPlaneError> {
    let refuse = || DataPlaneError::Parse(format!("body is not {{\"{name}\":n}} with a whole number"));
    let body: Value = serde_json::from_slice(body).map_err(|_| refuse())?;
    body.get(name).and_then(Value::as_i64).ok_or_else(refuse)
}

fn clock_json(plane: &DataPlane) -> Value {
    let reading = plane.inner.clock.read();
    let now_ms = reading.effective_now_ms();
    let iso = DateTime::from_timestamp_millis(now_ms).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    json!({ "wallClockMs": reading.wall_clock_ms, "offsetMs": reading.offset_ms, "effectiveNowMs": now_ms,
        "effectiveNowIso": iso })
}

/// What the clock says.
async fn clock(State(plane): State<DataPlane>, headers: HeaderMap) -> Reply {
    key_of(&plane, &headers)?;
    Ok(ok(&clock_json(&plane)))
}

/// Shifts the clock by `{"ms":n}`.
async fn advance(State(plane): State<DataPlane>, headers: HeaderMap, body: Bytes) -> Reply {
    key_of(&plane, &headers)?;
    plane.inner.clock.advance(number(&body, "ms")?);
    Ok(ok(&clock_json(&plane)))
}

/// Takes all shifts back.
async fn reset(State(plane): State<DataPlane>, headers: HeaderMap) -> Reply {
    key_of(&plane, &headers)?;
    plane.inner.clock.reset();
    Ok(ok(&clock_json(&plane)))
}

/// The version in force and the deltas at hand.
async fn state(State(plane): State<DataPlane>, headers: HeaderMap) -> Reply {
    let key = key_of(&plane, &headers)?;
    let guard = key.environment.snapshot();
    let snapshot = guard.as_ref().ok_or(DataPlaneError::Internal)?;
    Ok(ok(&json!({ "version": snapshot.version, "flags": snapshot.compiled.flags().len(),
        "deltasFromVersion": key.environment.history.from_version(), "clock": clock_json(&plane) })))
}

/// Forgets the deltas at hand, as a restart does.
async fn clear(State(plane): State<DataPlane>, headers: HeaderMap) -> Reply {
    let key = key_of(&plane, &headers)?;
    key.environment.history.clear().await;
    Ok(ok(&json!({ "deltasFromVersion": null })))
}

/// Which versions a client that has `{"sinceVersion":n}` would be led through; null if it would be sent everything.
async fn replay(State(plane): State<DataPlane>, headers: HeaderMap, body: Bytes) -> Reply {
    let key = key_of(&plane, &headers)?;
    let since = number(&body, "sinceVersion")?;
    let version =
        key.environment.snapshot().as_ref().map(|snapshot| snapshot.version).ok_or(DataPlaneError::Internal)?;
    let deltas = match u64::try_from(since) {
        Ok(since) if since == version => Some(Vec::new()),
        Ok(since) if since < version => plane.directory().deltas(&key.environment, since, version).await,
        _ => None,
    };
    let versions = deltas.map(|deltas| deltas.iter().map(|delta| delta.to_version()).collect::<Vec<_>>());
    Ok(ok(&json!({ "version": version, "toVersions": versions })))
}
