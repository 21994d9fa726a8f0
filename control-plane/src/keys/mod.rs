//! SDK keys (management API 2). The text of a key is shown once and kept nowhere; its SHA-256 is.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::FromRow;

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;

/// An SDK key.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct ApiKey {
    id: Uuid,
    name: String,
    created_at: DateTime<Utc>,
    /// The first 7 and last 4 characters.
    masked: String,
    environment_id: Uuid,
    environment_name: String,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    /// In full in the reply to its creation, masked everywhere else.
    key: String,
    /// `permissions`, and `rate_limit_per_minute`: null is the default of 6,000, 0 is unlimited.
    #[schema(value_type = Object)]
    metadata: Value,
    last_used_at: Option<DateTime<Utc>>,
}

/// `SELECT` of [`ApiKey`]s, to be followed by conditions on `k`.
const SELECT: &str = "
    SELECT k.id, k.name, k.created_at, k.masked, k.environment_id, e.name AS environment_name, k.expires_at,
           k.revoked_at, k.masked AS key, k.last_used_at,
           json_build_object('permissions', k.permissions, 'rate_limit_per_minute', k.rate_limit_per_minute) AS metadata
    FROM api_keys k JOIN environments e ON e.id = k.environment_id";
