//! `POST /evaluator/v2/flags/context`: another context for an open stream (data-plane.md 6.4). The stream may be held by another
//! instance, to which the post is forwarded; whoever holds it answers.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{Transport, Trigger};
use flagmint_schemas::ids::EnvironmentId;
use serde_json::json;
use tokio::time::Instant;

use super::DataPlane;
use super::admission::{enter, read_body};
use super::call::Call;
use super::error::DataPlaneError;
use super::members::members;
use super::quota;
use super::received::Received;
use crate::contexts::Seen;
use crate::directory::Key;
use crate::engine::{Context, ContextError};
use crate::limits::BODY_BYTES_MAX;
use crate::quota::Meter;
use crate::streams::{End, Held};

/// Replaces the context of an open stream, where the new flags arrive.
#[utoipa::path(post, path = "/evaluator/v2/flags/context", tag = "Evaluation",
    params(("x-api-key" = String, Header, description = "An SDK key")),
    request_body(content = serde_json::Value, description = "{\"connectionId\": \"…\", \"context\": {…}}"),
    responses((status = 202, body = serde_json::Value, description = "Accepted"), (status = 400, description = "parse_error, invalid_context"),
        (status = 401, description = "invalid_api_key"), (status = 403, description = "subscription_inactive"),
        (status = 404, description = "connection_not_found"), (status = 413, description = "payload_too_large"),
        (status = 429, description = "RATE_LIMITED or QUOTA_EXCEEDED, with Retry-After")))]
pub async fn post_context(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, body) = request.into_parts();
    enter(&plane, &parts.headers, &received, async |key: Arc<Key>| {
        let body = read_body(body, BODY_BYTES_MAX).await;
        answer(&plane, &parts.headers, &key, &received, body).await
    })
    .await
}

async fn answer(
    plane: &DataPlane,
    headers: &HeaderMap,
    key: &Key,
    received: &Received,
    body: Result<Bytes, DataPlaneError>,
) -> Result<Response, DataPlaneError> {
    let read = body.and_then(|body| Post::read(&body));
    let post = read.inspect_err(|error| note_failure(plane, headers, key, received, error))?;
    let lost = DataPlaneError::ConnectionNotFound;
    match plane.streams().locate(&post.connection_id).ok_or(lost)? {
        Held::Here(number) => deliver(plane, received, key.environment.id, number, &post.context),
        Held::There { instance, address, number } => {
            plane.peers().forward(&address, (instance, number), key.environment.id, &post.context).await
        }
    }
}

/// A body, read.
struct Post {
    connection_id: String,
    /// JSON of an object.
    context: String,
}

impl Post {
    fn read(body: &[u8]) -> Result<Self, DataPlaneError> {
        let members = members(body)?;
        let id = members.get("connectionId").and_then(|id| serde_json::from_str::<Cow<'_, str>>(id.get()).ok());
        let id = id.ok_or_else(|| DataPlaneError::Parse("connectionId is missing or no string".into()))?;
        let context = members.get("context").map_or("null", |context| context.get());
        Context::from_json(context.as_bytes()).map_err(|error| match error {
            ContextError::NotAnObject => DataPlaneError::InvalidContext,
            ContextError::Unreadable(why) => DataPlaneError::Parse(format!("context: {why}")),
        })?;
        let context = if context == "null" { "{}" } else { context };
        Ok(Self { connection_id: id.into_owned(), context: context.to_owned() })
    }
}

fn note_failure(plane: &DataPlane, headers: &HeaderMap, key: &Key, received: &Received, error: &DataPlaneError) {
    if let (Some(code), Some(snapshot)) = (error.recorded_as(), key.environment.snapshot().as_ref()) {
        let ways = (Transport::Sse, Trigger::Context);
        let call = Call::rest(plane, received, key.facts.id, ways, headers);
        call.fail(snapshot, Some(code), plane.directory().begin().received_us());
    }
}

/// Gives a context, JSON of an object, to a connection held here.
///
/// # Errors
/// If it is not held here, or not of this environment, or its organization may not be served.
pub fn deliver(
    plane: &DataPlane,
    received: &Received,
    environment: EnvironmentId,
    number: u64,
    context: &str,
) -> Result<Response, DataPlaneError> {
    let connection = plane.streams().find(environment, number).ok_or(DataPlaneError::ConnectionNotFound)?;
    let guard = connection.key.environment.snapshot();
    let snapshot = guard.as_ref().ok_or(DataPlaneError::Internal)?;
    if !snapshot.subscription_active {
        return Err(DataPlaneError::SubscriptionInactive);
    }
    let is_server_evaluated = connection.is_server_evaluated();
    if is_server_evaluated {
        let reached = |meter| plane.directory().limit_reached(snapshot.identity.organization, meter, received.time_us);
        if let Some(limit) = reached(Meter::ApiCalls) {
            let sent = connection.sent();
            connection.end(End::QuotaExceeded(limit.clone()));
            return Ok(quota::refusal(&limit, sent.as_ref().map(|map| &*map.values), received.time_us));
        }
    }
    // The call is accepted now, whatever follows it before it is evaluated: it is recorded now, and the decisions when they are made.
    let in_flight = plane.directory().begin();
    let context_read = Context::from_json(context.as_bytes()).map_err(|_| DataPlaneError::InvalidContext)?;
    let seen = Seen::new(snapshot, context_read);
    let api_calls = u32::from(is_server_evaluated);
    let facts = CallFacts { api_calls, event_time_us: in_flight.received_us(), ..CallFacts::default() };
    connection.call(plane, received, Trigger::Context).record(snapshot, facts, Some(&seen), &[]);
    if is_server_evaluated {
        connection.post(context, Instant::now());
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "statusCode": 202, "message": "Accepted" }))).into_response())
}
