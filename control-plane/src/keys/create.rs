//! KEY-1: `POST /api-keys/{projectId}`.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ApiKey, SELECT};
use crate::ControlPlane;
use crate::caller::Editor;
use crate::db::{query, query_as};
use crate::error::{ApiError, ErrorBody, Problems};
use crate::limits::MAX_KEY_RATE_PER_MINUTE;
use crate::publish::notify;
use crate::reply::{Envelope, Reply, created};
use crate::request::{Body, Ids};
use crate::scope::{self, Write};
use crate::text::check_name;
use crate::token::{random_text, text_hash};

/// A key to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewKey {
    name: String,
    environment_id: Uuid,
    /// `read` (the default), `write` or `admin`; stored for later use: a key grants evaluation alone.
    permissions: Option<String>,
    /// Never, if left out.
    expires_at: Option<DateTime<Utc>>,
    /// Evaluations a minute: 6,000 if left out, 0 is unlimited.
    rate_limit_per_minute: Option<i32>,
}

/// Creates a key, and shows it this once.
#[utoipa::path(post, path = "/api-keys/{projectId}", tag = "API keys", request_body = NewKey,
    params(("projectId" = Uuid, Path)), responses(
    (status = 201, body = Envelope<ApiKey>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn create(
    State(plane): State<ControlPlane>,
    Editor(caller): Editor,
    Ids(ids): Ids<1>,
    Body(request): Body<NewKey>,
) -> Reply<ApiKey> {
    let [project] = ids;
    check(&request)?;
    let permissions = request.permissions.as_deref().unwrap_or("read");
    let mut write = Write::begin(&plane, caller, project).await?;
    let environment = request.environment_id;
    scope::environment(&mut write.tx, &caller, project, environment).await?;
    let (id, text) = (Uuid::now_v7(), random_text("ff_"));
    query(
        "INSERT INTO api_keys (id, key_hash, project_id, environment_id, organization_id, name, masked, permissions,
                               rate_limit_per_minute, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id)
    .bind(text_hash(&text))
    .bind(project)
    .bind(environment)
    .bind(caller.organization)
    .bind(&request.name)
    .bind(masked(&text))
    .bind(permissions)
    .bind(request.rate_limit_per_minute)
    .bind(request.expires_at)
    .execute(&mut *write.tx)
    .await?;
    let payload = json!({"key_id": id, "name": request.name, "environment_id": environment, "masked": masked(&text),
        "permissions": permissions, "rate_limit_per_minute": request.rate_limit_per_minute,
        "expires_at": request.expires_at});
    write.audit("api_key.created", payload).await?;
    notify(&mut write.tx, "flagmint_keys", id).await?;
    let mut row: ApiKey = query_as(&format!("{SELECT} WHERE k.id = $1 AND k.organization_id = $2"))
        .bind(id)
        .bind(caller.organization)
        .fetch_one(&mut *write.tx)
        .await?;
    write.tx.commit().await?;
    row.key = text;
    created(row)
}

fn check(request: &NewKey) -> Result<(), ApiError> {
    let mut problems = Problems::default();
    check_name(&mut problems, "name", &request.name);
    let known = request.permissions.as_deref().is_none_or(|text| ["read", "write", "admin"].contains(&text));
    problems.check(known, "permissions", "must be read, write or admin");
    let ahead = request.expires_at.is_none_or(|time| time > Utc::now());
    problems.check(ahead, "expires_at", "must be in the future");
    let in_range = request.rate_limit_per_minute.is_none_or(|rate| (0..=MAX_KEY_RATE_PER_MINUTE).contains(&rate));
    problems.check(in_range, "rate_limit_per_minute", "must be 0 (unlimited) to 100,000,000");
    problems.finish()
}

fn masked(text: &str) -> String {
    format!("{}…{}", &text[..7], &text[text.len() - 4..])
}
