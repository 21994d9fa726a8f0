//! Names, limits and keys from Postgres: the one place that names its client. Every statement is held to the caller's
//! organization.

use std::str::FromStr;

use flagmint_schemas::ids::{EnvironmentId, FlagId, OrganizationId, VariationId};
use jsonwebtoken::DecodingKey;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::Json;
use sqlx::{PgPool, query_as, query_scalar};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::error::ApiError;
use crate::limits::{POOL_CONNECTIONS_MAX, POOL_CONNECTIONS_MIN, POOL_WAIT, STATEMENT_TIMEOUT};

/// A Postgres URL that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the Postgres URL cannot be read: {0}")]
pub struct BadUrl(sqlx::Error);

/// Reads what the control plane keeps in Postgres.
pub struct Directory {
    pool: PgPool,
    access_token_key: OnceCell<DecodingKey>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Directory")
    }
}

/// A flag, archived and deleted ones included: their history stays.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    pub(crate) id: FlagId,
    pub(crate) project: Uuid,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) kind: String,
}

/// A variation of a flag, deleted ones included.
#[derive(Clone, Debug)]
pub(crate) struct Variation {
    pub(crate) id: VariationId,
    pub(crate) key: String,
    pub(crate) value: serde_json::Value,
    pub(crate) deleted: bool,
}

/// An environment of a project, deleted ones included.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) id: EnvironmentId,
    pub(crate) name: String,
    pub(crate) deleted: bool,
}

/// What an organization's plan allows, `None` for unlimited, and how much of it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct PlanUsage {
    pub(crate) max_api_calls: Option<i64>,
    pub(crate) max_flags: Option<i64>,
    pub(crate) max_projects: Option<i64>,
    pub(crate) max_connections: Option<i64>,
    pub(crate) max_observed_contexts: Option<i64>,
    pub(crate) max_track_events: Option<i64>,
    /// Projects neither archived nor deleted.
    pub(crate) projects: i64,
    /// Flags neither archived nor deleted of such projects.
    pub(crate) flags: i64,
    /// Those of the project that has most: the plan's limit is per project.
    pub(crate) flags_of_fullest: i64,
}

impl Directory {
    /// A directory in the database at `url`. It connects beside whatever else is done, so Postgres may still be starting.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn connect(url: &str) -> Result<Self, BadUrl> {
        let options = PgConnectOptions::from_str(url)
            .map_err(BadUrl)?
            .options([("statement_timeout", STATEMENT_TIMEOUT), ("timezone", "UTC")])
            .application_name("flagmint-query-api");
        let pool = PgPoolOptions::new()
            .min_connections(POOL_CONNECTIONS_MIN)
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(POOL_WAIT);
        Ok(Self { pool: pool.connect_lazy_with(options), access_token_key: OnceCell::new() })
    }

    /// The key that access tokens are signed with; read once, as it never changes.
    pub(crate) async fn access_token_key(&self) -> Result<&DecodingKey, ApiError> {
        let read = || async {
            let secret: Option<Vec<u8>> =
                query_scalar("SELECT access_token_secret FROM installation").fetch_optional(&self.pool).await?;
            let secret =
                secret.ok_or_else(|| ApiError::Unavailable("the installation has no secret yet".to_owned()))?;
            Ok::<_, ApiError>(DecodingKey::from_secret(&secret))
        };
        self.access_token_key.get_or_try_init(read).await
    }

    /// 404 unless the project is the organization's and, if one is named, the environment is the project's.
    pub(crate) async fn check_project(
        &self,
        organization: OrganizationId,
        project: Uuid,
        environment: Option<Uuid>,
    ) -> Result<(), ApiError> {
        let (found, environment_found): (bool, bool) = query_as(
            "SELECT EXISTS (SELECT FROM projects WHERE id = $2 AND organization_id = $1 AND deleted_at IS NULL),
                    $3::uuid IS NULL
                    OR EXISTS (SELECT FROM environments WHERE id = $3 AND project_id = $2 AND organization_id = $1)",
        )
        .bind(organization.0)
        .bind(project)
        .bind(environment)
        .fetch_one(&self.pool)
        .await?;
        match (found, environment_found) {
            (false, _) => Err(ApiError::NotFound("Project")),
            (true, false) => Err(ApiError::NotFound("Environment")),
            (true, true) => Ok(()),
        }
    }

    /// The project that an environment of the organization belongs to.
    pub(crate) async fn project_of_environment(
        &self,
        organization: OrganizationId,
        environment: Uuid,
    ) -> Result<Uuid, ApiError> {
        query_scalar("SELECT project_id FROM environments WHERE id = $2 AND organization_id = $1")
            .bind(organization.0)
            .bind(environment)
            .fetch_optional(&self.pool)
            .await?
            .ok_or(ApiError::NotFound("Environment"))
    }

    /// All flags that a project has or had.
    pub(crate) async fn flags(&self, organization: OrganizationId, project: Uuid) -> Result<Vec<Flag>, ApiError> {
        let rows: Vec<(Uuid, Uuid, String, String, String)> = query_as(
            "SELECT id, project_id, key, name, type FROM flags WHERE organization_id = $1 AND project_id = $2",
        )
        .bind(organization.0)
        .bind(project)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(flag).collect())
    }

    /// One flag of a project that is not deleted.
    pub(crate) async fn flag(&self, organization: OrganizationId, id: Uuid) -> Result<Flag, ApiError> {
        let row: Option<(Uuid, Uuid, String, String, String)> = query_as(
            "SELECT f.id, f.project_id, f.key, f.name, f.type FROM flags f
             JOIN projects p ON p.id = f.project_id AND p.deleted_at IS NULL
             WHERE f.organization_id = $1 AND f.id = $2",
        )
        .bind(organization.0)
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.map(flag).ok_or(ApiError::NotFound("Flag"))
    }

    /// All variations that a flag has or had, in its order.
    pub(crate) async fn variations(
        &self,
        organization: OrganizationId,
        flag: FlagId,
    ) -> Result<Vec<Variation>, ApiError> {
        let rows: Vec<(Uuid, String, Json<serde_json::Value>, bool)> = query_as(
            "SELECT id, key, value, deleted_at IS NOT NULL FROM variations
             WHERE organization_id = $1 AND flag_id = $2 ORDER BY order_index, created_at, id",
        )
        .bind(organization.0)
        .bind(flag.0)
        .fetch_all(&self.pool)
        .await?;
        let variation = |(id, key, Json(value), deleted)| Variation { id: VariationId(id), key, value, deleted };
        Ok(rows.into_iter().map(variation).collect())
    }

    /// All environments that a project has or had, oldest first.
    pub(crate) async fn environments(
        &self,
        organization: OrganizationId,
        project: Uuid,
    ) -> Result<Vec<Environment>, ApiError> {
        let rows: Vec<(Uuid, String, bool)> = query_as(
            "SELECT id, name, deleted_at IS NOT NULL FROM environments
             WHERE organization_id = $1 AND project_id = $2 ORDER BY created_at, id",
        )
        .bind(organization.0)
        .bind(project)
        .fetch_all(&self.pool)
        .await?;
        let environment = |(id, name, deleted)| Environment { id: EnvironmentId(id), name, deleted };
        Ok(rows.into_iter().map(environment).collect())
    }

    /// What the organization's plan allows and how much is used.
    pub(crate) async fn plan_usage(&self, organization: OrganizationId) -> Result<PlanUsage, ApiError> {
        query_as(
            "WITH p AS (
                 SELECT id FROM projects WHERE organization_id = $1 AND archived_at IS NULL AND deleted_at IS NULL
             ), f AS (
                 SELECT count(*) AS n FROM flags JOIN p ON p.id = flags.project_id
                 WHERE flags.organization_id = $1 AND flags.archived_at IS NULL AND flags.deleted_at IS NULL
                 GROUP BY flags.project_id
             )
             SELECT plans.max_api_calls, plans.max_flags, plans.max_projects, plans.max_connections,
                    plans.max_observed_contexts, plans.max_track_events,
                    (SELECT count(*) FROM p) AS projects,
                    (SELECT COALESCE(sum(n), 0)::bigint FROM f) AS flags,
                    (SELECT COALESCE(max(n), 0) FROM f) AS flags_of_fullest
             FROM organizations o JOIN plans ON plans.id = o.plan_id
             WHERE o.id = $1 AND o.deleted_at IS NULL",
        )
        .bind(organization.0)
        .fetch_optional(&self.pool)
        .await?
        .ok_or(ApiError::NotFound("Organization"))
    }

    /// The keys with which the environments of a scope make pseudonyms.
    pub(crate) async fn pseudonym_keys(
        &self,
        organization: OrganizationId,
        project: Option<Uuid>,
        environment: Option<Uuid>,
    ) -> Result<Vec<Vec<u8>>, ApiError> {
        let keys = query_scalar(
            "SELECT pseudonym_key FROM environment_snapshots WHERE organization_id = $1
             AND ($2::uuid IS NULL OR project_id = $2) AND ($3::uuid IS NULL OR environment_id = $3)",
        )
        .bind(organization.0)
        .bind(project)
        .bind(environment);
        Ok(keys.fetch_all(&self.pool).await?)
    }
}

fn flag((id, project, key, name, kind): (Uuid, Uuid, String, String, String)) -> Flag {
    Flag { id: FlagId(id), project, key, name, kind }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as Cause;
        let away = match &error {
            // Connection lost, out of resources, shut down or cancelled, system error: try again.
            Cause::Database(database) => {
                matches!(database.code().unwrap_or_default().get(..2), Some("08" | "53" | "57" | "58"))
            }
            Cause::PoolTimedOut | Cause::PoolClosed | Cause::Io(_) | Cause::Tls(_) | Cause::Protocol(_) => true,
            other => matches!(other, Cause::WorkerCrashed),
        };
        if away { Self::Unavailable(error.to_string()) } else { Self::Internal(error.to_string()) }
    }
}
