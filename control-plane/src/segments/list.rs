//! SEG-2: `GET /projects/{projectId}/segments`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::COLUMNS;
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::conditions::Condition;
use crate::db::{FromRow, Json, query_as, query_scalar};
use crate::error::ErrorBody;
use crate::paging::{Paging, QueryMembers};
use crate::reply::{Envelope, Paged, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// A segment in a list.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct SegmentRow {
    id: Uuid,
    name: String,
    project_id: Uuid,
    key: String,
    description: Option<String>,
    #[schema(value_type = Vec<Condition>)]
    rules: Json<Vec<Condition>>,
    logical_op: String,
    force: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// How many rules the segment has.
    rule_count: i32,
}

const SORTABLE: &[(&str, &str)] = &[
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("name", "name"),
    ("key", "key"),
    ("logical_op", "logical_op"),
    ("force", "force"),
    ("rule_count", "rule_count"),
    ("id", "id"),
];

const MATCHES: &str = "project_id = $1 AND organization_id = $2 AND deleted_at IS NULL
    AND ($3 = '' OR position($3 IN lower(name)) > 0 OR position($3 IN lower(key)) > 0)";

/// The project's segments.
#[utoipa::path(get, path = "/projects/{projectId}/segments", tag = "Segments", params(("projectId" = Uuid, Path),
    ("page" = Option<i64>, Query), ("limit" = Option<i64>, Query), ("offset" = Option<i64>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
), responses((status = 200, body = Envelope<Paged<SegmentRow>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<1>,
    query: QueryMembers,
) -> Reply<Paged<SegmentRow>> {
    let [project] = ids;
    let paging = Paging::parse(&query, SORTABLE)?;
    let mut connection = plane.pool().acquire().await?;
    scope::project(&mut connection, &caller, project).await?;
    let total = query_scalar(&format!("SELECT count(*) FROM segments WHERE {MATCHES}"))
        .bind(project)
        .bind(caller.organization)
        .bind(&paging.q)
        .fetch_one(&mut *connection)
        .await?;
    let rows = query_as(&format!(
        "SELECT {COLUMNS}, json_array_length(rules) AS rule_count
         FROM segments WHERE {MATCHES} {} LIMIT $4 OFFSET $5",
        paging.order_by
    ))
    .bind(project)
    .bind(caller.organization)
    .bind(&paging.q)
    .bind(paging.limit)
    .bind(paging.offset)
    .fetch_all(&mut *connection)
    .await?;
    ok(paging.paged(rows, total))
}
