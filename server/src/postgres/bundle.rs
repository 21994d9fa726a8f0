//! The PostgreSQL inside our binary: a tar.zst of `VERSION`, `bin`, `lib`, `share` and `template` (a data directory that initdb
//! made), built by `dev/servers/postgres-bundle` and embedded by `build.rs`.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

static EMBEDDED: &[u8] = include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

/// A bundle and what it says about itself.
pub(super) struct Bundle {
    archive: &'static [u8],
    /// PostgreSQL's version and the layout of the bundle, such as `17.11-1`.
    pub(super) version: String,
    /// PostgreSQL's major version.
    pub(super) major: u32,
}

impl Bundle {
    /// The bundle of this binary; none when it was built without.
    pub(super) fn embedded() -> Option<Bundle> {
        if EMBEDDED.is_empty() {
            return None;
        }
        let version = read_version(EMBEDDED).expect("the bundle was made by our own script and begins with VERSION");
        let major =
            version.split('.').next().and_then(|major| major.parse().ok()).expect("a version begins with a number");
        Some(Bundle { archive: EMBEDDED, version, major })
    }

    /// Unpacks everything, the template only if asked for, into `target`, which is made.
    pub(super) fn unpack(&self, target: &Path, with_template: bool) -> io::Result<()> {
        fs::create_dir(target)?;
        let mut archive = tar::Archive::new(zstd::Decoder::new(self.archive)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if with_template || !entry.path()?.starts_with("template") {
                entry.unpack_in(target)?;
            }
        }
        Ok(())
    }
}

/// `VERSION` is the first member, so that only one block is decompressed.
fn read_version(archive: &[u8]) -> io::Result<String> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(archive)?);
    let mut first = archive.entries()?.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let mut version = String::new();
    first.read_to_string(&mut version)?;
    Ok(version.trim_end().to_owned())
}
