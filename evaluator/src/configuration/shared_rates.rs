//! Rate limits across instances: each tells the others through Postgres how many requests of each key it admitted in this minute, and
//! learns what they admitted (docs/decisions has the bound).
//!
//! One statement per interval does both. With Postgres away each instance keeps to what it last knew, and to its own exact count.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flagmint_schemas::ids::KeyId;
use sqlx::{PgPool, Row};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{ConfigurationSource, SourceError};
use crate::directory::Directory;
use crate::http::minute_of;
use crate::limits::SHARED_RATES_INTERVAL;

/// One instance's part in the exchange.
pub struct SharedRates {
    pool: PgPool,
    instance: Uuid,
}

impl ConfigurationSource {
    /// This instance's part in the exchange of what keys have used.
    #[must_use]
    pub fn shared_rates(&self) -> SharedRates {
        SharedRates { pool: self.pool.clone(), instance: Uuid::new_v4() }
    }
}

impl SharedRates {
    /// Exchanges counts once an interval until `shutdown`.
    pub async fn follow(self, directory: Arc<Directory>, shutdown: CancellationToken) {
        let mut timer = interval(SHARED_RATES_INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_away = false;
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = shutdown.cancelled() => break,
            }
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let exchanged = self.exchange(&directory, minute_of(now_s)).await;
            if let (Err(error), false) = (&exchanged, is_away) {
                warn!(%error, "rate limits are this instance's own until Postgres is back");
            }
            is_away = exchanged.is_err();
        }
    }

    /// Tells what this instance admitted in `minute`, and learns what the others did.
    ///
    /// # Errors
    /// If Postgres cannot be asked.
    pub async fn exchange(&self, directory: &Directory, minute: u64) -> Result<(), SourceError> {
        let own = directory.admitted_in(minute);
        let (keys, requests): (Vec<Uuid>, Vec<i64>) = own.iter().map(|(key, count)| (key.0, i64::from(*count))).unzip();
        let rows = sqlx::query(
            "WITH own AS (
                 INSERT INTO key_rates (minute, key_id, instance_id, requests)
                 SELECT $1, used.key_id, $2, used.requests FROM unnest($3::uuid[], $4::bigint[]) AS used (key_id, requests)
                 ON CONFLICT (minute, key_id, instance_id) DO UPDATE SET requests = excluded.requests
             ), old AS (
                 DELETE FROM key_rates WHERE minute < $1 - 1 AND instance_id = $2 OR minute < $1 - 10
             )
             SELECT key_id, sum(requests)::bigint AS requests FROM key_rates
             WHERE minute = $1 AND instance_id <> $2 GROUP BY key_id",
        )
        .bind(i64::try_from(minute).unwrap_or(i64::MAX))
        .bind(self.instance)
        .bind(keys)
        .bind(requests)
        .fetch_all(&self.pool)
        .await?;
        let mut others = HashMap::with_capacity(rows.len());
        for row in rows {
            let requests: i64 = row.try_get("requests")?;
            others.insert(KeyId(row.try_get("key_id")?), u32::try_from(requests).unwrap_or(u32::MAX));
        }
        directory.learn_rates(minute, &others);
        Ok(())
    }
}
