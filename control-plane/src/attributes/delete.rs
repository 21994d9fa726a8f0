//! ATT-6: `DELETE /api/attributes/{key}`.

use axum::extract::State;
use serde_json::json;

use super::{Attribute, find_own, publish_private};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::query_scalar;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::Key;
use crate::scope::OrganizationWrite;

/// Deletes an attribute of the organization. Rules that use its name keep working; if it was private, it is so no longer.
#[utoipa::path(delete, path = "/api/attributes/{key}", tag = "Attributes", params(("key" = String, Path)), responses(
    (status = 200, body = Envelope<Attribute>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, description = "Role, or a system attribute", body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn delete(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Key(key): Key,
) -> Reply<Attribute> {
    let mut write = OrganizationWrite::begin(&plane, caller).await?;
    let mut attribute = find_own(&mut write.tx, &caller, &key).await?;
    attribute.deleted_at = query_scalar(
        "UPDATE attributes SET deleted_at = now(), updated_at = now() WHERE id = $1 AND organization_id = $2
         RETURNING deleted_at",
    )
    .bind(attribute.id)
    .bind(caller.organization)
    .fetch_one(&mut *write.tx)
    .await?;
    let payload = json!({"attribute_id": attribute.id, "key": key, "private": attribute.private});
    write.audit("attribute.deleted", payload).await?;
    publish_private(&mut write).await?;
    write.tx.commit().await?;
    ok(attribute)
}
