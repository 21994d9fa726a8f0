//! Config-sync (data-plane.md section 7): clients that evaluate by themselves get the compiled configuration, authenticated
//! per session, and then one delta per publish.
//!
//! [`canonical_json`] and [`MacKey`] sign, [`payload`] holds the four kinds of payload, [`history`] the deltas at hand, and
//! [`feed`] decides what a client is sent next. Nothing here knows by which transport.

mod canonical;
pub mod clock;
pub mod feed;
pub mod history;
pub mod payload;
mod signing;

#[cfg(test)]
mod vectors;

pub use crate::session::MacKey;
pub use canonical::canonical_json;
