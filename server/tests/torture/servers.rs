//! The servers of the tests, killed: the scripts in dev/servers that started them start them again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::processes::LOOK;
use crate::slow_disk::SlowDisk;
use crate::support::PATIENCE;

pub const POSTGRES: &str = "FLAGMINT_TEST_POSTGRES_CONTROL";
pub const CLICKHOUSE: &str = "FLAGMINT_TEST_CLICKHOUSE_CONTROL";

fn directory(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    value.map(PathBuf::from).unwrap_or_else(|| panic!("`make test`, or the scripts in dev/servers, set {variable}"))
}

/// SIGKILL of a server whose script names its process in the file `pid` and starts it again while there is no file `down`. Returns when its process is there.
pub async fn kill(control_variable: &str, away: Duration) {
    let control = directory(control_variable);
    let pid = || std::fs::read_to_string(control.join("pid")).ok()?.trim().parse::<i32>().ok();
    let before = pid().expect("a running server");
    std::fs::write(control.join("down"), "").expect("a file");
    // SAFETY: the process is a server of these tests.
    assert_eq!(unsafe { libc::kill(before, libc::SIGKILL) }, 0);
    tokio::time::sleep(away).await;
    std::fs::remove_file(control.join("down")).expect("the file");
    let deadline = Instant::now() + PATIENCE;
    while pid().is_none_or(|pid| pid == before) {
        assert!(Instant::now() < deadline, "the server was not started again");
        tokio::time::sleep(LOOK).await;
    }
}

/// Kills ClickHouse and lets it start again with a slow disk, or without.
pub async fn restart_clickhouse(disk: Option<&SlowDisk>) {
    let control = directory(CLICKHOUSE);
    let settings = disk.map(SlowDisk::settings).into_iter().flatten();
    let environment: String = settings.map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(control.join("environment"), environment).expect("a file");
    kill(CLICKHOUSE, Duration::ZERO).await;
    if let Some(disk) = disk {
        // The process is there a moment before it has become the server.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let pid = std::fs::read_to_string(control.join("pid")).expect("a running server");
        disk.check(pid.trim().parse().expect("a pid"));
    }
}

/// SIGKILL of the broker, which is started again after a while.
pub async fn kill_broker(away: Duration) {
    let broker = directory("FLAGMINT_TEST_KAFKA_DIR").join("1");
    let pid = std::fs::read_to_string(broker.join("pid")).expect("a running broker");
    // SAFETY: the process is a server of these tests.
    assert_eq!(unsafe { libc::kill(pid.trim().parse().expect("a pid"), libc::SIGKILL) }, 0);
    tokio::time::sleep(away).await;
    let started = tokio::task::spawn_blocking(move || std::process::Command::new(broker.join("start")).status()).await;
    assert!(started.expect("it runs").expect("it can be run").success(), "the broker was not started again");
}
