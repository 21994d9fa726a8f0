//! Embeds the PostgreSQL bundle that `make setup` made, so that the one binary needs nothing installed. Without a bundle the
//! build goes on, and the binary looks for an installed server instead (docs/decisions/0001-embedded-postgres.md).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Says where the bundle is: the one place that knows its name, which holds version and architecture.
const SCRIPT: &str = "../dev/servers/postgres-bundle";

fn main() {
    println!("cargo::rerun-if-changed={SCRIPT}");
    println!("cargo::rerun-if-env-changed=FLAGMINT_POSTGRES_BUNDLE");
    println!("cargo::rerun-if-env-changed=XDG_CACHE_HOME");
    let bundle = bundle_path();
    if let Some(path) = &bundle {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let embedded = bundle.filter(|path| is_usable(path));
    let code = match &embedded {
        Some(path) => format!("include_bytes!({path:?})"),
        None => "&[]".to_owned(),
    };
    let out_dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out_dir).join("bundle.rs"), code).expect("OUT_DIR is writable");
}

/// Where the bundle is or would be; none where the script does not run.
fn bundle_path() -> Option<PathBuf> {
    let output = Command::new(SCRIPT).arg("path").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim_end()))
}

/// Whether it is there and made for the machine that we build for. `make setup` leaves an empty file where it could not make one.
fn is_usable(path: &Path) -> bool {
    let native = env::var("HOST").ok() == env::var("TARGET").ok();
    native && fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}
