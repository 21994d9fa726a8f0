//! Used session ids, shared by all instances: the first to write an id has it.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ConfigurationSource, SourceError};
use crate::limits::CLAIMS_MAX;
use crate::session::used::Claim;

/// Expired ids are removed this often; they do no harm until then.
const CLEANING_INTERVAL: Duration = Duration::from_secs(60);

impl ConfigurationSource {
    /// Answers claims until `shutdown`. Those that come while a statement is under way share the next one.
    pub async fn share_sessions(self, mut claims: mpsc::Receiver<Claim>, shutdown: CancellationToken) {
        let mut cleaning = interval(CLEANING_INTERVAL);
        cleaning.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                received = claims.recv_many(&mut batch, CLAIMS_MAX) => {
                    if received == 0 {
                        break;
                    }
                    if let Err(error) = claim(&self.pool, std::mem::take(&mut batch)).await {
                        // Whoever asked learns it by the answer's absence, and counts it.
                        debug!(%error, "session claims are not answered");
                    }
                }
                _ = cleaning.tick() => {
                    let statement = "DELETE FROM used_sessions WHERE expires_at < now() - interval '1 minute'";
                    if let Err(error) = sqlx::query(statement).execute(&self.pool).await {
                        debug!(%error, "expired sessions stay for now");
                    }
                }
            }
        }
    }
}

async fn claim(pool: &PgPool, mut claims: Vec<Claim>) -> Result<(), SourceError> {
    // Nobody waits any more for what came while Postgres was away.
    claims.retain(|claim| !claim.answer.is_closed());
    let (hashes, expiries): (Vec<&[u8]>, Vec<i64>) =
        claims.iter().map(|claim| (claim.hash.as_slice(), claim.expires_us)).unzip();
    let first: Vec<Vec<u8>> = sqlx::query_scalar(
        "INSERT INTO used_sessions (session_hash, expires_at) \
         SELECT hash, to_timestamp(expiry_us / 1000000.0) FROM unnest($1::bytea[], $2::bigint[]) AS claim (hash, expiry_us) \
         ORDER BY hash ON CONFLICT DO NOTHING RETURNING session_hash",
    )
    .bind(hashes)
    .bind(expiries)
    .fetch_all(pool)
    .await?;
    for claim in claims {
        let _ = claim.answer.send(first.iter().any(|hash| **hash == claim.hash));
    }
    Ok(())
}
