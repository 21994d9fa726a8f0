//! `DELETE /projects/{projectId}/environments/{envId}/pseudonym-key`: anonymises what was logged (data plane 11).

use axum::extract::State;
use rand::RngCore as _;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::reload;
use crate::ControlPlane;
use crate::caller::Admin;
use crate::db::{query, query_as};
use crate::error::{ApiError, ErrorBody};
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope::Write;

/// Which key went and which came.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PseudonymKeyDestroyed {
    environment_id: Uuid,
    /// The id of the key that is gone.
    destroyed_key_id: Uuid,
    /// What records of the log name it by.
    destroyed_key_number: i32,
    /// The id of the key used from now on.
    pseudonym_key_id: Uuid,
    /// What records name that one by.
    pseudonym_key_number: i32,
}

/// Destroys the key of an environment's pseudonyms and makes another. Whoever was logged under the old one can no longer be told,
/// not even by those who know the targeting key; the same user counts as a new one from now on. This cannot be undone.
#[utoipa::path(delete, path = "/projects/{projectId}/environments/{envId}/pseudonym-key", tag = "Environments",
    params(("projectId" = Uuid, Path), ("envId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<PseudonymKeyDestroyed>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn destroy_pseudonym_key(
    State(plane): State<ControlPlane>,
    Admin(caller): Admin,
    Ids(ids): Ids<2>,
) -> Reply<PseudonymKeyDestroyed> {
    let [project, environment] = ids;
    let mut write = Write::begin(&plane, caller, project).await?;
    let old: Option<(Uuid, i32)> = query_as(
        "SELECT s.pseudonym_key_id, s.pseudonym_key_number FROM environment_snapshots s JOIN environments e ON e.id = s.environment_id
         WHERE e.id = $1 AND e.project_id = $2 AND e.organization_id = $3 AND e.deleted_at IS NULL FOR UPDATE OF s",
    )
    .bind(environment)
    .bind(project)
    .bind(caller.organization)
    .fetch_optional(&mut *write.tx)
    .await?;
    let (old, old_number) = old.ok_or(ApiError::NotFound("Environment"))?;
    let (id, mut key) = (Uuid::now_v7(), [0_u8; 32]);
    rand::rng().fill_bytes(&mut key);
    query(
        "UPDATE environment_snapshots SET pseudonym_key_id = $3, pseudonym_key = $4, pseudonym_key_number = pseudonym_key_number + 1
         WHERE environment_id = $1 AND organization_id = $2",
    )
    .bind(environment)
    .bind(caller.organization)
    .bind(id)
    .bind(key.as_slice())
    .execute(&mut *write.tx)
    .await?;
    let destroyed = PseudonymKeyDestroyed {
        environment_id: environment,
        destroyed_key_id: old,
        destroyed_key_number: old_number,
        pseudonym_key_id: id,
        pseudonym_key_number: old_number + 1,
    };
    write.audit("environment.pseudonym_key_destroyed", json!(destroyed)).await?;
    reload(&mut write, environment).await?;
    write.tx.commit().await?;
    ok(destroyed)
}
