//! The whole binary, started as a person starts it.

mod bad_keys;
mod broken_files;
mod clients;
mod clock;
mod config_sync;
mod failpoints;
mod faults;
mod hostile;
mod installation;
mod kills;
mod listener;
mod load;
mod metering;
mod meters;
mod privacy;
mod rates;
mod sse;
mod streams;
mod support;
#[path = "../../../evaluator/tests/support/sync_client.rs"]
mod sync_client;
mod wall_clock;
