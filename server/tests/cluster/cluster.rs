//! The topology of `make cluster` on names of its own in the servers that the tests are given.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{EMAIL, PASSWORD, Server, database};

/// What a Kafka of one node needs to hand partitions over quickly, and we to notice.
const SESSION_TIMEOUT: &str = "6s";

fn given(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `make test`, or dev/servers/with-all cargo test …: these tests need real servers")
    })
}

/// Names in Kafka, ClickHouse and Postgres that no other test uses, and a directory.
pub struct Place {
    directory: tempfile::TempDir,
    pub kafka: String,
    pub topic: String,
    pub clickhouse: String,
    pub postgres: String,
}

impl Place {
    pub async fn new() -> Self {
        let name = format!("t{:016x}", rand::random::<u64>());
        let clickhouse = given("FLAGMINT_TEST_CLICKHOUSE");
        let (base, _) = clickhouse.split_at(
            clickhouse
                .find("://")
                .map_or(0, |at| clickhouse[at + 3..].find('/').map_or(clickhouse.len(), |slash| at + 3 + slash)),
        );
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            kafka: given("FLAGMINT_TEST_KAFKA"),
            clickhouse: format!("{base}/{name}"),
            topic: name,
            postgres: database().await,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A role with all servers, without what it alone takes.
    pub fn role(&self, role: &str) -> Command {
        self.role_but(role, &[])
    }

    /// The same with other values of some options.
    pub fn role_but(&self, role: &str, others: &[(&str, &str)]) -> Command {
        let mut options = std::collections::BTreeMap::from([
            ("--listen", "127.0.0.1:0"),
            ("--log-level", "warn"),
            ("--kafka", &*self.kafka),
            ("--kafka-topic", &self.topic),
            ("--kafka-group", &self.topic),
            ("--kafka-partitions", "4"),
            ("--kafka-session-timeout", SESSION_TIMEOUT),
            ("--clickhouse", &self.clickhouse),
            ("--postgres", &self.postgres),
        ]);
        let data_dir = self.path(role).display().to_string();
        if ["evaluator", "control-plane"].contains(&role) {
            options.insert("--data-dir", &data_dir);
        }
        options.extend(others.iter().copied());
        let mut command = flagmint(role);
        command.args(options.into_iter().flat_map(|(option, value)| [option, value]));
        command
    }

    pub fn evaluator(&self, number: u32) -> Server {
        let data_dir = self.path(&format!("evaluator-{number}")).display().to_string();
        Server::start(self.role_but("evaluator", &[("--data-dir", &data_dir)]))
    }

    pub fn aggregator(&self) -> Server {
        Server::start(self.role("aggregator"))
    }

    pub fn query_api(&self) -> Server {
        Server::start(self.role("query-api"))
    }

    pub fn control_plane(&self) -> Server {
        let password = self.path("password");
        std::fs::write(&password, PASSWORD).expect("a password file");
        let mut command = self.role("control-plane");
        command.args(["--admin-email", EMAIL]).arg("--admin-password-file").arg(password);
        Server::start(command)
    }

    pub fn migrate(&self) {
        let mut command = flagmint("migrate");
        let output = command.args(["--clickhouse", &self.clickhouse, "--postgres", &self.postgres]).output();
        let output = output.expect("flagmint runs");
        assert!(output.status.success(), "{output:?}");
    }
}

pub fn flagmint(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmint"));
    command.arg(subcommand).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command
}

/// Ends in order, or fails.
pub fn end(mut server: Server) {
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{} did not drain", server.url);
}
