//! The whole binary, started as a person starts it.

mod broken_files;
mod config_sync;
mod faults;
mod installation;
mod kills;
mod load;
mod privacy;
mod support;
#[path = "../../../evaluator/tests/support/sync_client.rs"]
mod sync_client;
