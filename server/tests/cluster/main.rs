//! The roles in processes of their own, on a real Kafka, ClickHouse and Postgres.

mod cluster;
mod counts;
mod kafka_away;
mod last_good;
mod load;
mod moved;
mod poison;
mod refusals;
#[path = "../whole/support.rs"]
#[expect(dead_code, reason = "the other tests of the binary use the rest")]
mod support;
