//! Every way a question can fail, as the client is told (management API 1.5).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flagmint_store::StoreError;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// One thing wrong with a query or path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Detail {
    /// The member, as `from`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// Collects what is wrong with a request, so that the client hears of everything at once.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Detail>);

impl Problems {
    /// Notes a problem.
    pub(crate) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Detail { path: path.to_owned(), message: message.into() });
    }

    /// `validation_failed` with every problem noted, if any was.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Validation(self.0)) }
    }
}

/// Why a question is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// 400: query or path not as specified.
    Validation(Vec<Detail>),
    /// 401: no token or a bad one.
    Unauthorized(&'static str),
    /// 401: the token was good once; the client should refresh it.
    TokenExpired,
    /// 403: the role is too low.
    Forbidden,
    /// 404: absent, deleted, or of another organization; says what.
    NotFound(&'static str),
    /// 503: Postgres or the store cannot answer now. The text is for the log.
    Unavailable(String),
    /// 500: our fault. The text is for the log.
    Internal(String),
}

impl ApiError {
    /// 400 for one problem.
    pub(crate) fn invalid(path: &str, message: &str) -> Self {
        Self::Validation(vec![Detail { path: path.to_owned(), message: message.to_owned() }])
    }

    fn parts(&self) -> (StatusCode, &'static str, String) {
        let (status, code, message) = match self {
            Self::Validation(_) => (StatusCode::BAD_REQUEST, "validation_failed", "The request is not valid"),
            Self::Unauthorized(message) => (StatusCode::UNAUTHORIZED, "unauthorized", *message),
            Self::TokenExpired => (StatusCode::UNAUTHORIZED, "token_expired", "The access token has expired"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Your role does not allow this"),
            Self::NotFound(what) => return (StatusCode::NOT_FOUND, "not_found", format!("{what} not found")),
            Self::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service is not available at the moment")
            }
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong"),
        };
        (status, code, message.to_owned())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Retry(_) => Self::Unavailable(error.to_string()),
            StoreError::Refuse(_) | StoreError::Fatal(_) => Self::Internal(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        let mut body = json!({"statusCode": status.as_u16(), "error": code, "message": message});
        match &self {
            Self::Internal(cause) => tracing::error!(cause, "question failed"),
            Self::Unavailable(cause) => tracing::warn!(cause, "question refused for now"),
            Self::Validation(details) => body["details"] = json!(details),
            _ => {}
        }
        let mut response = (status, Json(body)).into_response();
        if matches!(self, Self::Unavailable(_)) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The shape of every error reply, for the OpenAPI document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    /// The HTTP status again.
    #[serde(rename = "statusCode")]
    status_code: u16,
    /// A word for programs, as `validation_failed`.
    error: String,
    /// A sentence for people.
    message: String,
    /// What is wrong where; for `validation_failed` alone.
    details: Option<Vec<Detail>>,
}
