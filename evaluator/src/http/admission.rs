//! What stands before every answer: a key that may be used, a rate limit that has room, a body that is not too large.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use subtle::ConstantTimeEq;

use super::DataPlane;
use super::error::DataPlaneError;
use super::rate::RateVerdict;
use super::received::Received;
use crate::directory::Key;
use crate::limits::BODY_MAX;

/// Where SDK keys travel, but for WebSocket and OFREP's bearer tokens.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const BYPASS: HeaderName = HeaderName::from_static("x-bypass-rate-limit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The key that the header `x-api-key` names.
///
/// # Errors
/// [`DataPlaneError::InvalidApiKey`] if there is none that may be used now.
pub fn authenticate(plane: &DataPlane, headers: &HeaderMap, received: &Received) -> Result<Arc<Key>, DataPlaneError> {
    authenticate_text(plane, headers.get(API_KEY).and_then(|value| value.to_str().ok()).unwrap_or_default(), received)
}

/// The key with this text.
///
/// # Errors
/// [`DataPlaneError::InvalidApiKey`] if there is none that may be used now.
pub fn authenticate_text(plane: &DataPlane, text: &str, received: &Received) -> Result<Arc<Key>, DataPlaneError> {
    let key = plane.directory().authenticate(text, received.time_us).ok_or(DataPlaneError::InvalidApiKey)?;
    key.touch(received.time_us);
    Ok(key)
}

/// Lets a request with a good key in its header in, if there is room under the key's rate limit: what `answer` says, or why it was not
/// asked.
pub async fn enter<Answer, Reply>(
    plane: &DataPlane,
    headers: &HeaderMap,
    received: &Received,
    answer: impl FnOnce(Arc<Key>) -> Answer,
) -> Response
where
    Answer: Future<Output = Reply>,
    Reply: IntoResponse,
{
    match authenticate(plane, headers, received) {
        Ok(key) => enter_with(plane, headers, received, key, answer).await,
        Err(error) => error.into_response(),
    }
}

/// The same for a key that was found elsewhere. Whatever the reply, it says where the key stands.
pub async fn enter_with<Answer, Reply>(
    plane: &DataPlane,
    headers: &HeaderMap,
    received: &Received,
    key: Arc<Key>,
    answer: impl FnOnce(Arc<Key>) -> Answer,
) -> Response
where
    Answer: Future<Output = Reply>,
    Reply: IntoResponse,
{
    let verdict = admit(plane, headers, &key, received);
    let mut response =
        if verdict.admitted { answer(key).await.into_response() } else { verdict.refusal(received).into_response() };
    verdict.write_headers(response.headers_mut());
    response
}

/// Counts one request against its key's rate limit.
fn admit(plane: &DataPlane, headers: &HeaderMap, key: &Key, received: &Received) -> RateVerdict {
    let bypassed = match (&plane.inner.bypass_token, headers.get(BYPASS)) {
        (Some(token), Some(sent)) => bool::from(token.as_bytes().ct_eq(sent.as_bytes())),
        _ => false,
    };
    let limit = if bypassed { 0 } else { key.facts.rate_limit_per_minute };
    key.rate.admit(received.seconds(), limit)
}

impl RateVerdict {
    /// The refusal of a request that was not admitted.
    fn refusal(&self, received: &Received) -> DataPlaneError {
        DataPlaneError::RateLimited { retry_after_s: self.reset_s.saturating_sub(received.seconds()).max(1) }
    }

    /// Tells the client where it stands.
    fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset_s));
    }
}

/// The whole body, `bytes_max` at most, within [`BODY_MAX`].
///
/// # Errors
/// [`DataPlaneError::PayloadTooLarge`], [`DataPlaneError::BodyTimeout`], or [`DataPlaneError::Parse`] if it ended early.
pub async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, DataPlaneError> {
    let read = tokio::time::timeout(BODY_MAX, to_bytes(body, bytes_max)).await;
    read.map_err(|_| DataPlaneError::BodyTimeout)?.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) {
            DataPlaneError::PayloadTooLarge { bytes_max }
        } else {
            DataPlaneError::Parse(format!("body is not readable: {error}"))
        }
    })
}
