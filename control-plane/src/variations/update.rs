//! VAR-2: `PUT /projects/{projectId}/flags/{flagId}/variations`.

use axum::extract::State;
use serde_json::{Value, json};
use uuid::Uuid;

use super::change::{Change, Update};
use super::{Variation, of_flag};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::{query, query_scalar};
use crate::error::{ApiError, ErrorBody};
use crate::publish::publish;
use crate::reply::{Envelope, Reply, ok_with_warnings};
use crate::request::{Body, Ids};
use crate::scope::{self, Write};
use crate::values::{FlagType, new_part_id, php_warnings};

/// Changes, adds and deletes variations together: one transaction, one publish per environment.
#[utoipa::path(put, path = "/projects/{projectId}/flags/{flagId}/variations", tag = "Variations",
    request_body = Change, params(("projectId" = Uuid, Path), ("flagId" = Uuid, Path)), responses(
    (status = 200, body = Envelope<Vec<Variation>>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, description = "A deleted one in use, or a key taken", body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn update(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<2>,
    Body(change): Body<Change>,
) -> Reply<Vec<Variation>> {
    let [project, flag] = ids;
    let mut write = Write::begin(&plane, caller, project).await?;
    let head = scope::flag(&mut write.tx, &caller, project, flag).await?;
    let flag_type = FlagType::parse(&head.r#type)
        .ok_or_else(|| ApiError::Internal(format!("flag {flag} has the type {:?}", head.r#type)))?;
    if let Some(environment) = change.environment_id {
        scope::environment(&mut write.tx, &caller, project, environment).await?;
    }
    let before = of_flag(&mut write.tx, &caller, flag).await?;
    change.check(flag_type, &before)?;
    if let (Some(off), Some(environment)) = (change.off_variation_id, change.environment_id) {
        set_off_variation(&mut write, flag, environment, off).await?;
    }
    delete(&mut write, flag, change.deleted()).await?;
    if change.updates.iter().any(|update| update.is_default) {
        query("UPDATE variations SET is_default = false WHERE flag_id = $1 AND organization_id = $2 AND is_default")
            .bind(flag)
            .bind(caller.organization)
            .execute(&mut *write.tx)
            .await?;
    }
    for update in &change.updates {
        store(&mut write, flag, update).await?;
    }
    // Violations that only hold at commit are wanted here, where they can still be told apart.
    query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *write.tx).await?;
    let after = of_flag(&mut write.tx, &caller, flag).await?;
    let payload = json!({"flag_id": flag, "flag_key": head.key, "environment_id": change.environment_id,
        "off_variation_id": change.off_variation_id.flatten(), "before": brief(&before), "after": brief(&after)});
    write.audit("variation.updated", payload).await?;
    let environments = write.environments().await?;
    publish(&mut write, &environments).await?;
    write.tx.commit().await?;
    plane.meter(caller.organization, project, None);
    ok_with_warnings(after, warnings(&change.updates))
}

/// The variations as an audit entry shows them: values may be large, and are in the entry of their change alone.
fn brief(variations: &[Variation]) -> Vec<Value> {
    let brief = |variation: &Variation| json!({"id": variation.id, "key": variation.key, "value": variation.value, "is_default": variation.is_default});
    variations.iter().map(brief).collect()
}

fn warnings(updates: &[Update]) -> Vec<String> {
    let of_one = |update: &Update| {
        let warn = |warning| format!("PHP clients cannot verify the value of {:?}: {warning}", update.key);
        php_warnings(&update.value).into_iter().map(warn).collect::<Vec<_>>()
    };
    updates.iter().flat_map(of_one).collect()
}

async fn set_off_variation(
    write: &mut Write,
    flag: Uuid,
    environment: Uuid,
    off: Option<Uuid>,
) -> Result<(), ApiError> {
    query(
        "INSERT INTO flag_values (id, flag_id, environment_id, organization_id, off_variation_id)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (flag_id, environment_id) WHERE deleted_at IS NULL
         DO UPDATE SET off_variation_id = excluded.off_variation_id, updated_at = now()",
    )
    .bind(Uuid::now_v7())
    .bind(flag)
    .bind(environment)
    .bind(write.caller.organization)
    .bind(off)
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// Deletes variations that nothing uses.
async fn delete(write: &mut Write, flag: Uuid, ids: &[Uuid]) -> Result<(), ApiError> {
    if ids.is_empty() {
        return Ok(());
    }
    let used_by: Vec<Value> = query_scalar(
        "SELECT json_build_object('type', 'targeting_rule', 'id', r.id, 'environment_id', r.environment_id,
                                  'variation_id', r.variation_id)
         FROM targeting_rules r
         WHERE r.flag_id = $1 AND r.organization_id = $2 AND r.deleted_at IS NULL AND r.variation_id = ANY($3)
         UNION ALL
         SELECT json_build_object('type', 'rollout', 'id', o.id, 'environment_id', o.environment_id,
                                  'variation_id', x ->> 'variation_id')
         FROM rollouts o, json_array_elements(o.config -> 'variants') x
         WHERE o.flag_id = $1 AND o.organization_id = $2 AND o.deleted_at IS NULL AND o.strategy = 'variant'
           AND (x ->> 'variation_id')::uuid = ANY($3)
         UNION ALL
         SELECT json_build_object('type', 'off_variation', 'id', v.id, 'environment_id', v.environment_id,
                                  'variation_id', v.off_variation_id)
         FROM flag_values v
         WHERE v.flag_id = $1 AND v.organization_id = $2 AND v.deleted_at IS NULL AND v.off_variation_id = ANY($3)",
    )
    .bind(flag)
    .bind(write.caller.organization)
    .bind(ids)
    .fetch_all(&mut *write.tx)
    .await?;
    if !used_by.is_empty() {
        return Err(ApiError::Conflict { message: "a variation to delete is in use".to_owned(), used_by });
    }
    query(
        "UPDATE variations SET deleted_at = now(), updated_at = now(), is_default = false
         WHERE flag_id = $1 AND organization_id = $2 AND id = ANY($3)",
    )
    .bind(flag)
    .bind(write.caller.organization)
    .bind(ids)
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// Writes one variation, whole.
async fn store(write: &mut Write, flag: Uuid, update: &Update) -> Result<(), ApiError> {
    query(
        "INSERT INTO variations (id, flag_id, project_id, organization_id, key, name, description, value, is_default,
                                 order_index)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10)
         ON CONFLICT (id) DO UPDATE SET key = excluded.key, name = excluded.name, value = excluded.value,
             description = excluded.description, is_default = excluded.is_default,
             order_index = excluded.order_index, updated_at = now()
         WHERE variations.flag_id = $2 AND variations.organization_id = $4",
    )
    .bind(update.id.unwrap_or_else(|| new_part_id(flag)))
    .bind(flag)
    .bind(write.project)
    .bind(write.caller.organization)
    .bind(&update.key)
    .bind(&update.name)
    .bind(&update.description)
    .bind(update.value.to_string())
    .bind(update.is_default)
    .bind(update.order_index)
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}
