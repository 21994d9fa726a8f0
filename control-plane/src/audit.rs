//! Audit entries (management API 13), written in the transaction of the act itself: neither exists without the other.

use serde_json::Value;
use uuid::Uuid;

use crate::db::{PgConnection, query};
use crate::error::ApiError;

/// An act and who did it.
#[derive(Debug)]
pub(crate) struct Act<'a> {
    pub(crate) organization: Uuid,
    pub(crate) project: Option<Uuid>,
    pub(crate) actor: Option<Uuid>,
    /// As `flag.created`.
    pub(crate) event_type: &'a str,
    /// What was done; never a secret.
    pub(crate) payload: Value,
}

impl Act<'_> {
    pub(crate) async fn record(self, connection: &mut PgConnection) -> Result<(), ApiError> {
        query(
            "INSERT INTO audit_entries (id, organization_id, project_id, actor_id, event_type, payload)
             VALUES ($1, $2, $3, $4, $5, $6::json)",
        )
        .bind(Uuid::now_v7())
        .bind(self.organization)
        .bind(self.project)
        .bind(self.actor)
        .bind(self.event_type)
        .bind(self.payload.to_string())
        .execute(connection)
        .await?;
        Ok(())
    }
}
