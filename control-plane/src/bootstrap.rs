//! The first user and organization of an empty installation.

use uuid::Uuid;

use crate::audit::Act;
use crate::db::{DbError, Pool, Tx, query, query_scalar};
use crate::error::ApiError;
use crate::limits::{MAX_EMAIL_CHARS, PASSWORD_CHARS};
use crate::password::Passwords;
use serde_json::json;

/// Which plan the first organization is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanChoice {
    /// An existing plan, as `Free`.
    Named(String),
    /// A plan called `Unlimited`, made if there is none, with every limit null: for demonstrations.
    Unlimited,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrapped {
    /// The organization.
    pub organization_id: Uuid,
    /// Its admin.
    pub user_id: Uuid,
}

/// Why the first user was not made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The mail address is not one.
    #[error("the mail address of the first user must contain @ and have at most {MAX_EMAIL_CHARS} characters")]
    Email,
    /// The password is too short or too long.
    #[error("the password of the first user must have {} to {} characters", PASSWORD_CHARS.start(), PASSWORD_CHARS.end())]
    Password,
    /// There is no such plan.
    #[error("there is no plan called {0:?}")]
    Plan(String),
    /// Postgres.
    #[error("the first user could not be stored: {0}")]
    Database(#[from] DbError),
    /// Anything else, which should not happen.
    #[error("the first user could not be made: {0}")]
    Internal(String),
}

/// Makes the first user, admin of a new organization. `None` if any user exists: then nothing is changed. Instances that
/// start together make one user between them.
///
/// # Errors
/// Mail, password or plan are not usable, or Postgres is away.
pub async fn bootstrap_admin(
    pool: &Pool,
    email: &str,
    password: &str,
    organization_name: &str,
    plan: PlanChoice,
) -> Result<Option<Bootstrapped>, BootstrapError> {
    let email = email.trim().to_lowercase();
    if !email.contains('@') || email.chars().count() > MAX_EMAIL_CHARS {
        return Err(BootstrapError::Email);
    }
    if !PASSWORD_CHARS.contains(&password.chars().count()) {
        return Err(BootstrapError::Password);
    }
    let mut tx = pool.begin().await?;
    query("LOCK TABLE users IN EXCLUSIVE MODE").execute(&mut *tx).await?;
    if query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM users)").fetch_one(&mut *tx).await? {
        return Ok(None);
    }
    let internal = |error: ApiError| BootstrapError::Internal(format!("{error:?}"));
    let hash = Passwords::default().hash(password.to_owned()).await.map_err(internal)?;
    let plan_id = plan_id(&mut tx, plan).await?;
    let (organization_id, user_id) = (Uuid::now_v7(), Uuid::now_v7());
    query("INSERT INTO organizations (id, name, plan_id) VALUES ($1, $2, $3)")
        .bind(organization_id)
        .bind(organization_name)
        .bind(plan_id)
        .execute(&mut *tx)
        .await?;
    let name = email.split('@').next().unwrap_or_default();
    query("INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, $3, $4)")
        .bind(user_id)
        .bind(&email)
        .bind(name)
        .bind(hash)
        .execute(&mut *tx)
        .await?;
    query("INSERT INTO memberships (id, organization_id, user_id, role) VALUES ($1, $2, $3, 'admin')")
        .bind(Uuid::now_v7())
        .bind(organization_id)
        .bind(user_id)
        .execute(&mut *tx)
        .await?;
    let payload = json!({"name": organization_name});
    Act { organization: organization_id, project: None, actor: None, event_type: "organization.created", payload }
        .record(&mut tx)
        .await
        .map_err(internal)?;
    tx.commit().await?;
    Ok(Some(Bootstrapped { organization_id, user_id }))
}

async fn plan_id(tx: &mut Tx, plan: PlanChoice) -> Result<Uuid, BootstrapError> {
    let name = match plan {
        PlanChoice::Named(name) => name,
        PlanChoice::Unlimited => {
            query("INSERT INTO plans (name) VALUES ('Unlimited') ON CONFLICT DO NOTHING").execute(&mut **tx).await?;
            "Unlimited".to_owned()
        }
    };
    let id = query_scalar("SELECT id FROM plans WHERE name = $1 AND deleted_at IS NULL")
        .bind(&name)
        .fetch_optional(&mut **tx)
        .await?;
    id.ok_or(BootstrapError::Plan(name))
}
