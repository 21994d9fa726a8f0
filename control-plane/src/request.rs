//! What handlers take from a request: a JSON body, ids from the path, the client's address. Whatever is not as specified
//! becomes an error that names the place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use crate::ControlPlane;
use crate::error::ApiError;

/// A JSON body of type `T`. Unknown members are ignored.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ControlPlane> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ControlPlane) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        let bytes = axum::body::Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::PayloadTooLarge
            } else {
                ApiError::invalid("", "the body could not be read")
            }
        })?;
        parse(&bytes).map(Self)
    }
}

/// For members of which `null` is not the same as being left out: `Some` of whatever is there.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

/// Reads `bytes` as JSON, then as `T`: first for what no member may hold, then for types.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value: Value = serde_path_to_error::deserialize(&mut reader).map_err(|error| located(&error))?;
    reader.end().map_err(|error| ApiError::invalid("", error.to_string()))?;
    refuse_nul(&value, &mut String::new())?;
    if !value.is_object() {
        return Err(ApiError::invalid("", "the body must be an object"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| located(&error))
}

fn located(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let mut path = error.path().to_string();
    if path == "." {
        path.clear();
    }
    let message = error.inner().to_string();
    // A missing member is reported at its parent; its name is in the text alone.
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        let dot = if path.is_empty() { "" } else { "." };
        return ApiError::invalid(format!("{path}{dot}{name}"), "is required");
    }
    ApiError::invalid(path, message)
}

/// Postgres cannot store U+0000, in no text and no name of a member.
fn refuse_nul(value: &Value, path: &mut String) -> Result<(), ApiError> {
    let length = path.len();
    match value {
        Value::String(text) if text.contains('\0') => {
            return Err(ApiError::invalid(path.as_str(), "must not contain U+0000"));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                refuse_nul(item, path)?;
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                path.push_str(if length == 0 { "" } else { "." });
                path.push_str(&name.replace('\0', "\u{fffd}"));
                if name.contains('\0') {
                    return Err(ApiError::invalid(path.as_str(), "the name must not contain U+0000"));
                }
                refuse_nul(member, path)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The path's ids, in the route's order.
#[derive(Debug)]
pub struct Ids<const N: usize>(pub [Uuid; N]);

impl<const N: usize, S: Send + Sync> FromRequestParts<S> for Ids<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("path", "is not valid UTF-8"))?;
        let mut ids = Vec::with_capacity(N);
        for (name, text) in &params {
            ids.push(Uuid::parse_str(text).map_err(|_| ApiError::invalid(name, "must be a UUID"))?);
        }
        let ids = ids.try_into().map_err(|_| ApiError::Internal("a route takes other ids than its handler".into()))?;
        Ok(Self(ids))
    }
}

/// The key that is the path's only parameter.
#[derive(Debug)]
pub struct Key(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("path", "is not valid UTF-8"))?;
        let key = params.iter().next().map(|(_, text)| text.to_owned());
        match key.ok_or_else(|| ApiError::Internal("a route without a key takes one".into()))? {
            key if key.contains('\0') => Err(ApiError::invalid("key", "must not contain U+0000")),
            key => Ok(Self(key)),
        }
    }
}

/// The address the request came from: the peer's, or what the proxy says when one is trusted. Unknown is 0.0.0.0.
#[derive(Debug)]
pub struct ClientIp(pub IpAddr);

impl FromRequestParts<ControlPlane> for ClientIp {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &ControlPlane) -> Result<Self, Self::Rejection> {
        // The last entry is the one our own proxy added; those before it are the client's to invent.
        let forwarded = || {
            let values = parts.headers.get_all("x-forwarded-for").iter().next_back()?;
            values.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
        };
        let peer = || parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let trusted = if state.settings().trust_proxy { forwarded() } else { None };
        Ok(Self(trusted.or_else(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[serde(rename = "name")]
        _name: String,
        #[serde(default, rename = "items")]
        _items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Item {
        #[serde(rename = "value")]
        _value: Value,
    }

    fn check(body: &str, path: &str) {
        match parse::<Sample>(body.as_bytes()) {
            Err(ApiError::Validation(details)) => assert_eq!(details[0].path, path, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_as_specified_is_named() {
        check("", "");
        check("[]", "");
        check("{}", "name");
        check(r#"{"name":1}"#, "name");
        check(r#"{"name":"a"} x"#, "");
        check(r#"{"name":"a\u0000"}"#, "name");
        check(r#"{"name":"\ud800"}"#, "name");
        check(r#"{"name":"a","items":[{"value":1},{"value":{"x":["\u0000"]}}]}"#, "items[1].value.x[0]");
        check(r#"{"name":"a","items":[{"value":1},{"value":{"x":["\udfff"]}}]}"#, "items[1].value.x[0]");
        check(r#"{"name":"a","items":[{"value":1},{}]}"#, "items[1].value");
        check(r#"{"name":"a","extra":{"\u0000":1}}"#, "extra.\u{fffd}");
        check(r#"{"name":"a","items":[{"value":1e999}]}"#, "items[0].value");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!(r#"{{"name":"a","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(parse::<Sample>(deep.as_bytes()), Err(ApiError::Validation(_))));
    }
}
