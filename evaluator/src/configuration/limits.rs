//! Which organizations have reached a monthly limit, as the control plane says.

use std::collections::HashMap;

use flagmint_schemas::ids::OrganizationId;
use sqlx::Row as _;

use super::{ConfigurationSource, SourceError};
use crate::directory::Directory;
use crate::quota::{Limit, Meter};

impl ConfigurationSource {
    /// Replaces all limit states.
    pub(super) async fn load_limits(&self, directory: &Directory) -> Result<(), SourceError> {
        let rows = sqlx::query(
            "SELECT organization_id, meter, plan_name, (extract(epoch FROM limited_until) * 1000000)::bigint AS until_us \
             FROM organization_limits WHERE limited_until > now()",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut limits = HashMap::<OrganizationId, Vec<Limit>>::new();
        for row in rows {
            // A meter of a later version limits nothing here.
            let Some(meter) = Meter::from_name(row.try_get("meter")?) else { continue };
            let limit = Limit { meter, until_us: row.try_get("until_us")?, plan: row.try_get("plan_name")? };
            limits.entry(OrganizationId(row.try_get("organization_id")?)).or_default().push(limit);
        }
        directory.set_limits(limits);
        Ok(())
    }
}
