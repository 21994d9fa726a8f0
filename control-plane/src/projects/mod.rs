//! Projects and their environments (management API 4).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::{FromRow, Json};

pub(crate) mod create;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod list_environments;

/// A project with its environments, the oldest first.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct Project {
    id: Uuid,
    name: String,
    #[serde(rename = "projectKey")]
    project_key: String,
    description: Option<String>,
    organization_id: Uuid,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    archived_at: Option<DateTime<Utc>>,
    #[schema(value_type = Vec<Environment>)]
    environments: Json<Vec<Environment>>,
}

/// An environment.
#[derive(Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub(crate) struct Environment {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    slug: String,
    is_default: bool,
    project_id: Uuid,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    pub(crate) log_raw_context: bool,
}

/// What a [`Project`] is read from.
const SELECT: &str = "
    SELECT p.id, p.name, p.project_key, p.description, p.organization_id, p.created_at, p.updated_at, p.archived_at,
           (SELECT COALESCE(json_agg(json_build_object(
                'id', e.id, 'name', e.name, 'slug', e.slug, 'is_default', e.is_default, 'project_id', e.project_id,
                'created_at', e.created_at, 'updated_at', e.updated_at, 'log_raw_context', e.log_raw_context)
                ORDER BY e.created_at, e.id), '[]'::json)
            FROM environments e
            WHERE e.project_id = p.id AND e.organization_id = p.organization_id AND e.deleted_at IS NULL
           ) AS environments
    FROM projects p";
