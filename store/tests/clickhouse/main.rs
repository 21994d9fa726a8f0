//! The ClickHouse store over a real ClickHouse: what every store must do, the schema and its rights, wrong servers, rewriting beside
//! late and repeated emissions, and SIGKILLs of the server.
//!
//! Needs `FLAGMINT_TEST_CLICKHOUSE`, as `dev/servers/with-clickhouse cargo test …` sets it.

mod conformance;
mod dead_letters;
mod kills;
mod rewriting;
mod schema;
mod support;
