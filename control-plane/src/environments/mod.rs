//! Environments, apart from their project (management API 4).

pub(crate) mod destroy_pseudonym_key;
pub(crate) mod update;

use crate::db::query;
use crate::error::ApiError;
use crate::publish::notify;
use crate::scope::Write;
use uuid::Uuid;

/// Makes evaluators load an environment again that changed in something else than what is evaluated: no new version.
async fn reload(write: &mut Write, environment: Uuid) -> Result<(), ApiError> {
    query(
        "UPDATE environment_snapshots SET updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
         WHERE environment_id = $1 AND organization_id = $2",
    )
    .bind(environment)
    .bind(write.caller.organization)
    .execute(&mut *write.tx)
    .await?;
    notify(&mut write.tx, "flagmint_config", environment).await
}
