//! What a path names, looked up within the caller's organization: whatever is not there does not exist (404).
//!
//! A write takes its project's row lock first. So the writes of one project happen one after the other, and what was
//! checked (a limit, a use, a name) still holds when it commits.

use serde_json::Value;
use uuid::Uuid;

use crate::ControlPlane;
use crate::audit::Act;
use crate::caller::Caller;
use crate::db::{FromRow, PgConnection, Tx, query_as, query_scalar};
use crate::error::ApiError;

/// Subscription states in which nothing may be written (management API 1.5).
const LAPSED: &[&str] = &["canceled", "unpaid", "incomplete_expired"];

/// A flag, as far as the things below it need to know it.
#[derive(Debug, FromRow)]
pub(crate) struct FlagHead {
    pub(crate) id: Uuid,
    pub(crate) key: String,
    pub(crate) r#type: String,
}

/// The one transaction of a write within a project.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) tx: Tx,
    pub(crate) caller: Caller,
    pub(crate) project: Uuid,
}

impl Write {
    /// Begins, with the project's row locked.
    pub(crate) async fn begin(plane: &ControlPlane, caller: Caller, project: Uuid) -> Result<Self, ApiError> {
        let mut tx = plane.pool().begin().await?;
        let status: Option<String> = query_scalar(
            "SELECT o.subscription_status FROM projects p JOIN organizations o ON o.id = p.organization_id
             WHERE p.id = $1 AND p.organization_id = $2 AND p.archived_at IS NULL AND p.deleted_at IS NULL
               AND o.deleted_at IS NULL FOR NO KEY UPDATE OF p",
        )
        .bind(project)
        .bind(caller.organization)
        .fetch_optional(&mut *tx)
        .await?;
        writable(&status.ok_or(ApiError::NotFound("Project"))?)?;
        Ok(Self { tx, caller, project })
    }

    /// Records what was done here.
    pub(crate) async fn audit(&mut self, event_type: &str, payload: Value) -> Result<(), ApiError> {
        let (organization, actor) = (self.caller.organization, Some(self.caller.user));
        Act { organization, project: Some(self.project), actor, event_type, payload }.record(&mut self.tx).await
    }

    /// All environments of the project, in a fixed order.
    pub(crate) async fn environments(&mut self) -> Result<Vec<Uuid>, ApiError> {
        Ok(query_scalar(
            "SELECT id FROM environments WHERE project_id = $1 AND organization_id = $2 AND deleted_at IS NULL ORDER BY id",
        )
        .bind(self.project)
        .bind(self.caller.organization)
        .fetch_all(&mut *self.tx)
        .await?)
    }
}

/// The one transaction of a write that concerns the whole organization.
#[derive(Debug)]
pub(crate) struct OrganizationWrite {
    pub(crate) tx: Tx,
    pub(crate) caller: Caller,
}

impl OrganizationWrite {
    /// Begins, with the organization's row locked: no project is made meanwhile.
    pub(crate) async fn begin(plane: &ControlPlane, caller: Caller) -> Result<Self, ApiError> {
        let mut tx = plane.pool().begin().await?;
        let status: Option<String> = query_scalar(
            "SELECT subscription_status FROM organizations WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
        )
        .bind(caller.organization)
        .fetch_optional(&mut *tx)
        .await?;
        writable(&status.ok_or(ApiError::NotFound("Organization"))?)?;
        Ok(Self { tx, caller })
    }

    /// Records what was done here.
    pub(crate) async fn audit(&mut self, event_type: &str, payload: Value) -> Result<(), ApiError> {
        let (organization, actor) = (self.caller.organization, Some(self.caller.user));
        Act { organization, project: None, actor, event_type, payload }.record(&mut self.tx).await
    }
}

/// # Errors
/// The subscription has lapsed.
pub(crate) fn writable(subscription_status: &str) -> Result<(), ApiError> {
    if LAPSED.contains(&subscription_status) { Err(ApiError::SubscriptionInactive) } else { Ok(()) }
}

/// # Errors
/// 404.
pub(crate) async fn project(connection: &mut PgConnection, caller: &Caller, project: Uuid) -> Result<(), ApiError> {
    let found: Option<i32> =
        query_scalar("SELECT 1 FROM projects WHERE id = $1 AND organization_id = $2 AND deleted_at IS NULL")
            .bind(project)
            .bind(caller.organization)
            .fetch_optional(connection)
            .await?;
    found.map(|_| ()).ok_or(ApiError::NotFound("Project"))
}

/// The environment's name.
///
/// # Errors
/// 404 unless it is one of `project`.
pub(crate) async fn environment(
    connection: &mut PgConnection,
    caller: &Caller,
    project: Uuid,
    environment: Uuid,
) -> Result<String, ApiError> {
    let name = query_scalar(
        "SELECT e.name FROM environments e JOIN projects p ON p.id = e.project_id
         WHERE e.id = $1 AND e.project_id = $2 AND e.organization_id = $3 AND e.deleted_at IS NULL
           AND p.deleted_at IS NULL",
    )
    .bind(environment)
    .bind(project)
    .bind(caller.organization)
    .fetch_optional(connection)
    .await?;
    name.ok_or(ApiError::NotFound("Environment"))
}

/// # Errors
/// 404 unless it is one of `project`.
pub(crate) async fn flag(
    connection: &mut PgConnection,
    caller: &Caller,
    project: Uuid,
    flag: Uuid,
) -> Result<FlagHead, ApiError> {
    let head = query_as(
        "SELECT f.id, f.key, f.type FROM flags f JOIN projects p ON p.id = f.project_id
         WHERE f.id = $1 AND f.project_id = $2 AND f.organization_id = $3 AND f.deleted_at IS NULL
           AND p.deleted_at IS NULL",
    )
    .bind(flag)
    .bind(project)
    .bind(caller.organization)
    .fetch_optional(connection)
    .await?;
    head.ok_or(ApiError::NotFound("Flag"))
}
