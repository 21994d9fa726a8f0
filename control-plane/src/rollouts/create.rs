//! ROL-1: `POST /projects/{projectId}/flags/{flagId}/environments/{envId}/rollouts`.

use axum::extract::State;
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::Rollout;
use super::config::NewRollout;
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::query_scalar;
use crate::error::ErrorBody;
use crate::publish::publish;
use crate::reply::{Envelope, Reply, created};
use crate::request::{Body, Ids};
use crate::scope::{self, Write};
use crate::values::FlagType;

/// Adds a rollout to a flag in an environment.
#[utoipa::path(post, path = "/projects/{projectId}/flags/{flagId}/environments/{envId}/rollouts", tag = "Rollouts",
    request_body = NewRollout, params(("projectId" = Uuid, Path), ("flagId" = Uuid, Path), ("envId" = Uuid, Path)),
    responses((status = 201, body = Envelope<Rollout>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<3>,
    Body(request): Body<NewRollout>,
) -> Reply<Rollout> {
    let [project, flag, environment] = ids;
    let mut write = Write::begin(&plane, caller, project).await?;
    let head = scope::flag(&mut write.tx, &caller, project, flag).await?;
    scope::environment(&mut write.tx, &caller, project, environment).await?;
    let variations: Vec<Uuid> =
        query_scalar("SELECT id FROM variations WHERE flag_id = $1 AND organization_id = $2 AND deleted_at IS NULL")
            .bind(flag)
            .bind(caller.organization)
            .fetch_all(&mut *write.tx)
            .await?;
    let config = request.config(FlagType::parse(&head.r#type), &variations, Utc::now())?;
    let row = super::insert(&mut write.tx, &caller, flag, environment, &config).await?;
    let payload = json!({"rollout_id": row.id, "flag_id": flag, "flag_key": head.key, "environment_id": environment,
        "config": config});
    write.audit("rollout.created", payload).await?;
    publish(&mut write, &[environment]).await?;
    write.tx.commit().await?;
    plane.meter(caller.organization, project, Some(environment));
    created(row)
}
