//! `flagmint migrate` and `flagmint migrate-data`: what precedes a move to other servers or another version.

mod data;
mod schema;

pub use data::data;
pub use schema::migrate;
