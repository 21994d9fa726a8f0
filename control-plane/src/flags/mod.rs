//! Flags (management API 5).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::{FromRow, Json};

pub(crate) mod create;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod list_in_environment;

/// A flag with its state in each environment.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct Flag {
    id: Uuid,
    project_id: Uuid,
    name: String,
    key: String,
    /// `boolean`, `string`, `number` or `json`.
    r#type: String,
    description: Option<String>,
    is_active: bool,
    client_side_enabled: bool,
    analytics_enabled: bool,
    #[schema(value_type = Object)]
    metadata: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    archived_at: Option<DateTime<Utc>>,
    deleted_at: Option<DateTime<Utc>>,
    #[schema(value_type = Vec<FlagEnvironment>)]
    environments: Json<Vec<FlagEnvironment>>,
}

/// A flag in one environment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FlagEnvironment {
    id: Uuid,
    name: String,
    slug: String,
    is_default: bool,
    flag_value: FlagValue,
}

/// What is configured for a flag in an environment, in numbers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FlagValue {
    targeting_rules_count: i64,
    variations_count: i64,
    segments_count: i64,
    r#type: String,
    off_variation_id: Option<Uuid>,
}

/// The [`FlagValue`] of flag `f` in environment `e`.
const FLAG_VALUE: &str = "json_build_object(
    'targeting_rules_count', (SELECT count(*) FROM targeting_rules r
        WHERE r.flag_id = f.id AND r.environment_id = e.id AND r.deleted_at IS NULL),
    'variations_count', (SELECT count(*) FROM variations x WHERE x.flag_id = f.id AND x.deleted_at IS NULL),
    'segments_count', (SELECT count(DISTINCT r.segment_id) FROM targeting_rules r
        WHERE r.flag_id = f.id AND r.environment_id = e.id AND r.deleted_at IS NULL),
    'type', f.type,
    'off_variation_id', (SELECT v.off_variation_id FROM flag_values v
        WHERE v.flag_id = f.id AND v.environment_id = e.id AND v.deleted_at IS NULL))";

/// `SELECT` of [`Flag`]s, to be followed by conditions on `f`.
fn select() -> String {
    format!(
        "SELECT f.id, f.project_id, f.name, f.key, f.type, f.description, f.is_active, f.client_side_enabled,
                f.analytics_enabled, f.metadata, f.created_at, f.updated_at, f.archived_at, f.deleted_at,
                (SELECT COALESCE(json_agg(json_build_object('id', e.id, 'name', e.name, 'slug', e.slug,
                    'is_default', e.is_default, 'flag_value', {FLAG_VALUE}) ORDER BY e.created_at, e.id), '[]'::json)
                 FROM environments e WHERE e.project_id = f.project_id AND e.deleted_at IS NULL) AS environments
         FROM flags f"
    )
}

/// Fields that lists of flags can be sorted by.
const SORTABLE: &[(&str, &str)] = &[
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("name", "name"),
    ("key", "key"),
    ("type", "type"),
    ("is_active", "is_active"),
    ("client_side_enabled", "client_side_enabled"),
    ("analytics_enabled", "analytics_enabled"),
    ("id", "id"),
];

/// Which flags of a project a list shows, with the project, organization and search text as `$1` to `$3`.
const LISTED: &str = "f.project_id = $1 AND f.organization_id = $2 AND f.archived_at IS NULL AND f.deleted_at IS NULL
    AND ($3 = '' OR position($3 IN lower(f.name)) > 0 OR position($3 IN lower(f.key)) > 0)";
