//! Why an OFREP request failed, as the protocol says it (data-plane.md 9.1, 9.2).

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use flagmint_schemas::decision::ErrorCode;

use super::reply::{Failure, InternalFailure};
use crate::http::error::{BadKey, DataPlaneError};

/// A failed OFREP request.
#[derive(Clone, Debug)]
pub enum OfrepError {
    /// As anywhere on the data plane; some are answered in the protocol's own form.
    Plane(DataPlaneError),
    /// This server answers no OFREP.
    SwitchedOff,
    /// No context, or none that the protocol allows; says why.
    InvalidContext(&'static str),
    /// The environment has no such flag.
    FlagNotFound,
    /// The flag asked for needs a targeting key.
    TargetingKeyMissing,
}

impl OfrepError {
    /// The error code under which the failed call is recorded, if it is.
    pub fn recorded_as(&self) -> Option<ErrorCode> {
        match self {
            Self::Plane(error) => error.recorded_as(),
            Self::SwitchedOff => None,
            Self::InvalidContext(_) => Some(ErrorCode::InvalidContext),
            Self::FlagNotFound => Some(ErrorCode::FlagNotFound),
            Self::TargetingKeyMissing => Some(ErrorCode::TargetingKeyMissing),
        }
    }

    /// The reply, naming the flag if one was asked for.
    pub fn respond(self, key: Option<&str>) -> Response {
        let failed = |status: StatusCode, code: ErrorCode, details: &str| {
            (status, Json(Failure { key, error_code: code.as_str(), error_details: details })).into_response()
        };
        match self {
            Self::Plane(DataPlaneError::InvalidApiKey) => (StatusCode::UNAUTHORIZED, Extension(BadKey)).into_response(),
            Self::SwitchedOff | Self::Plane(DataPlaneError::SubscriptionInactive) => {
                StatusCode::FORBIDDEN.into_response()
            }
            Self::Plane(DataPlaneError::Parse(why)) => failed(StatusCode::BAD_REQUEST, ErrorCode::ParseError, &why),
            Self::Plane(error @ DataPlaneError::Internal) => {
                let details = InternalFailure { error_details: error.message() };
                (StatusCode::INTERNAL_SERVER_ERROR, Json(details)).into_response()
            }
            Self::Plane(error) => error.into_response(),
            Self::InvalidContext(why) => failed(StatusCode::BAD_REQUEST, ErrorCode::InvalidContext, why),
            Self::TargetingKeyMissing => {
                failed(StatusCode::BAD_REQUEST, ErrorCode::TargetingKeyMissing, KEY_MISSING_DETAILS)
            }
            Self::FlagNotFound => {
                let details = format!("Flag '{}' was not found", key.unwrap_or_default());
                failed(StatusCode::NOT_FOUND, ErrorCode::FlagNotFound, &details)
            }
        }
    }
}

/// What a flag that needs a targeting key says to a context without one.
pub const KEY_MISSING_DETAILS: &str = "the flag's rollout needs a targetingKey, and the context has none";
