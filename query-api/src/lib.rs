//! Answers questions about decisions from the rollups.
//!
//! [`router`] serves the analytics (FLG-7, ANA-1 to ANA-5), observed contexts (OBS-1), usage (BIL-1) and reconciliation of
//! the management API. Each endpoint is a file: it extracts, plans the store's questions purely, has the store answer
//! them, and turns merged rows into the reply purely. Counts, billing and audit thus come from the same cells.

mod caller;
mod directory;
mod endpoints;
mod error;
mod limits;
mod measures;
mod members;
mod meta;
mod period;
mod questions;
mod reply;
mod rows;
mod state;
mod users;

pub use directory::{BadUrl, Directory};
pub use endpoints::{openapi, router};
pub use state::QueryApi;
