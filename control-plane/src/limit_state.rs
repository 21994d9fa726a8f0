//! Whether an organization has reached a monthly limit of its plan: told to evaluators, which then answer as the quota ladder says
//! (data plane 10.2). Who computes it calls this.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::{DbError, Pool, query};

/// Limits an organization until a time, or lifts the limit. `meter` is one of `api_calls`, `connections`, `observed_contexts` and
/// `track_events`.
///
/// # Errors
/// Postgres is away, or there is no such organization or meter.
pub async fn set_limit(
    pool: &Pool,
    organization: Uuid,
    meter: &str,
    until: Option<DateTime<Utc>>,
) -> Result<(), DbError> {
    let mut tx = pool.begin().await?;
    match until {
        Some(until) => {
            let changed = query(
                "INSERT INTO organization_limits (organization_id, meter, limited_until, plan_name)
                 SELECT o.id, $2, $3, p.name FROM organizations o JOIN plans p ON p.id = o.plan_id WHERE o.id = $1
                 ON CONFLICT (organization_id, meter)
                 DO UPDATE SET limited_until = excluded.limited_until, plan_name = excluded.plan_name",
            )
            .bind(organization)
            .bind(meter)
            .bind(until)
            .execute(&mut *tx)
            .await?;
            if changed.rows_affected() == 0 {
                return Err(DbError::RowNotFound);
            }
        }
        None => {
            query("DELETE FROM organization_limits WHERE organization_id = $1 AND meter = $2")
                .bind(organization)
                .bind(meter)
                .execute(&mut *tx)
                .await?;
        }
    }
    query("SELECT pg_notify('flagmint_limits', $1)").bind(organization.to_string()).execute(&mut *tx).await?;
    tx.commit().await
}
