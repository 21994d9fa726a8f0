//! RUL-1: `POST /projects/{projectId}/envs/{envId}/flags/{flagId}/targeting-rules`.

use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Rule, SELECT};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::conditions::{self, Condition};
use crate::db::{query, query_as, query_scalar};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::publish::publish;
use crate::reply::{Envelope, Reply, created};
use crate::request::{Body, Ids};
use crate::scope::{self, Write};
use crate::text::check_name;
use crate::values::new_part_id;

/// A rule to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewRule {
    /// `segment` or `custom`.
    kind: String,
    name: Option<String>,
    /// Of a custom rule.
    conditions: Option<Vec<Condition>>,
    /// Of a segment rule.
    segment_id: Option<Uuid>,
    /// What is served; or else `rollout_id`.
    variation_id: Option<Uuid>,
    /// What decides; or else `variation_id`.
    rollout_id: Option<Uuid>,
    /// Lower ones run first; 0 if left out.
    order_index: Option<i32>,
    /// `AND` (the default), `OR` or `NOT`.
    logical_op: Option<String>,
}

/// Adds a rule to a flag in an environment.
#[utoipa::path(post, path = "/projects/{projectId}/envs/{envId}/flags/{flagId}/targeting-rules",
    tag = "Targeting rules", request_body = NewRule,
    params(("projectId" = Uuid, Path), ("envId" = Uuid, Path), ("flagId" = Uuid, Path)), responses(
    (status = 201, body = Envelope<Rule>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 404, description = "Segment, variation or rollout not of this flag, environment or project",
        body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<3>,
    Body(request): Body<NewRule>,
) -> Reply<Rule> {
    let [project, environment, flag] = ids;
    let logical_op = check(&request)?;
    let mut write = Write::begin(&plane, caller, project).await?;
    scope::environment(&mut write.tx, &caller, project, environment).await?;
    let head = scope::flag(&mut write.tx, &caller, project, flag).await?;
    check_references(&mut write, &request, environment, flag).await?;
    let conditions: Vec<Condition> =
        request.conditions.unwrap_or_default().into_iter().map(Condition::of_rule).collect();
    let rule = new_part_id(flag);
    query(
        "INSERT INTO targeting_rules (id, flag_id, environment_id, project_id, organization_id, kind, name, conditions,
                                      order_index, segment_id, variation_id, rollout_id, logical_op)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10, $11, $12, $13)",
    )
    .bind(rule)
    .bind(flag)
    .bind(environment)
    .bind(project)
    .bind(caller.organization)
    .bind(&request.kind)
    .bind(&request.name)
    .bind(json!(conditions).to_string())
    .bind(request.order_index.unwrap_or(0))
    .bind(request.segment_id)
    .bind(request.variation_id)
    .bind(request.rollout_id)
    .bind(logical_op)
    .execute(&mut *write.tx)
    .await?;
    let payload = json!({"targeting_rule_id": rule, "flag_id": flag, "flag_key": head.key,
        "environment_id": environment, "kind": request.kind, "name": request.name, "conditions": conditions,
        "segment_id": request.segment_id, "variation_id": request.variation_id, "rollout_id": request.rollout_id});
    write.audit("targeting_rule.created", payload).await?;
    publish(&mut write, &[environment]).await?;
    let row = query_as(&format!("{SELECT} WHERE r.id = $1 AND r.organization_id = $2"))
        .bind(rule)
        .bind(caller.organization)
        .fetch_one(&mut *write.tx)
        .await?;
    write.tx.commit().await?;
    plane.meter(caller.organization, project, Some(environment));
    created(row)
}

fn check(request: &NewRule) -> Result<&'static str, ApiError> {
    let mut problems = Problems::default();
    if let Some(name) = &request.name {
        check_name(&mut problems, "name", name);
    }
    let conditions = request.conditions.as_deref().unwrap_or_default();
    conditions::check(&mut problems, "conditions", conditions);
    match request.kind.as_str() {
        "segment" => {
            problems.check(request.segment_id.is_some(), "segment_id", "is required for a segment rule");
            problems.check(conditions.is_empty(), "conditions", "must be empty for a segment rule");
        }
        "custom" => {
            problems.check(request.segment_id.is_none(), "segment_id", "must be left out for a custom rule");
            problems.check(!conditions.is_empty(), "conditions", "must not be empty for a custom rule");
        }
        _ => problems.add("kind", "must be segment or custom"),
    }
    let one = request.variation_id.is_some() != request.rollout_id.is_some();
    problems.check(one, "variation_id", "exactly one of variation_id and rollout_id must be given");
    let logical_op = conditions::logical_op(request.logical_op.as_deref().unwrap_or("AND"));
    problems.check(logical_op.is_some(), "logical_op", "must be AND, OR or NOT");
    problems.finish()?;
    Ok(logical_op.unwrap_or("AND"))
}

/// What the rule names must be of this project, flag and environment.
async fn check_references(write: &mut Write, request: &NewRule, environment: Uuid, flag: Uuid) -> Result<(), ApiError> {
    let references = [
        (
            "Segment",
            request.segment_id,
            "SELECT 1 FROM segments
            WHERE id = $1 AND organization_id = $2 AND project_id = $3 AND deleted_at IS NULL",
        ),
        (
            "Variation",
            request.variation_id,
            "SELECT 1 FROM variations
            WHERE id = $1 AND organization_id = $2 AND project_id = $3 AND flag_id = $4 AND deleted_at IS NULL",
        ),
        (
            "Rollout",
            request.rollout_id,
            "SELECT 1 FROM rollouts
            WHERE id = $1 AND organization_id = $2 AND flag_id = $4 AND environment_id = $5 AND deleted_at IS NULL",
        ),
    ];
    for (what, id, sql) in references {
        let Some(id) = id else { continue };
        // The parameters a statement does not name still need a type.
        let sql = format!("{sql} AND $3::uuid IS NOT NULL AND $4::uuid IS NOT NULL AND $5::uuid IS NOT NULL");
        let found: Option<i32> = query_scalar(&sql)
            .bind(id)
            .bind(write.caller.organization)
            .bind(write.project)
            .bind(flag)
            .bind(environment)
            .fetch_optional(&mut *write.tx)
            .await?;
        found.ok_or(ApiError::NotFound(what))?;
    }
    Ok(())
}
