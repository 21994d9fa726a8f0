//! A disk that takes its time: a library that, preloaded into a server, lets each sync take longer (`slow_disk.c`).

use std::path::{Path, PathBuf};
use std::process::Command;

/// What each sync takes besides. An insert into ClickHouse waits for several, one after the other.
const SYNC_MS: u32 = 60;

pub struct SlowDisk {
    library: PathBuf,
}

impl SlowDisk {
    /// Compiles the library into a directory.
    pub fn new(directory: &Path) -> Self {
        let library = directory.join("slow_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/slow_disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().expect("a C compiler").success(), "slow_disk.c does not compile");
        Self { library }
    }

    /// The environment of a server that has this disk.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("SLOW_DISK_MS", SYNC_MS.to_string())]
    }

    /// Fails unless a process has the library: a server that was linked otherwise would not be slowed down, silently.
    pub fn check(&self, pid: i32) {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a running process");
        assert!(maps.contains(&self.library.display().to_string()), "process {pid} has no slow disk");
    }
}
