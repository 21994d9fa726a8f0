//! OFREP, the OpenFeature Remote Evaluation Protocol 0.3 (data-plane.md section 9): what its two endpoints share.

mod all;
mod context;
mod error;
mod etag;
mod one;
mod prepared;
mod reply;

pub use all::all;
pub use one::one;
pub use prepared::Prepared;
pub use reply::{Evaluations, Failure, Success};

// The OpenAPI document needs what the macro made of each handler.
pub use all::__path_all;
pub use one::__path_one;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use flagmint_schemas::decision::{Transport, Trigger};

use super::DataPlane;
use super::admission::{API_KEY, authenticate_text, enter_with, read_body};
use super::call::Call;
use super::error::DataPlaneError;
use super::quota;
use super::received::Received;
use crate::directory::Key;
use crate::limits::BODY_BYTES_MAX;
use crate::quota::Meter;
use crate::snapshot::Snapshot;
use error::OfrepError;
use prepared::OfrepContext;

/// One admitted request whose context has been read.
struct Asked<'a> {
    plane: &'a DataPlane,
    call: &'a Call<'a>,
    headers: &'a HeaderMap,
    snapshot: &'a Snapshot,
    context: &'a OfrepContext,
    now_us: i64,
}

impl Asked<'_> {
    /// The refusal of a call that would count, if the organization has reached its monthly limit.
    fn over_quota(&self) -> Option<Response> {
        let organization = self.snapshot.identity.organization;
        let limit = self.plane.directory().limit_reached(organization, Meter::ApiCalls, self.now_us)?;
        Some(quota::refusal(&limit, None, self.now_us))
    }
}

/// Answers a request for the flag `flag_key`, or for all flags, by `answer`, which is asked if nothing stands in its way.
async fn serve(
    plane: &DataPlane,
    headers: &HeaderMap,
    body: Body,
    flag_key: Option<&str>,
    answer: impl FnOnce(&Asked<'_>) -> Result<Response, OfrepError>,
) -> Response {
    let received = Received::now();
    let key = match authenticate_text(plane, key_text(headers), &received) {
        Ok(key) => key,
        Err(error) => return OfrepError::Plane(error).respond(flag_key),
    };
    if !plane.inner.has_ofrep {
        return OfrepError::SwitchedOff.respond(flag_key);
    }
    enter_with(plane, headers, &received, key, async |key: Arc<Key>| {
        let body = read_body(body, BODY_BYTES_MAX).await;
        admitted(plane, headers, &key, &received, body, answer).unwrap_or_else(|error| error.respond(flag_key))
    })
    .await
}

fn admitted(
    plane: &DataPlane,
    headers: &HeaderMap,
    key: &Key,
    received: &Received,
    body: Result<Bytes, DataPlaneError>,
    answer: impl FnOnce(&Asked<'_>) -> Result<Response, OfrepError>,
) -> Result<Response, OfrepError> {
    let guard = key.environment.snapshot();
    let snapshot = guard.as_ref().ok_or(OfrepError::Plane(DataPlaneError::Internal))?;
    if !snapshot.subscription_active {
        return Err(OfrepError::Plane(DataPlaneError::SubscriptionInactive));
    }
    // From here on the call holds the watermark back; before, a slow body could have held it for long.
    let in_flight = plane.directory().begin();
    let now_us = in_flight.received_us();
    let call = &Call::rest(plane, received, key.facts.id, (Transport::Ofrep, Trigger::Ofrep), headers);
    let read = |body: Bytes| snapshot.ofrep.contexts.get_or_read(&body, || OfrepContext::read(snapshot, &body));
    let answered = body
        .map_err(OfrepError::Plane)
        .and_then(read)
        .and_then(|context| answer(&Asked { plane, call, headers, snapshot, context: &context, now_us }));
    if let Err(error) = &answered {
        call.fail(snapshot, error.recorded_as(), now_us);
    }
    answered
}

/// The key as sent: the header that all clients may use, else a bearer token. Empty if there is none.
fn key_text(headers: &HeaderMap) -> &str {
    let text = |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or_default());
    text(&API_KEY).or_else(|| text(&header::AUTHORIZATION).and_then(bearer)).unwrap_or_default()
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_in_either_header() {
        let check = |headers: &[(&'static str, &str)], expected: &str| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(key_text(&headers), expected, "{headers:?}");
        };
        check(&[], "");
        check(&[("x-api-key", "ff_1")], "ff_1");
        check(&[("authorization", "Bearer ff_2")], "ff_2");
        check(&[("authorization", "bearer  ff_2")], "ff_2");
        check(&[("authorization", "Bearer ff_2"), ("x-api-key", "ff_1")], "ff_1");
        check(&[("authorization", "Bearer ff_2"), ("x-api-key", "")], "");
        check(&[("authorization", "Basic ff_2")], "");
        check(&[("authorization", "Bearer")], "");
    }
}
