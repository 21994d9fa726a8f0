//! SEG-1: `POST /projects/{projectId}/segments`.

use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{COLUMNS, Segment};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::conditions::{self, Condition};
use crate::db::{query_as, query_scalar};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::reply::{Envelope, Reply, created};
use crate::request::{Body, Ids};
use crate::scope::Write;
use crate::text::{check_description, check_name, is_segment_key, kebab, unique};

/// A segment to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewSegment {
    name: String,
    /// Of letters, digits, dashes and underscores; made from the name if left out.
    key: Option<String>,
    description: Option<String>,
    /// `AND`, `OR` or `NOT`.
    logical_op: String,
    rules: Vec<Condition>,
    force: Option<bool>,
}

/// Creates a segment. No rule uses it yet, so nothing is published.
#[utoipa::path(post, path = "/projects/{projectId}/segments", tag = "Segments", request_body = NewSegment,
    params(("projectId" = Uuid, Path)), responses(
    (status = 201, body = Envelope<Segment>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, description = "Key taken", body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<1>,
    Body(request): Body<NewSegment>,
) -> Reply<Segment> {
    let [project] = ids;
    let logical_op = check(&request)?;
    let mut write = Write::begin(&plane, caller, project).await?;
    let key = match request.key {
        Some(key) => key,
        None => free_key(&mut write, &request.name).await?,
    };
    let rules: Vec<Condition> = request.rules.into_iter().map(Condition::of_segment).collect();
    let row: Segment = query_as(&format!(
        "INSERT INTO segments (id, project_id, organization_id, key, name, description, rules, logical_op, force)
         VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9) RETURNING {COLUMNS}"
    ))
    .bind(Uuid::now_v7())
    .bind(project)
    .bind(caller.organization)
    .bind(&key)
    .bind(&request.name)
    .bind(&request.description)
    .bind(json!(rules).to_string())
    .bind(logical_op)
    .bind(request.force.unwrap_or(false))
    .fetch_one(&mut *write.tx)
    .await?;
    write.audit("segment.created", json!({"segment_id": row.id, "key": key, "name": request.name})).await?;
    write.tx.commit().await?;
    plane.meter(caller.organization, project, None);
    created(row)
}

fn check(request: &NewSegment) -> Result<&'static str, ApiError> {
    let mut problems = Problems::default();
    check_name(&mut problems, "name", &request.name);
    check_description(&mut problems, "description", request.description.as_deref());
    let rule = "must be 1 to 128 letters, digits, dashes or underscores";
    problems.check(request.key.as_deref().is_none_or(is_segment_key), "key", rule);
    conditions::check(&mut problems, "rules", &request.rules);
    let logical_op = conditions::logical_op(&request.logical_op);
    problems.check(logical_op.is_some(), "logical_op", "must be AND, OR or NOT");
    problems.finish()?;
    logical_op.ok_or_else(|| ApiError::invalid("logical_op", "must be AND, OR or NOT"))
}

async fn free_key(write: &mut Write, name: &str) -> Result<String, ApiError> {
    let key = kebab(name, "segment");
    let taken: Vec<String> = query_scalar(
        "SELECT key FROM segments WHERE project_id = $1 AND organization_id = $2 AND deleted_at IS NULL
           AND (key = $3 OR starts_with(key, $3 || '-'))",
    )
    .bind(write.project)
    .bind(write.caller.organization)
    .bind(&key)
    .fetch_all(&mut *write.tx)
    .await?;
    Ok(unique(key, |key| taken.iter().any(|other| other == key)))
}
