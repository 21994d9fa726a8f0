//! Targeting rules (management API 8).

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::conditions::Condition;
use crate::db::{FromRow, Json};
use crate::segments::Segment;

pub(crate) mod create;
pub(crate) mod list;

/// A targeting rule, with its segment if it has one.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct Rule {
    id: Uuid,
    flag_id: Uuid,
    environment_id: Uuid,
    project_id: Uuid,
    /// `segment` or `custom`.
    kind: String,
    name: Option<String>,
    #[schema(value_type = Vec<Condition>)]
    conditions: Json<Vec<Condition>>,
    order_index: i32,
    segment_id: Option<Uuid>,
    variation_id: Option<Uuid>,
    rollout_id: Option<Uuid>,
    logical_op: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
    segment_name: Option<String>,
    segment_description: Option<String>,
    #[schema(value_type = Option<Vec<Condition>>)]
    segment_rules: Option<Value>,
    segment_logical_op: Option<String>,
    segment_key: Option<String>,
    #[schema(value_type = Option<Segment>)]
    segment: Option<Json<Segment>>,
}

/// `SELECT` of [`Rule`]s, to be followed by conditions on `r`.
const SELECT: &str = "
    SELECT r.id, r.flag_id, r.environment_id, r.project_id, r.kind, r.name, r.conditions, r.order_index, r.segment_id,
           r.variation_id, r.rollout_id, r.logical_op, r.created_at, r.updated_at, r.deleted_at,
           s.name AS segment_name, s.description AS segment_description, s.rules AS segment_rules,
           s.logical_op AS segment_logical_op, s.key AS segment_key,
           CASE WHEN s.id IS NULL THEN NULL ELSE json_build_object('id', s.id, 'name', s.name,
               'project_id', s.project_id, 'key', s.key, 'description', s.description, 'rules', s.rules,
               'logical_op', s.logical_op, 'force', s.force, 'created_at', s.created_at, 'updated_at', s.updated_at)
           END AS segment
    FROM targeting_rules r
    LEFT JOIN segments s ON s.id = r.segment_id AND s.organization_id = r.organization_id";
