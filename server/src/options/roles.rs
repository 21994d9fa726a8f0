//! Options of single roles, of which as many instances run as are needed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flagmint_evaluator::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};
use flagmint_evaluator::serve::Limits;

use super::servers::Servers;
use super::{FirstUserOptions, duration};
use crate::piece::process::Addresses;

/// Where a role serves.
#[derive(Clone, Debug, Args)]
pub struct Listen {
    /// Address to serve on; port 0 takes any free one and prints it.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address for health, metrics and version; the listening port also has them.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
    /// Connections at most; fewer if the system allows fewer open files.
    #[arg(long, default_value_t = CONNECTIONS_MAX, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Connections from one IPv4 address, or IPv6 network of 64 bits, at most; lower it where clients connect directly and not through a
    /// proxy.
    #[arg(long, default_value_t = CONNECTIONS_PER_ADDRESS_MAX, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_address: u32,
}

impl Listen {
    /// On this address, with the defaults for the rest.
    pub const fn on(listen: SocketAddr) -> Self {
        Self {
            listen,
            admin_listen: None,
            max_connections: CONNECTIONS_MAX,
            max_connections_per_address: CONNECTIONS_PER_ADDRESS_MAX,
        }
    }

    /// The same for a process.
    pub fn addresses(&self) -> Addresses {
        let limits = Limits {
            connections_max: self.max_connections,
            per_address_max: self.max_connections_per_address,
            ..Limits::default()
        };
        Addresses { listen: self.listen, admin_listen: self.admin_listen, limits }
    }
}

/// How applications are answered, in a process of its own or in one with everything.
#[derive(Clone, Debug, Default, Args)]
pub struct DataPlaneOptions {
    /// Requests that carry this in x-bypass-rate-limit skip the rate limit.
    #[arg(long, value_name = "TOKEN")]
    pub rate_limit_bypass_token: Option<String>,
    /// Serves the routes for tests of config-sync, /evaluator/v2/qa/config-sync/…; whoever has an SDK key can then shift the clock of leases.
    #[arg(long)]
    pub qa_routes: bool,
    /// Answers OFREP with 403: applications then use clients of Flagmint alone.
    #[arg(long)]
    pub no_ofrep: bool,
    /// Where other instances reach this one, as contexts posted to them for streams held here are forwarded; --listen, or this host's name
    /// and that port if that is all addresses.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
}

/// Where a role that records keeps what must outlast it.
#[derive(Clone, Debug, Args)]
pub struct Kept {
    /// Holds batches that Kafka does not take, and an evaluator's last good configuration; of one process alone.
    #[arg(long, default_value = "./flagmint-data", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
}

/// Options of an evaluator.
#[derive(Clone, Debug, Args)]
pub struct EvaluatorOptions {
    /// Where it serves.
    #[command(flatten)]
    pub listen: Listen,
    /// Kafka and Postgres.
    #[command(flatten)]
    pub servers: Servers,
    /// What must outlast the process.
    #[command(flatten)]
    pub kept: Kept,
    /// How applications are answered.
    #[command(flatten)]
    pub data_plane: DataPlaneOptions,
}

/// Options of an aggregator.
#[derive(Clone, Debug, Args)]
pub struct AggregatorOptions {
    /// Where it serves: health and metrics only.
    #[command(flatten)]
    pub listen: Listen,
    /// Kafka and ClickHouse.
    #[command(flatten)]
    pub servers: Servers,
    /// A name that this instance has at every start, unique in its group: after a restart it goes on with the same partitions.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Shortest time between two inserts, 100ms if not given: decisions are visible about that much later, and inserts cost more the shorter
    /// it is.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub emit_interval: Option<Duration>,
}

/// Options of a query API.
#[derive(Clone, Debug, Args)]
pub struct QueryApiOptions {
    /// Where it serves.
    #[command(flatten)]
    pub listen: Listen,
    /// ClickHouse and Postgres.
    #[command(flatten)]
    pub servers: Servers,
}

/// Options of a control plane.
#[derive(Clone, Debug, Args)]
pub struct ControlPlaneOptions {
    /// Where it serves.
    #[command(flatten)]
    pub listen: Listen,
    /// Kafka, in which its writes are recorded as calls, and Postgres.
    #[command(flatten)]
    pub servers: Servers,
    /// What must outlast the process.
    #[command(flatten)]
    pub kept: Kept,
    /// The first user of an empty installation.
    #[command(flatten)]
    pub first_user: FirstUserOptions,
}
