//! The envelope around every success (management API 1.2).

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// `{"statusCode":200,"message":"OK","data":…}`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Envelope<T> {
    /// The HTTP status again.
    #[serde(rename = "statusCode")]
    status_code: u16,
    /// `OK`.
    message: &'static str,
    /// What was asked for.
    data: T,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Paged<T> {
    /// The rows of this page.
    pub(crate) data: Vec<T>,
    /// Where this page stands.
    pub(crate) meta: PageMeta,
}

/// Where a page stands in its list.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PageMeta {
    /// Rows in the whole list.
    pub(crate) total: u64,
    /// This page, from 1.
    pub(crate) page: u64,
    /// Pages in the whole list, 0 when it is empty.
    #[serde(rename = "pageCount")]
    pub(crate) page_count: u64,
}

/// What handlers return.
pub(crate) type Reply<T> = Result<Json<Envelope<T>>, ApiError>;

/// 200.
pub(crate) fn ok<T>(data: T) -> Reply<T> {
    Ok(Json(Envelope { status_code: 200, message: "OK", data }))
}
