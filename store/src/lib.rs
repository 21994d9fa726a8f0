//! The rollup store: upsert cells, run queries.
