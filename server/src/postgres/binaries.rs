//! Which PostgreSQL runs: the bundled one, else an installed one; and how each of them makes a new data directory.
//!
//! A data directory belongs to one major version for good, so an existing one decides: never the newest that can be found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::bundle::Bundle;
use super::home::Home;
use super::limits::LOWEST_MAJOR;
use super::process;
use super::sync::{sync, sync_tree};
use super::{IoContext, PostgresError};

/// Debian's layout: `<this>/<major>/bin`.
const DEBIAN_DIR: &str = "/usr/lib/postgresql";

/// A PostgreSQL that can run here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    /// Holds `postgres`, and `initdb` if installed.
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

/// Finds the binaries for a home and makes its data directory if there is none.
///
/// # Errors
/// [`PostgresError::NoBinaries`] or [`PostgresError::WrongMajor`] with what was looked at; failures of unpacking or `initdb`.
pub(super) fn prepare(home: &Home, bundle: Option<&Bundle>) -> Result<Binaries, PostgresError> {
    let wanted = home.data_major()?;
    let mut seen = Vec::new();
    if let Some(bundle) = bundle {
        let fits = wanted.is_none_or(|major| major == bundle.major);
        match fits.then(|| install(home, bundle)).transpose()? {
            Some(Ok(binaries)) => return Ok(binaries),
            Some(Err(reason)) => seen.push(format!("the bundled {} ({reason})", bundle.version)),
            None => seen.push(format!("the bundled {}", bundle.version)),
        }
    }
    let installed = installed();
    seen.extend(installed.iter().map(|binaries| format!("{} in {}", binaries.major, binaries.dir.display())));
    let fits = |binaries: &Binaries| wanted.map_or(binaries.major >= LOWEST_MAJOR, |major| major == binaries.major);
    let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
    match (installed.into_iter().find(fits), wanted) {
        (Some(binaries), None) => initialize(home, &binaries).map(|()| binaries),
        (Some(binaries), Some(_)) => Ok(binaries),
        (None, Some(wanted)) => Err(PostgresError::WrongMajor { data: home.data(), wanted, seen }),
        (None, None) => Err(PostgresError::NoBinaries { seen }),
    }
}

/// Unpacks what is missing of the bundle. The inner error is a bundle that does not run on this machine (no glibc, no libstdc++).
fn install(home: &Home, bundle: &Bundle) -> Result<Result<Binaries, String>, PostgresError> {
    let root = home.dir.join(format!("bin-{}", bundle.version));
    let binaries = Binaries { dir: root.join("bin"), major: bundle.major };
    let needs_data = !home.data().exists();
    if root.exists() && !needs_data {
        return Ok(Ok(binaries));
    }
    let new = home.dir.join("new");
    remove_if_there(&new)?;
    bundle.unpack(&new, needs_data).during("unpack PostgreSQL into", &new)?;
    if let Err(reason) = version_of(&new.join("bin")) {
        remove_if_there(&new)?;
        return Ok(Err(reason));
    }
    let template = new.join("template");
    if needs_data {
        home.give_tree(&template)?;
    }
    // The names appear only when what they stand for is on disk: a power cut leaves all or nothing.
    sync_tree(&new)?;
    if needs_data {
        fs::rename(&template, home.data()).during("put in place", &home.data())?;
    }
    remove_other_versions(home)?;
    fs::rename(&new, &root).during("put in place", &root)?;
    sync(&home.dir)?;
    Ok(Ok(binaries))
}

/// Each release may bring other binaries of 55 MB: the old ones go.
fn remove_other_versions(home: &Home) -> Result<(), PostgresError> {
    for entry in fs::read_dir(&home.dir).during("read", &home.dir)? {
        let entry = entry.during("read", &home.dir)?;
        if entry.file_name().as_encoded_bytes().starts_with(b"bin-") {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes the data directory with an installed `initdb`, which syncs it, beside its place and then renames it.
fn initialize(home: &Home, binaries: &Binaries) -> Result<(), PostgresError> {
    let new = home.dir.join("new");
    remove_if_there(&new)?;
    home.make_private_dir(&new)?;
    let mut command = process::command(&binaries.dir.join("initdb"), home.account);
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums", "-D"]).arg(&new);
    let output = command.output().during("run", &binaries.dir.join("initdb"))?;
    if !output.status.success() {
        return Err(PostgresError::Init { output: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    fs::rename(&new, home.data()).during("put in place", &home.data())?;
    sync(&home.dir)
}

/// What is installed, best first: the newest of Debian's, then what `PATH` has.
fn installed() -> Vec<Binaries> {
    let subdirs = fs::read_dir(DEBIAN_DIR).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|dir| dir.is_absolute() && dir.join("postgres").exists());
    // The link is followed, as initdb looks for its files beside its own place.
    let on_path = on_path.and_then(|dir| Some(dir.join("postgres").canonicalize().ok()?.parent()?.to_owned()));
    let mut found: Vec<Binaries> = subdirs
        .chain(on_path)
        .filter(|dir| dir.join("initdb").exists())
        .filter_map(|dir| Some(Binaries { major: version_of(&dir).ok()?, dir }))
        .collect();
    found.sort_by(|a, b| b.major.cmp(&a.major).then_with(|| a.dir.cmp(&b.dir)));
    found.dedup();
    found
}

/// Asks `postgres` for its major version, which also shows whether it runs at all; else why it does not.
fn version_of(dir: &Path) -> Result<u32, String> {
    let output = Command::new(dir.join("postgres")).arg("-V").output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    parse_major(&text).filter(|_| output.status.success()).ok_or_else(|| text.trim().to_owned())
}

/// The 17 of `postgres (PostgreSQL) 17.11 (Debian 17.11-1)`, and of `18beta1`.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

fn remove_if_there(path: &Path) -> Result<(), PostgresError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.during("remove", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(parse_major(text), expected, "{text}");
        check("postgres (PostgreSQL) 17.11\n", Some(17));
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15));
        check("postgres (PostgreSQL) 18beta1\n", Some(18));
        check("error while loading shared libraries: libstdc++.so.6", None);
        check("", None);
    }
}
