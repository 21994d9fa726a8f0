//! The query API: questions about decisions, answered from the store, with names from Postgres.

use std::sync::Arc;

use flagmint_query_api::{Directory, QueryApi, openapi, router};
use flagmint_store::RollupStore;

use super::process::Assembly;
use super::{health, management};
use crate::exit::Failure;

/// Starts answering; Postgres and the store are asked when a question needs them.
///
/// # Errors
/// If the URL of Postgres cannot be read.
pub fn start<S: RollupStore>(assembly: &mut Assembly, store: Arc<S>, postgres: &str) -> Result<(), Failure> {
    let names = Directory::connect(postgres).map_err(|error| Failure::Usage(format!("--postgres: {error}")))?;
    assembly.serve_in_background(router(QueryApi::new(store, names)), openapi());
    Ok(())
}

/// Without an answer of store and Postgres there is none to a question: both must answer now, and are asked for the state of the process.
///
/// # Errors
/// If one of them does not answer now.
pub async fn need_servers<S: RollupStore>(
    assembly: &mut Assembly,
    store: Arc<S>,
    postgres: &str,
) -> Result<(), Failure> {
    let pool = management::connect(postgres)?;
    flagmint_control_plane::answers(&pool).await.map_err(management::refused)?;
    assembly.need(health::check("postgres", move || management::answers(pool.clone())));
    assembly.need(health::check("rollups", move || {
        let store = Arc::clone(&store);
        async move { store.resume_positions().await.map(|_| ()).map_err(|error| error.to_string()) }
    }));
    Ok(())
}
