//! The management API over real HTTP, on a real Postgres with a database per test. `FLAGMINT_TEST_POSTGRES` holds a
//! superuser's URL; `dev/servers/with-postgres` sets it.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod attributes;
mod bodies;
mod concurrency;
mod deltas;
mod environments;
mod flags;
mod hostile;
mod keys;
mod outage;
mod projects;
mod rollouts;
mod rules;
mod segments;
mod snapshots;
mod support;
mod users;
mod variations;
