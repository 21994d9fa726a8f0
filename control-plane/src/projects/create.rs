//! PRJ-1: `POST /projects`.

use axum::extract::State;
use rand::RngCore;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Project, SELECT};
use crate::ControlPlane;
use crate::attributes::PRIVATE_KEYS;
use crate::caller::{Caller, Editor};
use crate::db::{Tx, query, query_as};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::publish::{FIRST_SNAPSHOT, notify};
use crate::reply::{Envelope, Reply, created};
use crate::request::Body;
use crate::scope::{Write, writable};
use crate::text::{check_description, check_name, is_key};

/// A project to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewProject {
    name: String,
    /// Of letters, digits, dots, underscores and dashes, beginning with a letter or digit; at most 128.
    #[serde(rename = "projectKey")]
    project_key: String,
    description: Option<String>,
}

/// Creates a project with the environments Live (the default one) and Staging.
#[utoipa::path(post, path = "/projects", tag = "Projects", request_body = NewProject, responses(
    (status = 201, body = Envelope<Project>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, description = "Role, or the plan's projects", body = ErrorBody),
    (status = 409, description = "projectKey taken", body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Body(request): Body<NewProject>,
) -> Reply<Project> {
    let mut problems = Problems::default();
    check_name(&mut problems, "name", &request.name);
    check_description(&mut problems, "description", request.description.as_deref());
    let key_rule = "must be 1 to 128 letters, digits, dots, underscores or dashes, the first a letter or digit";
    problems.check(is_key(&request.project_key), "projectKey", key_rule);
    problems.finish()?;

    let mut tx = plane.pool().begin().await?;
    check_plan(&mut tx, &caller).await?;
    let project = Uuid::now_v7();
    query("INSERT INTO projects (id, organization_id, name, project_key, description) VALUES ($1, $2, $3, $4, $5)")
        .bind(project)
        .bind(caller.organization)
        .bind(&request.name)
        .bind(&request.project_key)
        .bind(&request.description)
        .execute(&mut *tx)
        .await?;
    add_environment(&mut tx, &caller, project, "Live", "live", true).await?;
    add_environment(&mut tx, &caller, project, "Staging", "staging", false).await?;
    let mut write = Write { tx, caller, project };
    write.audit("project.created", json!({"name": request.name, "projectKey": request.project_key})).await?;
    let row = query_as(&format!("{SELECT} WHERE p.id = $1 AND p.organization_id = $2"))
        .bind(project)
        .bind(caller.organization)
        .fetch_one(&mut *write.tx)
        .await?;
    write.tx.commit().await?;
    created(row)
}

/// Locks the organization and refuses when its plan has no room for another project.
async fn check_plan(tx: &mut Tx, caller: &Caller) -> Result<(), ApiError> {
    let (status, limit): (String, Option<i64>) = query_as(
        "SELECT o.subscription_status, l.max_projects FROM organizations o JOIN plans l ON l.id = o.plan_id
         WHERE o.id = $1 AND o.deleted_at IS NULL FOR NO KEY UPDATE OF o",
    )
    .bind(caller.organization)
    .fetch_optional(&mut **tx)
    .await?
    .ok_or(ApiError::NotFound("Organization"))?;
    writable(&status)?;
    let (used,): (i64,) = query_as(
        "SELECT count(*) FROM projects WHERE organization_id = $1 AND archived_at IS NULL AND deleted_at IS NULL",
    )
    .bind(caller.organization)
    .fetch_one(&mut **tx)
    .await?;
    match limit {
        Some(limit) if used >= limit => Err(ApiError::PlanLimit { what: "projects", limit, used }),
        _ => Ok(()),
    }
}

/// An environment with its first snapshot, and the key that makes its pseudonyms (data plane 11).
async fn add_environment(
    tx: &mut Tx,
    caller: &Caller,
    project: Uuid,
    name: &str,
    slug: &str,
    is_default: bool,
) -> Result<(), ApiError> {
    let environment = Uuid::now_v7();
    query(
        "INSERT INTO environments (id, project_id, organization_id, name, slug, is_default)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(environment)
    .bind(project)
    .bind(caller.organization)
    .bind(name)
    .bind(slug)
    .bind(is_default)
    .execute(&mut **tx)
    .await?;
    let mut pseudonym_key = [0_u8; 32];
    rand::rng().fill_bytes(&mut pseudonym_key);
    query(&format!(
        "INSERT INTO environment_snapshots
            (organization_id, environment_id, project_id, compiled, pseudonym_key_id, pseudonym_key, private_attributes)
         VALUES ($1, $2, $3, $4, $5, $6, {PRIVATE_KEYS})"
    ))
    .bind(caller.organization)
    .bind(environment)
    .bind(project)
    .bind(FIRST_SNAPSHOT)
    .bind(Uuid::now_v7())
    .bind(pseudonym_key.as_slice())
    .execute(&mut **tx)
    .await?;
    notify(tx, "flagmint_config", environment).await
}
