//! Brings the tables of Postgres and ClickHouse to this version.

use flagmint_control_plane as control_plane;

use crate::exit::Failure;
use crate::options::MigrateOptions;
use crate::piece::{management, servers};

/// Applies the migrations of the servers that are given.
///
/// # Errors
/// If a server cannot be had or refuses, or none is given.
pub fn migrate(options: &MigrateOptions) -> Result<(), Failure> {
    let clickhouse = &options.servers.clickhouse;
    let clickhouse = clickhouse.clickhouse.as_ref().map(|_| servers::clickhouse_options(clickhouse)).transpose()?;
    let postgres = options.servers.postgres.as_deref();
    if clickhouse.is_none() && postgres.is_none() {
        return Err(Failure::Usage("say what to migrate: --postgres, --clickhouse, or both".into()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::resource("runtime", error))?.block_on(async {
        if let Some(url) = postgres {
            let pool = management::connect(url)?;
            control_plane::migrate(&pool).await.map_err(management::refused)?;
            println!("Postgres is up to date");
        }
        if let Some(clickhouse) = clickhouse {
            servers::clickhouse_migrated(&clickhouse).await?;
            println!("ClickHouse is up to date");
        }
        Ok(())
    })
}
