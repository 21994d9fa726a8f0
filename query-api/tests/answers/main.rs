//! The query API over its real backends: rollups in Parquet files, names in Postgres with the control plane's
//! migrations. Every number is also computed a second way, from the events that the cells were made of.
//!
//! Needs `FLAGMINT_TEST_POSTGRES`, as `dev/servers/with-postgres cargo test …` sets it.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod analytics;
mod billing;
mod contexts;
mod refusals;
mod speed;
mod support;
