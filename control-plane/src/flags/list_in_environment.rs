//! FLG-4: `GET /projects/{projectId}/environments/{envId}/flags`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{FLAG_VALUE, FlagValue, LISTED, SORTABLE};
use crate::ControlPlane;
use crate::caller::Viewer;
use crate::db::{FromRow, Json, query_as, query_scalar};
use crate::error::ErrorBody;
use crate::paging::{Paging, QueryMembers};
use crate::reply::{Envelope, Paged, Reply, ok};
use crate::request::Ids;
use crate::scope;

/// A flag as one environment has it.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct FlagRow {
    id: Uuid,
    name: String,
    key: String,
    r#type: String,
    is_active: bool,
    client_side_enabled: bool,
    analytics_enabled: bool,
    #[schema(value_type = Object)]
    metadata: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
    description: Option<String>,
    #[schema(value_type = FlagValue)]
    flag_value: Json<FlagValue>,
}

/// The flags of an environment, archived and deleted ones left out.
#[utoipa::path(get, path = "/projects/{projectId}/environments/{envId}/flags", tag = "Flags", params(
    ("projectId" = Uuid, Path), ("envId" = Uuid, Path), ("template" = Option<String>, Query),
    ("page" = Option<i64>, Query), ("limit" = Option<i64>, Query), ("offset" = Option<i64>, Query),
    ("q" = Option<String>, Query), ("sortBy" = Option<String>, Query), ("sortDirection" = Option<String>, Query),
), responses((status = 200, body = Envelope<Paged<FlagRow>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn list_in_environment(
    State(plane): State<ControlPlane>,
    Viewer(caller): Viewer,
    Ids(ids): Ids<2>,
    query: QueryMembers,
) -> Reply<Paged<FlagRow>> {
    let [project, environment] = ids;
    let paging = Paging::parse(&query, SORTABLE)?;
    let template = query.get("template");
    let mut connection = plane.pool().acquire().await?;
    scope::environment(&mut connection, &caller, project, environment).await?;
    let matches = format!("{LISTED} AND ($4::text IS NULL OR f.metadata ->> 'flag_template' = $4)");
    let total = query_scalar(&format!("SELECT count(*) FROM flags f WHERE {matches}"))
        .bind(project)
        .bind(caller.organization)
        .bind(&paging.q)
        .bind(template)
        .fetch_one(&mut *connection)
        .await?;
    let rows = query_as(&format!(
        "SELECT f.id, f.name, f.key, f.type, f.is_active, f.client_side_enabled, f.analytics_enabled, f.metadata,
                f.created_at, f.updated_at, f.deleted_at, f.description, {FLAG_VALUE} AS flag_value
         FROM flags f JOIN (SELECT $5::uuid AS id) e ON true WHERE {matches} {} LIMIT $6 OFFSET $7",
        paging.order_by
    ))
    .bind(project)
    .bind(caller.organization)
    .bind(&paging.q)
    .bind(template)
    .bind(environment)
    .bind(paging.limit)
    .bind(paging.offset)
    .fetch_all(&mut *connection)
    .await?;
    ok(paging.paged(rows, total))
}
