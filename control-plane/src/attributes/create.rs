//! ATT-1: `POST /api/attributes`.

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Attribute, Definition, find, is_key, publish_private};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::{query, query_as};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::limits::{ATTRIBUTE_KEY_CHARS, MAX_ATTRIBUTES};
use crate::reply::{Envelope, Reply, created};
use crate::request::Body;
use crate::scope::OrganizationWrite;

/// An attribute to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewAttribute {
    /// Of lower-case letters, digits, dots and underscores; 2 to 255.
    key: String,
    label: String,
    r#type: String,
    category: String,
    operators: Vec<String>,
    /// Whether its values are replaced by pseudonyms before anything is logged. Off by default.
    private: Option<bool>,
    suggestions: Option<Vec<Value>>,
    placeholder: Option<String>,
    description: Option<String>,
}

/// Creates an attribute of the organization. If it is private, its values are logged as pseudonyms from now on, by whatever name of
/// which this is the last part.
#[utoipa::path(post, path = "/api/attributes", tag = "Attributes", request_body = NewAttribute, responses(
    (status = 201, body = Envelope<Attribute>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 409, description = "Key taken, or too many", body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Body(request): Body<NewAttribute>,
) -> Reply<Attribute> {
    let NewAttribute { key, label, r#type, category, operators, private, suggestions, placeholder, description } =
        request;
    let mut problems = Problems::default();
    let (least, most) = (ATTRIBUTE_KEY_CHARS.start(), ATTRIBUTE_KEY_CHARS.end());
    let rule = format!("must be {least} to {most} lower-case letters, digits, dots or underscores");
    problems.check(is_key(&key), "key", &rule);
    let definition = Definition {
        label: Some(label),
        r#type: Some(r#type),
        category: Some(category),
        operators: Some(operators),
        private,
        suggestions: Some(suggestions),
        placeholder: Some(placeholder),
        description: Some(description),
    };
    definition.check(&mut problems);
    problems.finish()?;
    let mut write = OrganizationWrite::begin(&plane, caller).await?;
    check_room(&mut write, &key).await?;
    query(
        "INSERT INTO attributes (id, organization_id, key, label, type, category, operators, private, suggestions, placeholder,
                                 description, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9::json, $10, $11, $12)",
    )
    .bind(Uuid::now_v7())
    .bind(caller.organization)
    .bind(&key)
    .bind(&definition.label)
    .bind(&definition.r#type)
    .bind(&definition.category)
    .bind(json!(definition.operators).to_string())
    .bind(private.unwrap_or(false))
    .bind(definition.suggestions.flatten().map(|values| Value::from(values).to_string()))
    .bind(definition.placeholder.flatten())
    .bind(definition.description.flatten())
    .bind(caller.user)
    .execute(&mut *write.tx)
    .await?;
    let attribute = find(&mut write.tx, &caller, &key).await?;
    let payload = json!({"attribute_id": attribute.id, "key": key, "private": attribute.private});
    write.audit("attribute.created", payload).await?;
    publish_private(&mut write).await?;
    write.tx.commit().await?;
    created(attribute)
}

/// Refuses a key that the system has, and more attributes than there may be.
async fn check_room(write: &mut OrganizationWrite, key: &str) -> Result<(), ApiError> {
    let (is_system, used): (bool, i64) = query_as(
        "SELECT COALESCE(bool_or(organization_id IS NULL AND key = $2), false), count(organization_id) FROM attributes
         WHERE (organization_id = $1 OR organization_id IS NULL) AND deleted_at IS NULL",
    )
    .bind(write.caller.organization)
    .bind(key)
    .fetch_one(&mut *write.tx)
    .await?;
    if is_system {
        return Err(ApiError::conflict("the attribute key is taken by one of the system's"));
    }
    if used >= MAX_ATTRIBUTES {
        return Err(ApiError::conflict(format!("an organization has at most {MAX_ATTRIBUTES} attributes")));
    }
    Ok(())
}
