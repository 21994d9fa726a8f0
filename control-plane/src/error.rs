//! Every way a request can fail, as the client is told (management API 1.5).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// One thing wrong with a body, query or path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Detail {
    /// Where, as `rules[0].operator`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Detail {
    /// `message` about what is at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Collects what is wrong with a request, so that the client hears of everything at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<Detail>);

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Detail::new(path, message));
    }

    /// Notes a problem unless `holds`.
    pub fn check(&mut self, holds: bool, path: &str, message: &str) {
        if !holds {
            self.add(path, message);
        }
    }

    /// # Errors
    /// `validation_failed` with every problem noted, if any was.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Validation(self.0)) }
    }
}

/// Why a request is not answered with a 2xx.
#[derive(Debug)]
pub enum ApiError {
    /// 400: body, query or path not as specified.
    Validation(Vec<Detail>),
    /// 401: no token or a bad one; wrong credentials.
    Unauthorized(&'static str),
    /// 401: the access token was good once; the client should refresh it.
    TokenExpired,
    /// 403: the role is too low.
    Forbidden,
    /// 403: it is the same for all organizations.
    SystemAttribute,
    /// 403: the plan has no room for another one.
    PlanLimit {
        /// `projects`, `flags` or `environments`.
        what: &'static str,
        /// What the plan allows.
        limit: i64,
        /// What there is.
        used: i64,
    },
    /// 403: writes while the subscription has lapsed.
    SubscriptionInactive,
    /// 404: absent, deleted, or of another organization; says what.
    NotFound(&'static str),
    /// 409: taken, or in use by the things listed.
    Conflict {
        /// What is in the way.
        message: String,
        /// What uses the thing, if use is what is in the way.
        used_by: Vec<Value>,
    },
    /// 413.
    PayloadTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 429, with the whole seconds after which it is worth trying again.
    RateLimited(u64),
    /// 503: Postgres or a free slot cannot be had now. The text is for the log.
    Unavailable(String),
    /// 500: our fault. The text is for the log.
    Internal(String),
}

impl ApiError {
    /// 409 for something that is taken.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into(), used_by: Vec::new() }
    }

    /// 400 for one problem.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Validation(vec![Detail::new(path, message)])
    }

    fn parts(&self) -> (StatusCode, &'static str, String) {
        let (status, code, message) = match self {
            Self::Validation(_) => (StatusCode::BAD_REQUEST, "validation_failed", "The request is not valid"),
            Self::Unauthorized(message) => (StatusCode::UNAUTHORIZED, "unauthorized", *message),
            Self::TokenExpired => (StatusCode::UNAUTHORIZED, "token_expired", "The access token has expired"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Your role does not allow this"),
            Self::SystemAttribute => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "A system attribute can be deactivated, but not changed or deleted",
            ),
            Self::PlanLimit { what, limit, .. } => {
                let message = format!("Your plan's limit of {limit} {what} is reached");
                return (StatusCode::FORBIDDEN, "plan_limit_reached", message);
            }
            Self::SubscriptionInactive => {
                (StatusCode::FORBIDDEN, "subscription_inactive", "The subscription has lapsed; reading still works")
            }
            Self::NotFound(what) => return (StatusCode::NOT_FOUND, "not_found", format!("{what} not found")),
            Self::Conflict { message, .. } => return (StatusCode::CONFLICT, "conflict", message.clone()),
            Self::PayloadTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is larger than 1 MiB")
            }
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be application/json")
            }
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "Too many requests"),
            Self::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service is not available at the moment")
            }
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong"),
        };
        (status, code, message.to_owned())
    }

    fn extra(&self) -> Option<(&'static str, Value)> {
        match self {
            Self::Validation(details) => Some(("details", json!(details))),
            Self::PlanLimit { what, limit, used } => Some((
                "data",
                json!({"limit": limit, "used": used, "what": what, "upgradeUrl": "/settings/subscription"}),
            )),
            Self::Conflict { used_by, .. } if !used_by.is_empty() => Some(("data", json!({"usedBy": used_by}))),
            Self::RateLimited(retry_after_s) => Some(("retryAfter", json!(retry_after_s))),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        match &self {
            Self::Internal(cause) => tracing::error!(cause, "request failed"),
            Self::Unavailable(cause) => tracing::warn!(cause, "request refused for now"),
            _ => {}
        }
        let mut body = json!({"statusCode": status.as_u16(), "error": code, "message": message});
        if let Some((name, value)) = self.extra() {
            body[name] = value;
        }
        let mut response = (status, Json(body)).into_response();
        let retry_after_s = match self {
            Self::RateLimited(seconds) => seconds,
            Self::Unavailable(_) => 1,
            _ => return response,
        };
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        response
    }
}

/// The shape of every error reply, for the OpenAPI document.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    /// The HTTP status again.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// A word for programs, as `validation_failed`.
    pub error: String,
    /// A sentence for people.
    pub message: String,
    /// What is wrong where; for `validation_failed` alone.
    pub details: Option<Vec<Detail>>,
    /// More, for `plan_limit_reached` and `conflict`.
    pub data: Option<Value>,
}
