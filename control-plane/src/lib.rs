//! Holds configuration in Postgres and publishes its versions.
