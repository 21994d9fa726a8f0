//! KEY-3: `DELETE /api-keys/{projectId}/{keyId}`.

use axum::extract::State;
use serde_json::json;

use super::{ApiKey, SELECT};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::{query, query_as};
use crate::error::{ApiError, ErrorBody};
use crate::publish::notify;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Ids;
use crate::scope::Write;

/// Revokes a key at once.
#[utoipa::path(delete, path = "/api-keys/{projectId}/{keyId}", tag = "API keys",
    params(("projectId" = Uuid, Path), ("keyId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<ApiKey>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, description = "Revoked already", body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn revoke(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<2>,
) -> Reply<ApiKey> {
    let [project, key] = ids;
    let mut write = Write::begin(&plane, caller, project).await?;
    let matches = "WHERE k.id = $1 AND k.project_id = $2 AND k.organization_id = $3";
    let select = format!("{SELECT} {matches}");
    let found: Option<ApiKey> =
        query_as(&select).bind(key).bind(project).bind(caller.organization).fetch_optional(&mut *write.tx).await?;
    if found.ok_or(ApiError::NotFound("API key"))?.revoked_at.is_some() {
        return Err(ApiError::conflict("the key is revoked already"));
    }
    query(&format!("UPDATE api_keys k SET revoked_at = now() {matches}"))
        .bind(key)
        .bind(project)
        .bind(caller.organization)
        .execute(&mut *write.tx)
        .await?;
    let row: ApiKey =
        query_as(&select).bind(key).bind(project).bind(caller.organization).fetch_one(&mut *write.tx).await?;
    write.audit("api_key.revoked", json!({"key_id": key, "name": row.name, "masked": row.masked})).await?;
    notify(&mut write.tx, "flagmint_keys", key).await?;
    write.tx.commit().await?;
    ok(row)
}
