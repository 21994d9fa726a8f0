//! The errors of the data plane: both shapes that clients read in one body (data-plane.md section 2).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flagmint_schemas::decision::ErrorCode;
use serde_json::json;

/// Why a data-plane request got no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPlaneError {
    /// Body, header or query not decodable; the text says what and where.
    Parse(String),
    /// The context is not an object.
    InvalidContext,
    /// Missing, unknown, expired or revoked key.
    InvalidApiKey,
    /// The organization's subscription has lapsed.
    SubscriptionInactive,
    /// The body is larger than allowed.
    PayloadTooLarge {
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// The body did not come in time.
    BodyTimeout,
    /// Too many requests of this key in this minute.
    RateLimited {
        /// Whole seconds until the next minute.
        retry_after_s: u64,
    },
    /// A handshake's public key is no key, or one that agrees on nothing; the text says which.
    InvalidClientPublicKey(&'static str),
    /// Configuration was asked for with a session whose handshake had no public key.
    ConfigMacRequired,
    /// An unknown, used or expired session, or one of another key.
    InvalidSession,
    /// A context was posted for a connection that nobody holds.
    ConnectionNotFound,
    /// The environment's configuration cannot be had.
    Internal,
}

impl DataPlaneError {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Parse(_) | Self::InvalidContext | Self::InvalidClientPublicKey(_) | Self::ConfigMacRequired => {
                StatusCode::BAD_REQUEST
            }
            Self::ConnectionNotFound => StatusCode::NOT_FOUND,
            Self::InvalidApiKey | Self::InvalidSession => StatusCode::UNAUTHORIZED,
            Self::SubscriptionInactive => StatusCode::FORBIDDEN,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Parse(_) => "parse_error",
            Self::InvalidContext => "invalid_context",
            Self::InvalidApiKey => "invalid_api_key",
            Self::SubscriptionInactive => "subscription_inactive",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::BodyTimeout => "request_timeout",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::InvalidClientPublicKey(_) => "invalid_client_public_key",
            Self::ConfigMacRequired => "config_mac_required",
            Self::InvalidSession => "invalid_session",
            Self::ConnectionNotFound => "connection_not_found",
            Self::Internal => "internal_error",
        }
    }

    /// What is wrong, for a person.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Parse(what) => what.clone(),
            Self::InvalidContext => "context must be an object".into(),
            Self::InvalidApiKey => "Invalid API key".into(),
            Self::SubscriptionInactive => "Subscription inactive".into(),
            Self::PayloadTooLarge { bytes_max } => format!("body is larger than {bytes_max} bytes"),
            Self::BodyTimeout => format!("the body did not come within {} s", crate::limits::BODY_MAX.as_secs()),
            Self::RateLimited { retry_after_s } => format!("Too many requests, retry after {retry_after_s} s"),
            Self::InvalidClientPublicKey(why) => format!("clientPublicKey is no X25519 key: {why}"),
            Self::ConfigMacRequired => "the session's handshake had no clientPublicKey".into(),
            Self::InvalidSession => "sessionId is unknown, used or expired".into(),
            Self::ConnectionNotFound => "nobody holds this connection".into(),
            Self::Internal => "the environment's configuration is not available".into(),
        }
    }

    /// The error code under which the failed call is recorded (evaluation.md 8.2), if it is.
    #[must_use]
    pub const fn recorded_as(&self) -> Option<ErrorCode> {
        match self {
            Self::Parse(_) => Some(ErrorCode::ParseError),
            Self::InvalidContext => Some(ErrorCode::InvalidContext),
            Self::Internal => Some(ErrorCode::General),
            _ => None,
        }
    }
}

/// Marks, among a reply's extensions, that its request carried no key that may be used: whoever knows where it came from may count it.
#[derive(Clone, Copy, Debug)]
pub struct BadKey;

impl IntoResponse for DataPlaneError {
    fn into_response(self) -> Response {
        if self == Self::InvalidApiKey {
            let mut response = self.reply();
            response.extensions_mut().insert(BadKey);
            return response;
        }
        self.reply()
    }
}

impl DataPlaneError {
    fn reply(self) -> Response {
        let status = self.status();
        let mut body = json!({ "statusCode": status.as_u16(), "error": self.code(), "message": self.message() });
        let Self::RateLimited { retry_after_s } = self else {
            return (status, axum::Json(body)).into_response();
        };
        body["retryAfter"] = retry_after_s.into();
        let mut response = (status, axum::Json(body)).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        response
    }
}
