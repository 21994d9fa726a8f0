//! Rollouts (management API 9).

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::caller::Caller;
use crate::db::{FromRow, PgConnection, query_as};
use crate::error::ApiError;
use crate::values::new_part_id;

mod config;
pub(crate) mod create;
pub(crate) mod list;

/// A rollout of a flag in an environment.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct Rollout {
    id: Uuid,
    flag_id: Uuid,
    environment_id: Uuid,
    /// `off`, `percentage`, `variant` or `gradual`.
    strategy: String,
    /// The strategy again, and its members.
    #[schema(value_type = Object)]
    config: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
}

/// Stores a rollout with a sound `config`.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    caller: &Caller,
    flag: Uuid,
    environment: Uuid,
    config: &Value,
) -> Result<Rollout, ApiError> {
    Ok(query_as(
        "INSERT INTO rollouts (id, flag_id, environment_id, organization_id, strategy, config)
         VALUES ($1, $2, $3, $4, $5, $6::json)
         RETURNING id, flag_id, environment_id, strategy, config, created_at, updated_at, deleted_at",
    )
    .bind(new_part_id(flag))
    .bind(flag)
    .bind(environment)
    .bind(caller.organization)
    .bind(config["strategy"].as_str())
    .bind(config.to_string())
    .fetch_one(connection)
    .await?)
}
