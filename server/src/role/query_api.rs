//! `flagmint query-api`: answers questions about decisions from ClickHouse, with names from Postgres.

use std::future::{Pending, pending};
use std::sync::Arc;

use crate::exit::Failure;
use crate::options::roles::QueryApiOptions;
use crate::piece::{management, querying, servers};

/// Serves until told to stop.
///
/// # Errors
/// If a resource cannot be had.
pub fn query_api(options: QueryApiOptions) -> Result<(), Failure> {
    let postgres = options.servers.postgres()?.to_owned();
    management::check_url(&postgres)?;
    let clickhouse = servers::clickhouse_options(&options.servers.clickhouse)?;
    super::run("query-api", options.listen.addresses(), async |assembly| {
        let store = Arc::new(servers::clickhouse(&clickhouse).await?);
        querying::start(assembly, Arc::clone(&store), &postgres)?;
        querying::need_servers(assembly, store, &postgres).await?;
        Ok::<Pending<Failure>, _>(pending())
    })
}
