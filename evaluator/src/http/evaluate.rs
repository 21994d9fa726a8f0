//! `POST /evaluator/evaluate`: every flag of the key's environment for one context (data-plane.md section 3).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{Transport, Trigger};

use super::DataPlane;
use super::admission::{enter, read_body};
use super::call::Call;
use super::context::{CONTEXT, context_of};
use super::error::DataPlaneError;
use super::quota;
use super::received::Received;
use crate::contexts::Seen;
use crate::directory::Key;
use crate::engine::{Context, Decision};
use crate::limits::BODY_BYTES_MAX;
use crate::quota::Meter;
use crate::snapshot::Snapshot;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Every flag of the key's environment for one context. Flat, or in an envelope for contexts whose `custom.source` is `SDK` or `API`.
#[utoipa::path(post, path = "/evaluator/evaluate", tag = "Evaluation",
    params(("x-api-key" = String, Header, description = "An SDK key")),
    request_body(content = serde_json::Value, description = "{\"context\": {…}}; an absent context is an empty one"),
    responses((status = 200, body = serde_json::Value, description = "Flag keys and values"),
        (status = 400, description = "parse_error, invalid_context"), (status = 401, description = "invalid_api_key"),
        (status = 403, description = "subscription_inactive"), (status = 408, description = "request_timeout"),
        (status = 413, description = "payload_too_large"),
        (status = 429, description = "RATE_LIMITED or QUOTA_EXCEEDED, with Retry-After"), (status = 500, description = "internal_error")))]
pub async fn evaluate(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    enter(&plane, &headers, &received, async |key: Arc<Key>| {
        let body = read_body(body, BODY_BYTES_MAX).await;
        answer(&plane, &headers, &key, &received, body)
    })
    .await
}

/// Answers an admitted call and records what was decided, or why nothing was.
fn answer(
    plane: &DataPlane,
    headers: &HeaderMap,
    key: &Key,
    received: &Received,
    body: Result<Bytes, DataPlaneError>,
) -> Response {
    let guard = key.environment.snapshot();
    let Some(snapshot) = guard.as_ref() else { return DataPlaneError::Internal.into_response() };
    if !snapshot.subscription_active {
        return DataPlaneError::SubscriptionInactive.into_response();
    }
    // From here on the call holds the watermark back; before, a slow body could have held it for long.
    let in_flight = plane.directory().begin();
    let event_time_us = in_flight.received_us();
    let call = Call::rest(plane, received, key.facts.id, (Transport::Rest, Trigger::Evaluate), headers);
    let organization = snapshot.identity.organization;
    let limit = plane.directory().limit_reached(organization, Meter::ApiCalls, event_time_us);
    match (body.and_then(|body| seen(headers, snapshot, &body)), limit) {
        (Ok(_), Some(limit)) => {
            quota::refusal(&limit, Some(&quota::values_for_nobody(snapshot, event_time_us)), event_time_us)
        }
        (Ok(seen), None) => {
            let facts = CallFacts { api_calls: 1, event_time_us, ..CallFacts::default() };
            let write = |decisions: &[Decision]| reply(headers, snapshot, &seen.context, decisions);
            ([(header::CONTENT_TYPE, JSON)], call.decide_all(snapshot, &seen, facts, write)).into_response()
        }
        (Err(error), _) => {
            call.fail(snapshot, error.recorded_as(), event_time_us);
            error.into_response()
        }
    }
}

/// The context asked for. One in a header is read each time: only Go sends it so, and rarely.
fn seen(headers: &HeaderMap, snapshot: &Snapshot, body: &Bytes) -> Result<Arc<Seen>, DataPlaneError> {
    let read = || Ok(Seen::new(snapshot, context_of(headers, body)?));
    let is_in_body = !headers.contains_key(CONTEXT);
    if is_in_body { snapshot.contexts.get_or_read(body, read) } else { read().map(Arc::new) }
}

/// The body: flat, or in the envelope that JS clients want (data-plane.md 3.2).
fn reply(headers: &HeaderMap, snapshot: &Snapshot, context: &Context, decisions: &[Decision]) -> Vec<u8> {
    let enveloped = !headers.contains_key(CONTEXT) && matches!(context.source(), Some("SDK" | "API"));
    let mut out = Vec::new();
    if enveloped {
        out.extend_from_slice(br#"{"statusCode":200,"message":"OK","data":"#);
    }
    snapshot.write_values(decisions, &mut out);
    if enveloped {
        out.push(b'}');
    }
    out
}
