//! FLG-2: `GET /projects/{projectId}/flags`.

use axum::extract::State;

use super::{Flag, LISTED, SORTABLE, select};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::{query_as, query_scalar};
use crate::error::ErrorBody;
use crate::paging::{Paging, QueryMembers};
use crate::reply::{Envelope, Paged, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// The project's flags, archived and deleted ones left out.
#[utoipa::path(get, path = "/projects/{projectId}/flags", tag = "Flags", params(("projectId" = Uuid, Path),
    ("page" = Option<i64>, Query), ("limit" = Option<i64>, Query), ("offset" = Option<i64>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
), responses((status = 200, body = Envelope<Paged<Flag>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<1>,
    query: QueryMembers,
) -> Reply<Paged<Flag>> {
    let [project] = ids;
    let paging = Paging::parse(&query, SORTABLE)?;
    let mut connection = plane.pool().acquire().await?;
    scope::project(&mut connection, &caller, project).await?;
    let total = query_scalar(&format!("SELECT count(*) FROM flags f WHERE {LISTED}"))
        .bind(project)
        .bind(caller.organization)
        .bind(&paging.q)
        .fetch_one(&mut *connection)
        .await?;
    let rows = query_as(&format!("{} WHERE {LISTED} {} LIMIT $4 OFFSET $5", select(), paging.order_by))
        .bind(project)
        .bind(caller.organization)
        .bind(&paging.q)
        .bind(paging.limit)
        .bind(paging.offset)
        .fetch_all(&mut *connection)
        .await?;
    ok(paging.paged(rows, total))
}
