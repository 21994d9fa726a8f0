//! How a data plane is set up.

use std::time::Duration;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::limits::{CONNECTIONS_PER_KEY_MAX, HEARTBEAT_INTERVAL, LEASE_INTERVAL, PING_INTERVAL};
use crate::session::used::Claim;

/// What differs between installations and instances. The default is an instance by itself.
#[derive(Debug)]
pub struct Settings {
    /// Requests that carry it in `x-bypass-rate-limit` skip the rate limit.
    pub bypass_token: Option<String>,
    /// Random, so that call ids of two processes differ.
    pub call_seed: u64,
    /// What all instances share ([`crate::configuration::ConfigurationSource::secret`]): session and connection ids are sealed under it.
    pub secret: Zeroizing<[u8; 32]>,
    /// Where used session ids are told to the other instances.
    pub claims: Option<mpsc::Sender<Claim>>,
    /// `host:port` at which other instances reach this one.
    pub address: Option<String>,
    /// Connections of one key at most.
    pub connections_per_key_max: usize,
    /// How often the lease of an open configuration stream is renewed.
    pub lease_interval: Duration,
    /// Whether the routes for tests of config-sync are served.
    pub qa_routes: bool,
    /// Whether OFREP is answered; 403 otherwise.
    pub ofrep: bool,
    /// How often a stream says that it is there.
    pub heartbeat_interval: Duration,
    /// How often a socket asks whether its client is there.
    pub ping_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bypass_token: None,
            call_seed: rand::random(),
            secret: Zeroizing::new(rand::random()),
            claims: None,
            address: None,
            connections_per_key_max: CONNECTIONS_PER_KEY_MAX,
            lease_interval: LEASE_INTERVAL,
            qa_routes: false,
            ofrep: true,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            ping_interval: PING_INTERVAL,
        }
    }
}
