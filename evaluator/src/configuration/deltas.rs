//! What each publish changed, for clients that evaluate by themselves: loaded with the snapshot it leads to, and for publishes of
//! before the start when such a client asks.

use flagmint_ingest::EnvironmentIdentity;
use futures::TryStreamExt as _;
use sqlx::Row as _;
use tracing::warn;

use super::{ConfigurationSource, SourceError};
use crate::config_sync::payload::Delta;
use crate::directory::{Directory, Environment};
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_VERSIONS_MAX};

impl ConfigurationSource {
    /// Loads what changed between the version in force and the next one, before that comes into force.
    pub(super) async fn load_deltas(
        &self,
        directory: &Directory,
        identity: EnvironmentIdentity,
        version: u64,
    ) -> Result<(), SourceError> {
        let environment = directory.environment(identity.environment);
        let held = environment.snapshot().as_ref().map(|snapshot| snapshot.version);
        if let Some(held) = held.filter(|held| *held < version) {
            environment.history.extend(self.deltas(identity, held, version).await?);
        }
        Ok(())
    }

    /// Fetches the deltas of before the start, up to `version`, once; callers take turns. With Postgres away nothing changes.
    pub(crate) async fn fetch_history(&self, environment: &Environment, version: u64) {
        let mut fetched = environment.history.fetched.lock().await;
        let identity = environment.snapshot().as_ref().map(|snapshot| snapshot.identity);
        let Some(identity) = identity.filter(|_| !*fetched) else { return };
        match self.deltas(identity, 0, version).await {
            Ok(deltas) => {
                environment.history.prepend(deltas.into_iter(), version);
                *fetched = true;
            }
            Err(error) => warn!(environment = %environment.id, %error, "deltas of before the start cannot be had"),
        }
    }

    /// Deltas after one version and up to another, ascending: as many of the latest as are kept in memory.
    async fn deltas(&self, identity: EnvironmentIdentity, after: u64, through: u64) -> Result<Vec<Delta>, SourceError> {
        let mut rows = sqlx::query(
            "SELECT version, delta, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms \
             FROM environment_deltas \
             WHERE environment_id = $1 AND organization_id = $2 AND version > $3 AND version <= $4 \
             ORDER BY version DESC LIMIT $5",
        )
        .bind(identity.environment.0)
        .bind(identity.organization.0)
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::try_from(through).unwrap_or(i64::MAX))
        .bind(HISTORY_VERSIONS_MAX as i64)
        .fetch(&self.pool);
        let (mut deltas, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let version: i64 = row.try_get("version")?;
            let Some(delta) =
                Delta::parse(version.unsigned_abs(), row.try_get("created_at_ms")?, row.try_get("delta")?)
            else {
                warn!(environment = %identity.environment, version, "unreadable delta: clients behind it get everything");
                break;
            };
            bytes += delta.bytes();
            if bytes > HISTORY_BYTES_MAX {
                break;
            }
            deltas.push(delta);
        }
        deltas.reverse();
        Ok(deltas)
    }
}
