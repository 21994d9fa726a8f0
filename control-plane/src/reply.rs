//! The envelope around every success (management API 1.2).

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// `{"statusCode":200,"message":"OK","data":…}`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// The HTTP status again.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// `OK` or `Created`.
    pub message: String,
    /// What was asked for.
    pub data: T,
    /// What the client should know though the request succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Paged<T> {
    /// The rows of this page.
    pub data: Vec<T>,
    /// Where this page stands.
    pub meta: PageMeta,
}

/// Where a page stands in its list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageMeta {
    /// Rows in the whole list.
    pub total: i64,
    /// This page, from 1.
    pub page: i64,
    /// Pages in the whole list, 0 when it is empty.
    #[serde(rename = "pageCount")]
    pub page_count: i64,
}

/// What handlers return.
pub type Reply<T> = Result<(StatusCode, Json<Envelope<T>>), ApiError>;

/// 200.
pub fn ok<T>(data: T) -> Reply<T> {
    reply(StatusCode::OK, data, Vec::new())
}

/// 200 with warnings.
pub fn ok_with_warnings<T>(data: T, warnings: Vec<String>) -> Reply<T> {
    reply(StatusCode::OK, data, warnings)
}

/// 201.
pub fn created<T>(data: T) -> Reply<T> {
    reply(StatusCode::CREATED, data, Vec::new())
}

fn reply<T>(status: StatusCode, data: T, warnings: Vec<String>) -> Reply<T> {
    let message = status.canonical_reason().unwrap_or("OK").to_owned();
    Ok((status, Json(Envelope { status_code: status.as_u16(), message, data, warnings })))
}
