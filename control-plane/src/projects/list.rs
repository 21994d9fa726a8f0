//! PRJ-2: `GET /projects`.

use axum::extract::State;

use super::{Project, SELECT};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::{query_as, query_scalar};
use crate::error::ErrorBody;
use crate::paging::{Paging, QueryMembers};
use crate::reply::{Envelope, Paged, Reply, ok};

const SORTABLE: &[(&str, &str)] = &[
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("name", "name"),
    ("projectKey", "project_key"),
    ("id", "id"),
];

const MATCHES: &str = "p.organization_id = $1 AND p.archived_at IS NULL AND p.deleted_at IS NULL
    AND ($2 = '' OR position($2 IN lower(p.name)) > 0 OR position($2 IN lower(p.project_key)) > 0)";

/// The organization's projects, archived ones left out.
#[utoipa::path(get, path = "/projects", tag = "Projects", params(
    ("page" = Option<i64>, Query), ("limit" = Option<i64>, Query), ("offset" = Option<i64>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
), responses((status = 200, body = Envelope<Paged<Project>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    query: QueryMembers,
) -> Reply<Paged<Project>> {
    let paging = Paging::parse(&query, SORTABLE)?;
    let total = query_scalar(&format!("SELECT count(*) FROM projects p WHERE {MATCHES}"))
        .bind(caller.organization)
        .bind(&paging.q)
        .fetch_one(plane.pool())
        .await?;
    let rows = query_as(&format!("{SELECT} WHERE {MATCHES} {} LIMIT $3 OFFSET $4", paging.order_by))
        .bind(caller.organization)
        .bind(&paging.q)
        .bind(paging.limit)
        .bind(paging.offset)
        .fetch_all(plane.pool())
        .await?;
    ok(paging.paged(rows, total))
}
