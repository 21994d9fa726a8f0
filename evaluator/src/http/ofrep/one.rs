//! `POST /ofrep/v1/evaluate/flags/{key}`: one flag for one context (data-plane.md 9.1).

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::CallFacts;

use super::error::OfrepError;
use super::{Asked, Failure, Success, serve};
use crate::http::DataPlane;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One flag for one context. Stored faults are served with the flag's fallback and reason `UNKNOWN`.
#[utoipa::path(post, path = "/ofrep/v1/evaluate/flags/{key}", tag = "OFREP",
    params(("key" = String, Path, description = "The flag's key"),
        ("x-api-key" = Option<String>, Header, description = "An SDK key, unless it is sent as a bearer token")),
    request_body(content = serde_json::Value, description = "{\"context\": {\"targetingKey\": \"…\", …}}"),
    responses((status = 200, body = Success<'static>, description = "The flag's value"),
        (status = 400, body = Failure<'static>, description = "PARSE_ERROR, INVALID_CONTEXT, TARGETING_KEY_MISSING"),
        (status = 401, description = "No key that may be used"), (status = 403, description = "The key is not allowed here"),
        (status = 404, body = Failure<'static>, description = "FLAG_NOT_FOUND"),
        (status = 408, description = "request_timeout"), (status = 413, description = "payload_too_large"),
        (status = 429, description = "RATE_LIMITED, QUOTA_EXCEEDED, with Retry-After"), (status = 500, description = "errorDetails")))]
pub async fn one(
    State(plane): State<DataPlane>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    // A key that is no UTF-8 once decoded is no flag's.
    let path = path.ok();
    let key = path.as_ref().and_then(|path| path.iter().next()).map_or("", |(_, key)| key);
    serve(&plane, &parts.headers, body, Some(key), |asked| answer(key, asked)).await
}

fn answer(key: &str, asked: &Asked<'_>) -> Result<Response, OfrepError> {
    let Asked { call, snapshot, context, now_us, .. } = *asked;
    let flag = snapshot.compiled.flag_index(key).ok_or(OfrepError::FlagNotFound)?;
    if let Some(refusal) = asked.over_quota() {
        return Ok(refusal);
    }
    let facts = CallFacts { api_calls: 1, event_time_us: now_us, ..CallFacts::default() };
    let body = call.decide_one(snapshot, flag, &context.seen, facts, |decision| {
        snapshot.ofrep.one(decision).ok_or(OfrepError::TargetingKeyMissing)
    })?;
    Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
}
