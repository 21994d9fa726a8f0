//! `POST /ofrep/v1/evaluate/flags`: every flag for one context, or that nothing changed (data-plane.md 9.2).

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::CallFacts;

use super::error::OfrepError;
use super::{Asked, Evaluations, Failure, etag, serve};
use crate::http::DataPlane;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Every flag of the key's environment for one context.
#[utoipa::path(post, path = "/ofrep/v1/evaluate/flags", tag = "OFREP",
    params(("x-api-key" = Option<String>, Header, description = "An SDK key, unless it is sent as a bearer token"),
        ("if-none-match" = Option<String>, Header, description = "ETags of replies that the client holds"),
        ("flagConfigEtag" = Option<String>, Query, description = "Accepted and ignored"),
        ("flagConfigLastModified" = Option<String>, Query, description = "Accepted and ignored")),
    request_body(content = serde_json::Value, description = "{\"context\": {\"targetingKey\": \"…\", …}}"),
    responses((status = 200, body = Evaluations, description = "Values and failures side by side, with an ETag"),
        (status = 304, description = "Nothing changed: nothing was decided, and no call is counted"),
        (status = 400, body = Failure<'static>, description = "PARSE_ERROR, INVALID_CONTEXT"),
        (status = 401, description = "No key that may be used"), (status = 403, description = "The key is not allowed here"),
        (status = 408, description = "request_timeout"), (status = 413, description = "payload_too_large"),
        (status = 429, description = "RATE_LIMITED, QUOTA_EXCEEDED, with Retry-After"), (status = 500, description = "errorDetails")))]
pub async fn all(State(plane): State<DataPlane>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    serve(&plane, &parts.headers, body, None, answer).await
}

fn answer(asked: &Asked<'_>) -> Result<Response, OfrepError> {
    let Asked { call, headers, snapshot, context, now_us, .. } = *asked;
    let current = snapshot.ofrep.etag(snapshot, context, now_us);
    if etag::is_held(headers, &current) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, current)]).into_response());
    }
    if let Some(refusal) = asked.over_quota() {
        return Ok(refusal);
    }
    let facts = CallFacts { api_calls: 1, event_time_us: now_us, ..CallFacts::default() };
    let body = call.decide_all(snapshot, &context.seen, facts, |decisions| snapshot.ofrep.all(decisions));
    Ok(([(header::CONTENT_TYPE, JSON), (header::ETAG, current)], body).into_response())
}
