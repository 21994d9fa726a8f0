//! ATT-4: `PUT /api/attributes/{key}`.

use axum::extract::State;
use serde_json::{Value, json};

use super::{Attribute, Definition, changes, find, find_own, publish_private};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::query;
use crate::error::{ErrorBody, Problems};
use crate::reply::{Envelope, Reply, ok};
use crate::request::{Body, Key};
use crate::scope::OrganizationWrite;

/// Changes an attribute of the organization; members left out stay. What it becomes private for, or ceases to be, is what is logged
/// from now on; what was logged before stays as it is.
#[utoipa::path(put, path = "/api/attributes/{key}", tag = "Attributes", request_body = Definition,
    params(("key" = String, Path)), responses(
    (status = 200, body = Envelope<Attribute>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, description = "Role, or a system attribute", body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn update(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Key(key): Key,
    Body(change): Body<Definition>,
) -> Reply<Attribute> {
    let mut problems = Problems::default();
    change.check(&mut problems);
    problems.finish()?;
    let mut write = OrganizationWrite::begin(&plane, caller).await?;
    let before = find_own(&mut write.tx, &caller, &key).await?;
    query(
        "UPDATE attributes SET label = COALESCE($3, label), type = COALESCE($4, type), category = COALESCE($5, category),
                operators = COALESCE($6::json, operators), private = COALESCE($7, private),
                suggestions = CASE WHEN $8 THEN $9::json ELSE suggestions END,
                placeholder = CASE WHEN $10 THEN $11 ELSE placeholder END,
                description = CASE WHEN $12 THEN $13 ELSE description END, updated_at = now()
         WHERE id = $1 AND organization_id = $2",
    )
    .bind(before.id)
    .bind(caller.organization)
    .bind(&change.label)
    .bind(&change.r#type)
    .bind(&change.category)
    .bind(change.operators.map(|operators| json!(operators).to_string()))
    .bind(change.private)
    .bind(change.suggestions.is_some())
    .bind(change.suggestions.flatten().map(|values| Value::from(values).to_string()))
    .bind(change.placeholder.is_some())
    .bind(change.placeholder.flatten())
    .bind(change.description.is_some())
    .bind(change.description.flatten())
    .execute(&mut *write.tx)
    .await?;
    let after = find(&mut write.tx, &caller, &key).await?;
    let (old, new) = changes(&before, &after)?;
    write
        .audit("attribute.updated", json!({"attribute_id": after.id, "key": key, "before": old, "after": new}))
        .await?;
    publish_private(&mut write).await?;
    write.tx.commit().await?;
    ok(after)
}
