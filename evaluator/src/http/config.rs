//! `GET /evaluator/config`: the compiled configuration without a signature, for programs that evaluate by themselves and are fed
//! by hand (data-plane.md 7.7).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::DataPlane;
use super::admission::enter;
use super::error::DataPlaneError;
use super::received::Received;
use crate::directory::Key;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The environment's configuration: flags and segments as evaluators use them. With `If-None-Match` equal to the current ETag: 304.
#[utoipa::path(get, path = "/evaluator/config", tag = "Config-sync",
    params(("x-api-key" = String, Header, description = "An SDK key"),
        ("if-none-match" = Option<String>, Header, description = "The ETag of what the client has")),
    responses((status = 200, body = serde_json::Value, description = "version, flags, segments"),
        (status = 304, description = "The client has the current version"),
        (status = 401, description = "invalid_api_key"), (status = 403, description = "subscription_inactive"),
        (status = 429, description = "RATE_LIMITED, with Retry-After"), (status = 500, description = "internal_error")))]
pub async fn config(State(plane): State<DataPlane>, headers: HeaderMap) -> Response {
    let received = Received::now();
    enter(&plane, &headers, &received, async |key: Arc<Key>| answer(&headers, &key)).await
}

fn answer(headers: &HeaderMap, key: &Key) -> Result<Response, DataPlaneError> {
    let guard = key.environment.snapshot();
    let snapshot = guard.as_ref().ok_or(DataPlaneError::Internal)?;
    if !snapshot.subscription_active {
        return Err(DataPlaneError::SubscriptionInactive);
    }
    let etag = format!("\"{}-{}\"", snapshot.identity.environment, snapshot.version);
    let etag_header = HeaderValue::from_str(&etag).expect("a UUID and a number");
    if is_known(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag_header)]).into_response());
    }
    let full = snapshot.full_config().ok_or(DataPlaneError::Internal)?;
    let body = format!(
        r#"{{"statusCode":200,"message":"OK","data":{{"version":{},"flags":{},"segments":{}}}}}"#,
        snapshot.version,
        full.flags(),
        full.segments()
    );
    Ok(([(header::CONTENT_TYPE, JSON), (header::ETAG, etag_header)], body).into_response())
}

/// Whether `If-None-Match` names this entity tag, by weak comparison (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        for (sent, expected) in [
            ("\"a-1\"", true),
            ("W/\"a-1\"", true),
            ("\"x\", W/\"a-1\"", true),
            ("*", true),
            ("\"a-2\"", false),
            ("a-1", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, sent.parse().unwrap())]);
            assert_eq!(is_known(&headers, "\"a-1\""), expected, "{sent}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"a-1\""));
    }
}
