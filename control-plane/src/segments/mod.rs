//! Segments (management API 10).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::conditions::Condition;
use crate::db::{FromRow, Json};

pub(crate) mod create;
pub(crate) mod list;

/// A reusable group of conditions.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub(crate) struct Segment {
    id: Uuid,
    name: String,
    project_id: Uuid,
    key: String,
    description: Option<String>,
    #[schema(value_type = Vec<Condition>)]
    rules: Json<Vec<Condition>>,
    /// `AND`, `OR` or `NOT` (not all of the rules hold).
    logical_op: String,
    /// Match always.
    force: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The columns of a [`Segment`].
const COLUMNS: &str = "id, name, project_id, key, description, rules, logical_op, force, created_at, updated_at";
