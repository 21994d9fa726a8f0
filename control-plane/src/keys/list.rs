//! KEY-2: `GET /api-keys/{projectId}`.

use axum::extract::State;

use super::{ApiKey, SELECT};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::{query_as, query_scalar};
use crate::error::ErrorBody;
use crate::paging::{Paging, QueryMembers};
use crate::reply::{Envelope, Paged, Reply, ok};
use crate::request::Ids;
use crate::scope;

const SORTABLE: &[(&str, &str)] = &[
    ("created_at", "created_at"),
    ("name", "name"),
    ("environment_name", "environment_name"),
    ("expires_at", "expires_at"),
    ("revoked_at", "revoked_at"),
    ("last_used_at", "last_used_at"),
    ("id", "id"),
];

const MATCHES: &str = "k.project_id = $1 AND k.organization_id = $2
    AND ($3 = '' OR position($3 IN lower(k.name)) > 0)";

/// The project's keys, masked, revoked ones included.
#[utoipa::path(get, path = "/api-keys/{projectId}", tag = "API keys", params(("projectId" = Uuid, Path),
    ("page" = Option<i64>, Query), ("limit" = Option<i64>, Query), ("offset" = Option<i64>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
), responses((status = 200, body = Envelope<Paged<ApiKey>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<1>,
    query: QueryMembers,
) -> Reply<Paged<ApiKey>> {
    let [project] = ids;
    let paging = Paging::parse(&query, SORTABLE)?;
    let mut connection = plane.pool().acquire().await?;
    scope::project(&mut connection, &caller, project).await?;
    let total = query_scalar(&format!("SELECT count(*) FROM api_keys k WHERE {MATCHES}"))
        .bind(project)
        .bind(caller.organization)
        .bind(&paging.q)
        .fetch_one(&mut *connection)
        .await?;
    let rows = query_as(&format!("{SELECT} WHERE {MATCHES} {} LIMIT $4 OFFSET $5", paging.order_by))
        .bind(project)
        .bind(caller.organization)
        .bind(&paging.q)
        .bind(paging.limit)
        .bind(paging.offset)
        .fetch_all(&mut *connection)
        .await?;
    ok(paging.paged(rows, total))
}
