//! The one place that names the Postgres client: what handlers need of it, migrations, and which client error a
//! database error is.

use std::str::FromStr;

use rand::RngCore;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub use sqlx::types::Json;
pub use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use crate::error::{ApiError, Detail};
use crate::limits::{MAX_POOL_CONNECTIONS, POOL_WAIT, STATEMENT_TIMEOUT};

/// Connections to Postgres.
pub type Pool = sqlx::PgPool;

/// An open transaction; dropped without a commit it is rolled back.
pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

/// What went wrong below a handler.
pub type DbError = sqlx::Error;

/// A pool with this crate's limits. It connects when first used, so Postgres may still be starting.
///
/// # Errors
/// The URL cannot be read.
pub fn connect(url: &str) -> Result<Pool, DbError> {
    let options = PgConnectOptions::from_str(url)?
        .options([("statement_timeout", STATEMENT_TIMEOUT), ("timezone", "UTC")])
        .application_name("flagmint-control-plane");
    Ok(PgPoolOptions::new().max_connections(MAX_POOL_CONNECTIONS).acquire_timeout(POOL_WAIT).connect_lazy_with(options))
}

/// Brings the database to this version and makes the installation's secret if there is none. Repeatable; instances
/// that start together take turns.
///
/// # Errors
/// Postgres is away, or the database is of a newer version.
pub async fn migrate(pool: &Pool) -> Result<(), DbError> {
    sqlx::migrate!("./migrations").run(pool).await?;
    let mut secret = [0_u8; 32];
    rand::rng().fill_bytes(&mut secret);
    query("INSERT INTO installation (access_token_secret) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(secret.as_slice())
        .execute(pool)
        .await?;
    Ok(())
}

/// Whether Postgres answers.
///
/// # Errors
/// Why it does not.
pub async fn answers(pool: &Pool) -> Result<(), DbError> {
    query("SELECT").execute(pool).await.map(|_| ())
}

/// Whether a URL can be read.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), DbError> {
    PgConnectOptions::from_str(url).map(|_| ())
}

/// What has to be changed so that Postgres says yes; `None` if it did not answer, so that the same may work later.
#[must_use]
pub fn refusal(error: &DbError) -> Option<&'static str> {
    let database = match error {
        DbError::Database(database) => database,
        DbError::Migrate(migration) => match &**migration {
            // The database could not be asked, or did not let us.
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => return refusal(error),
            _ => return Some("this program is older than the database, or the database is another program's"),
        },
        DbError::Configuration(_) => return Some("write postgres://user:password@host:5432/database"),
        _ => return None,
    };
    match &*database.code()? {
        code if code.starts_with("28") => Some("check user and password, and who may connect from here"),
        "3D000" => Some("create the database, or name another"),
        "42501" => Some("the user must own the database or be allowed to create tables in it"),
        _ => None,
    }
}

/// Unique constraints and what the client that ran into one is told.
const CONFLICTS: &[(&str, &str)] = &[
    ("projects_key_taken", "the projectKey is taken"),
    ("environments_slug_taken", "the slug is taken"),
    ("flags_key_taken", "the flag key is taken"),
    ("variations_key_taken", "two variations have the same key"),
    ("segments_key_taken", "the segment key is taken"),
    ("attributes_key_taken", "the attribute key is taken"),
    ("users_email_taken", "the mail address is in use"),
    ("memberships_user_taken", "the user is already a member"),
];

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let DbError::Database(database) = &error else {
            return match error {
                DbError::PoolTimedOut
                | DbError::PoolClosed
                | DbError::Io(_)
                | DbError::Tls(_)
                | DbError::Protocol(_)
                | DbError::WorkerCrashed => Self::Unavailable(error.to_string()),
                _ => Self::Internal(error.to_string()),
            };
        };
        if let Some(constraint) = database.constraint() {
            if let Some((_, message)) = CONFLICTS.iter().find(|(name, _)| *name == constraint) {
                return Self::conflict(*message);
            }
            if constraint == "variations_one_default" {
                return Self::Validation(vec![Detail::new("updates", "more than one default variation")]);
            }
        }
        // Connection lost, rolled back by others, out of resources, shut down, cancelled: try again.
        let code = database.code().unwrap_or_default();
        match code.get(..2) {
            Some("08" | "40" | "53" | "57" | "58") => Self::Unavailable(error.to_string()),
            // A lock that is not to be had now; a database that its administrator has closed for a while.
            _ if matches!(&*code, "55P03" | "55000") => Self::Unavailable(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}
