//! Decides flags ([`engine`]) and serves decisions to applications (the data plane).

pub mod config_sync;
pub mod configuration;
pub mod contexts;
pub mod directory;
pub mod engine;
pub mod http;
pub mod limits;
pub mod peers;
pub mod quota;
pub mod serve;
pub mod session;
pub mod snapshot;
pub mod streams;
