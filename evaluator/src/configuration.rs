//! Where configuration comes from: the snapshots and keys that the control plane keeps in Postgres, read at start and
//! followed by notifications. With its parts (used sessions, reached limits) the only module of this crate that talks to Postgres.
//!
//! With Postgres away everything loaded stays in force. A notification may be lost with its connection, so each
//! new connection compares everything, and so does a slow timer. What is loaded is also kept on disk ([`LastGood`]), for a start
//! with Postgres away.

mod deltas;
mod last_good;
mod limits;
pub mod sessions;
pub mod shared_rates;

use std::collections::HashMap;
use std::sync::Arc;

use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{PgPool, Row};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::directory::{Directory, KeyFacts};
use crate::limits::{
    LAST_USED_INTERVAL, POSTGRES_CONNECTIONS, POSTGRES_WAIT, RATE_LIMIT_PER_MINUTE, RESYNC_INTERVAL, RETRY_FIRST,
    RETRY_MAX,
};
pub use last_good::{CopyError, LastGood, Loaded};
use last_good::{KeptKey, KeptSnapshot};

const CONFIGURATION_CHANNEL: &str = "flagmint_config";
const KEYS_CHANNEL: &str = "flagmint_keys";
const LIMITS_CHANNEL: &str = "flagmint_limits";

/// Postgres cannot be asked, or answered what cannot be right.
#[derive(Debug, Error)]
#[error("configuration source: {0}")]
pub struct SourceError(#[from] sqlx::Error);

/// The control plane's database as an evaluator sees it.
#[derive(Clone)]
pub struct ConfigurationSource {
    pool: PgPool,
    last_good: Option<Arc<LastGood>>,
}

impl ConfigurationSource {
    /// A source at this Postgres URL; connects when first asked.
    ///
    /// # Errors
    /// If the URL cannot be read.
    pub fn new(url: &str) -> Result<Self, SourceError> {
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(POSTGRES_WAIT)
            .connect_lazy(url)?;
        Ok(Self { pool, last_good: None })
    }

    /// The same, which keeps what it loads on disk, too, while it follows.
    #[must_use]
    pub fn with_last_good(self, last_good: Arc<LastGood>) -> Self {
        Self { last_good: Some(last_good), ..self }
    }

    /// Loads everything once, so that a caller can be told at once that it fails.
    ///
    /// # Errors
    /// If Postgres cannot be asked.
    pub async fn load(&self, directory: &Directory) -> Result<(), SourceError> {
        directory.set_source(self);
        self.load_snapshots(directory).await?;
        self.load_keys(directory).await?;
        self.load_limits(directory).await?;
        directory.set_source_state(false);
        Ok(())
    }

    /// The secret that all instances of the data plane share; with Postgres away, from the copy on disk.
    ///
    /// # Errors
    /// If Postgres cannot be asked and there is no copy.
    pub async fn secret(&self) -> Result<Zeroizing<[u8; 32]>, SourceError> {
        let asked = self.ask_secret().await;
        let Some(last_good) = &self.last_good else { return asked };
        match asked {
            Ok(secret) => {
                last_good.keep_secret(&secret);
                Ok(secret)
            }
            Err(error) => last_good.secret().ok_or(error),
        }
    }

    async fn ask_secret(&self) -> Result<Zeroizing<[u8; 32]>, SourceError> {
        let secret: Vec<u8> =
            sqlx::query_scalar("SELECT data_plane_secret FROM installation").fetch_one(&self.pool).await?;
        Ok(Zeroizing::new(secret.try_into().map_err(|_| not_32_bytes("data_plane_secret"))?))
    }

    /// Keeps `directory` in step until `shutdown`.
    pub async fn follow(self, directory: Arc<Directory>, shutdown: CancellationToken) {
        let writing = self.last_good.clone().map(|last_good| tokio::spawn(last_good.write(shutdown.clone())));
        self.follow_changes(&directory, &shutdown).await;
        if let Some(Err(error)) = futures::future::OptionFuture::from(writing).await {
            warn!(%error, "the copy of the configuration is not up to date");
        }
    }

    async fn follow_changes(&self, directory: &Directory, shutdown: &CancellationToken) {
        let mut wait = RETRY_FIRST;
        while !shutdown.is_cancelled() {
            let followed = tokio::select! {
                followed = self.follow_once(directory, &mut wait) => followed,
                () = shutdown.cancelled() => break,
            };
            if let Err(error) = followed {
                if !directory.is_source_away() {
                    warn!(%error, "configuration source is away; what is loaded stays in force");
                }
                directory.set_source_state(true);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn follow_once(&self, directory: &Directory, wait: &mut std::time::Duration) -> Result<(), SourceError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen_all([CONFIGURATION_CHANNEL, KEYS_CHANNEL, LIMITS_CHANNEL]).await?;
        self.load(directory).await?;
        info!("following configuration changes");
        *wait = RETRY_FIRST;
        let mut resync = interval(RESYNC_INTERVAL);
        let mut last_used = interval(LAST_USED_INTERVAL);
        for timer in [&mut resync, &mut last_used] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer.tick().await;
        }
        loop {
            tokio::select! {
                notification = listener.try_recv() => match notification? {
                    Some(notification) => self.apply(directory, notification.channel(), notification.payload()).await?,
                    // The connection was lost, and with it maybe notifications.
                    None => self.load(directory).await?,
                },
                _ = resync.tick() => self.load(directory).await?,
                _ = last_used.tick() => self.write_last_used(directory).await?,
            }
        }
    }

    async fn apply(&self, directory: &Directory, channel: &str, payload: &str) -> Result<(), SourceError> {
        let Ok(id) = payload.parse::<Uuid>() else {
            warn!(channel, payload, "notification without an id is ignored");
            return Ok(());
        };
        match channel {
            CONFIGURATION_CHANNEL => self.load_snapshot(directory, EnvironmentId(id)).await,
            LIMITS_CHANNEL => self.load_limits(directory).await,
            _ => self.load_key(directory, KeyId(id)).await,
        }
    }

    async fn load_snapshots(&self, directory: &Directory) -> Result<(), SourceError> {
        let revisions = sqlx::query(
            "SELECT environment_id, (extract(epoch FROM updated_at) * 1000000)::bigint AS revision FROM environment_snapshots",
        )
        .fetch_all(&self.pool)
        .await?;
        let held: HashMap<EnvironmentId, i64> = directory.versions();
        let mut known = Vec::new();
        for row in revisions {
            let id = EnvironmentId(row.try_get("environment_id")?);
            if held.get(&id) != Some(&row.try_get("revision")?) {
                self.load_snapshot(directory, id).await?;
            }
            known.push(id);
        }
        if let Some(last_good) = &self.last_good {
            last_good.keep_only(known);
        }
        Ok(())
    }

    async fn load_snapshot(&self, directory: &Directory, id: EnvironmentId) -> Result<(), SourceError> {
        let row = sqlx::query(
            "SELECT organization_id, project_id, version, compiled, pseudonym_key, pseudonym_key_number, \
             log_raw_context, private_attributes, subscription_active, \
             (extract(epoch FROM updated_at) * 1000000)::bigint AS revision \
             FROM environment_snapshots WHERE environment_id = $1",
        )
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(()) };
        let pseudonym_key: Vec<u8> = row.try_get("pseudonym_key")?;
        let kept = KeptSnapshot {
            environment: id,
            organization: OrganizationId(row.try_get("organization_id")?),
            project: ProjectId(row.try_get("project_id")?),
            version: row.try_get::<i64, _>("version")?.unsigned_abs(),
            revision: row.try_get("revision")?,
            subscription_active: row.try_get("subscription_active")?,
            log_raw_context: row.try_get("log_raw_context")?,
            private_attributes: row.try_get("private_attributes")?,
            pseudonym_key: pseudonym_key.try_into().map_err(|_| not_32_bytes("pseudonym_key"))?,
            pseudonym_key_number: row.try_get::<i32, _>("pseudonym_key_number")?.unsigned_abs(),
            compiled: row.try_get("compiled")?,
        };
        self.load_deltas(directory, kept.identity(), kept.version).await?;
        if let Err(error) = kept.put_in_force(directory) {
            warn!(environment = %id, %error, "unreadable configuration: the last good one stays in force");
            return Ok(());
        }
        if let Some(last_good) = &self.last_good {
            last_good.keep(kept);
        }
        Ok(())
    }

    async fn load_keys(&self, directory: &Directory) -> Result<(), SourceError> {
        let rows = sqlx::query(KEY_COLUMNS).fetch_all(&self.pool).await?;
        let keys = rows.iter().map(key_facts).collect::<Result<_, _>>()?;
        directory.replace_keys(keys);
        self.keep_keys(directory);
        Ok(())
    }

    fn keep_keys(&self, directory: &Directory) {
        if let Some(last_good) = &self.last_good {
            last_good.keep_keys(directory.key_facts().iter().map(KeptKey::from).collect());
        }
    }

    async fn load_key(&self, directory: &Directory, id: KeyId) -> Result<(), SourceError> {
        let one = format!("{KEY_COLUMNS} WHERE id = $1");
        if let Some(row) = sqlx::query(&one).bind(id.0).fetch_optional(&self.pool).await? {
            directory.put_key(key_facts(&row)?);
            self.keep_keys(directory);
        }
        Ok(())
    }

    async fn write_last_used(&self, directory: &Directory) -> Result<(), SourceError> {
        let (ids, times): (Vec<Uuid>, Vec<i64>) = directory.take_used().into_iter().map(|(id, at)| (id.0, at)).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE api_keys SET last_used_at = to_timestamp(used.at / 1000000.0) \
             FROM unnest($1::uuid[], $2::bigint[]) AS used (id, at) WHERE api_keys.id = used.id",
        )
        .bind(ids)
        .bind(times)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

const KEY_COLUMNS: &str = "SELECT id, key_hash, environment_id, rate_limit_per_minute, revoked_at IS NOT NULL AS revoked, \
     (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_at_us FROM api_keys";

fn key_facts(row: &sqlx::postgres::PgRow) -> Result<KeyFacts, sqlx::Error> {
    let hash: Vec<u8> = row.try_get("key_hash")?;
    let limit: Option<i32> = row.try_get("rate_limit_per_minute")?;
    Ok(KeyFacts {
        id: KeyId(row.try_get("id")?),
        hash: hash.try_into().map_err(|_| not_32_bytes("key_hash"))?,
        environment: EnvironmentId(row.try_get("environment_id")?),
        expires_at_us: row.try_get("expires_at_us")?,
        revoked: row.try_get("revoked")?,
        rate_limit_per_minute: limit.map_or(RATE_LIMIT_PER_MINUTE, i32::unsigned_abs),
    })
}

fn not_32_bytes(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: "not 32 bytes".into() }
}
