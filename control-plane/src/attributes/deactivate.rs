//! ATT-5: `PUT /api/attributes/{key}/deactivate`.

use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Attribute, changes, find};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::query;
use crate::error::ErrorBody;
use crate::reply::{Envelope, Reply, ok};
use crate::request::{Body, Key};
use crate::scope::OrganizationWrite;

/// Whether it is offered.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Activity {
    /// False if left out.
    #[serde(default)]
    is_active: bool,
}

/// Deactivates an attribute, of the organization or of the system, for this organization, or makes it active again. Rules that use it
/// go on, and what is private stays private.
#[utoipa::path(put, path = "/api/attributes/{key}/deactivate", tag = "Attributes", request_body = Activity,
    params(("key" = String, Path)), responses(
    (status = 200, body = Envelope<Attribute>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn deactivate(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Key(key): Key,
    Body(activity): Body<Activity>,
) -> Reply<Attribute> {
    let mut write = OrganizationWrite::begin(&plane, caller).await?;
    let before = find(&mut write.tx, &caller, &key).await?;
    let change = if activity.is_active {
        "DELETE FROM inactive_attributes WHERE organization_id = $1 AND attribute_id = $2"
    } else {
        "INSERT INTO inactive_attributes (organization_id, attribute_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    };
    query(change).bind(caller.organization).bind(before.id).execute(&mut *write.tx).await?;
    let after = find(&mut write.tx, &caller, &key).await?;
    let (old, new) = changes(&before, &after)?;
    write
        .audit("attribute.updated", json!({"attribute_id": after.id, "key": key, "before": old, "after": new}))
        .await?;
    write.tx.commit().await?;
    ok(after)
}
