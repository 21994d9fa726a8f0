//! The servers of the tests, killed: the scripts in dev/servers that started them start them again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::processes::LOOK;
use crate::support::PATIENCE;

fn directory(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    value.map(PathBuf::from).unwrap_or_else(|| panic!("`make test`, or the scripts in dev/servers, set {variable}"))
}

/// SIGKILL of a server whose script names its process in the file `pid` and starts it again while there is no file `down`.
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
