//! What a person can say to `flagmint`: subcommands and their options. Every option is also an environment variable
//! `FLAGMINT_…` and a member of `flagmint.toml` ([`crate::configuration`] turns those into defaults of these).

pub mod roles;
pub mod servers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use roles::{AggregatorOptions, ControlPlaneOptions, DataPlaneOptions, EvaluatorOptions, Listen, QueryApiOptions};
use servers::Servers;

/// Feature flags whose every decision is counted exactly, and provably.
#[derive(Debug, Parser)]
#[command(name = "flagmint", version, about, max_term_width = 120)]
#[command(after_help = "Without a command, `flagmint` is `flagmint up`. Every option is also an environment variable \
    (FLAGMINT_DATA_DIR) and a member of flagmint.toml (data_dir).")]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file; flagmint.toml in the working directory is read if it is there.
    #[arg(long, global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter such as flagmint_store=debug.
    #[arg(long, global = true, default_value = "info")]
    pub log_level: String,
    /// How to log, on standard error: text or json.
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All roles in one process on one data directory (the default).
    Up(UpOptions),
    /// One role of many instances: decides flags, appends to Kafka.
    Evaluator(EvaluatorOptions),
    /// One role of many instances: folds Kafka into ClickHouse.
    Aggregator(AggregatorOptions),
    /// One role of many instances: answers questions from ClickHouse.
    QueryApi(QueryApiOptions),
    /// One role of many instances: the management API over Postgres.
    ControlPlane(ControlPlaneOptions),
    /// Up with a sample organization and a load generator that calls the public data plane over HTTP.
    Demo(DemoOptions),
    /// Open-loop (--rate) or closed-loop (--connections) load against any instance.
    Load(LoadOptions),
    /// Decides flags read from standard input, one JSON object a line.
    Evaluate(EvaluateOptions),
    /// The reconciliation: produced = counted + duplicates + parked + in flight; exit status 1 if it does not hold.
    Audit(AuditOptions),
    /// Applies the migrations of Postgres and ClickHouse, of those that are given, and exits.
    Migrate(MigrateOptions),
    /// Copies the rollups of a data directory that is not running into ClickHouse: every number stays.
    MigrateData(MigrateDataOptions),
    /// Shows or checks the configuration.
    Config {
        /// Which.
        #[command(subcommand)]
        action: ConfigAction,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// The whole configuration with defaults and where each value came from, secrets hidden.
    Print(UpOptions),
    /// Validates the configuration without starting.
    Check(UpOptions),
}

/// Options of a server.
#[derive(Clone, Debug, Args)]
pub struct UpOptions {
    /// Where it serves.
    #[command(flatten)]
    pub listen: Listen,
    /// Holds the log, the rollups and Postgres; locked by one process.
    #[arg(long, default_value = "./flagmint-data", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// Servers to use instead of what is embedded.
    #[command(flatten)]
    pub servers: Servers,
    /// The first user of an empty installation.
    #[command(flatten)]
    pub first_user: FirstUserOptions,
    /// How applications are answered.
    #[command(flatten)]
    pub data_plane: DataPlaneOptions,
    /// Partitions of a new decision log.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub log_partitions: u32,
    /// How long the decision log is kept once folded.
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = duration)]
    pub log_retention: Duration,
    /// Shortest time between two emissions to the rollups; 50ms, with ClickHouse 100ms.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub emit_interval: Option<Duration>,
}

/// The first user of an empty installation.
#[derive(Clone, Debug, Args)]
pub struct FirstUserOptions {
    /// Mail address of the first user of an empty installation.
    #[arg(long, default_value = "admin@localhost.localdomain", value_name = "ADDRESS")]
    pub admin_email: String,
    /// File with the first user's password; without it one is made and printed once.
    #[arg(long, value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,
}

/// Options of the demo.
#[derive(Clone, Debug, Args)]
pub struct DemoOptions {
    /// Requests a second, sent at even times whatever the answers do.
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// How long to send; without it until Ctrl-C.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Flags of the sample project; the first twelve show every type and strategy.
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub flags: u32,
    /// Prints the report as one line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Options of the server; without --data-dir a temporary directory is used and removed at the end.
    #[command(flatten)]
    pub up: DemoServerOptions,
}

/// Where the demo's server runs.
#[derive(Clone, Debug, Args)]
pub struct DemoServerOptions {
    /// Address to serve on; port 0 takes any free one and prints it.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Data directory to use and keep.
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Servers to use instead of what is embedded.
    #[command(flatten)]
    pub servers: Servers,
    /// Shortest time between two emissions to the rollups; 50ms, with ClickHouse 100ms.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub emit_interval: Option<Duration>,
}

impl DemoServerOptions {
    /// The same as options of `up`, on `data_dir`.
    #[must_use]
    pub fn into_up(self, data_dir: PathBuf) -> UpOptions {
        UpOptions {
            listen: Listen::on(self.listen),
            data_dir,
            servers: self.servers,
            first_user: FirstUserOptions { admin_email: "demo@flagmint.example".into(), admin_password_file: None },
            emit_interval: self.emit_interval,
            data_plane: DataPlaneOptions::default(),
            log_partitions: 1,
            log_retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Options of the load generator.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// Where the instance listens, such as http://127.0.0.1:3000.
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// An SDK key.
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// Ask by OFREP for the flag with this key, not by REST for all flags.
    #[arg(long, value_name = "FLAG", conflicts_with = "ofrep_all")]
    pub ofrep: Option<String>,
    /// Ask by OFREP for all flags.
    #[arg(long)]
    pub ofrep_all: bool,
    /// Open loop: requests a second, sent at even times whatever the answers do.
    #[arg(long, value_name = "N", conflicts_with = "connections", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Closed loop: connections that each send the next request when the answer is there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,
    /// How long to send.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    pub duration: Duration,
    /// Different contexts.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub contexts: u32,
    /// Prints the report as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of the offline evaluator.
#[derive(Clone, Debug, Args)]
pub struct EvaluateOptions {
    /// A compiled configuration; lines are then {"key","context"}.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options of the audit.
#[derive(Clone, Debug, Args)]
pub struct AuditOptions {
    /// Data directory of an installation that is not running.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "url")]
    pub data_dir: Option<PathBuf>,
    /// A running instance.
    #[arg(long, value_name = "URL", requires = "access_token")]
    pub url: Option<String>,
    /// Access token of an admin, for --url.
    #[arg(long, value_name = "TOKEN")]
    pub access_token: Option<String>,
    /// One organization only.
    #[arg(long, value_name = "ID")]
    pub org: Option<uuid::Uuid>,
    /// Start, ISO-8601; default 24 hours ago.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// End, ISO-8601; default now.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of the migration.
#[derive(Clone, Debug, Args)]
pub struct MigrateOptions {
    /// The servers.
    #[command(flatten)]
    pub servers: Servers,
}

/// Options of the move of an embedded installation's data.
#[derive(Clone, Debug, Args)]
pub struct MigrateDataOptions {
    /// Data directory of the installation; it must not be running.
    #[arg(long, default_value = "./flagmint-data", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// ClickHouse.
    #[command(flatten)]
    pub clickhouse: servers::ClickHouse,
}

/// Reads `500ms`, `20s`, `5m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "a duration is a number and a unit, such as 20s or 500ms".to_owned())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("has no unit: write {number}s, or such as 20s or 500ms")),
        _ => return Err(format!("unit {unit:?} is none of ms, s, m, h, d: write such as 20s or 500ms")),
    };
    number
        .checked_mul(ms)
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "is zero or too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("20s", Some(20_000)),
            ("500ms", Some(500)),
            ("2h", Some(7_200_000)),
            ("5", None),
            ("s", None),
            ("0s", None),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }
}
