//! Variations (management API 7).

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::caller::Caller;
use crate::db::{FromRow, PgConnection, query_as};
use crate::error::ApiError;

mod change;
pub(crate) mod list;
pub(crate) mod update;

/// One of the values a flag can have.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
pub(crate) struct Variation {
    id: Uuid,
    flag_id: Uuid,
    project_id: Uuid,
    key: String,
    name: String,
    description: Option<String>,
    /// The flag's.
    r#type: String,
    value: Value,
    is_default: bool,
    order_index: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
}

/// The flag's variations by `order_index`.
async fn of_flag(connection: &mut PgConnection, caller: &Caller, flag: Uuid) -> Result<Vec<Variation>, ApiError> {
    Ok(query_as(
        "SELECT v.id, v.flag_id, v.project_id, v.key, v.name, v.description, f.type, v.value, v.is_default,
                v.order_index, v.created_at, v.updated_at, v.deleted_at
         FROM variations v JOIN flags f ON f.id = v.flag_id
         WHERE v.flag_id = $1 AND v.organization_id = $2 AND v.deleted_at IS NULL
         ORDER BY v.order_index, v.created_at, v.id",
    )
    .bind(flag)
    .bind(caller.organization)
    .fetch_all(connection)
    .await?)
}
