//! The manifest: which files there are and how far they fold the log, committed together by one rename.
//!
//! Format: a line `flagmint-rollups <version> <CRC-32C of the rest, 8 hex digits>`, then JSON.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{damaged, disk_error, sync_dir, write_synced};
use super::file::{DataFile, FileInfo};
use super::fold::Fold;
use crate::StoreError;

const NAME: &str = "MANIFEST";
const MAGIC: &str = "flagmint-rollups";

/// Raised with every change of the files, of what is in their columns, or of the manifest that another version would misread. 2: registers of
/// distinct users are stored in half a byte each.
const VERSION: u32 = 2;

/// What is stored at one moment. Readers hold it as long as they read.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    pub(super) state: State,
    pub(super) files: Vec<Arc<DataFile>>,
}

/// Everything in the manifest but the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Number of the next file.
    pub(super) next_file: u64,
    /// Hours that end before this have been rewritten, microseconds (cells that came later have not).
    pub(super) rolled_through_us: Option<i64>,
    /// What the files hold of the log.
    pub(super) fold: Fold,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    state: State,
    files: Vec<FileInfo>,
}

impl Catalog {
    /// Reads the manifest of a directory and checks that its files are there; starts one where there is nothing.
    pub(super) fn load(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::first(dir),
            Err(error) => return Err(disk_error(&path, &error)),
        };
        let manifest = parse(&bytes).map_err(|what| damaged(&path, &what))?;
        if let Some(unknown) = manifest.files.iter().find(|info| info.table().is_none()) {
            return Err(damaged(&path, &format!("{} is of no table of this version", unknown.name())));
        }
        let files = manifest.files.into_iter().map(|info| DataFile::open(dir, info)).collect::<Result<_, _>>()?;
        Ok(Self { state: manifest.state, files })
    }

    /// Files without a manifest are not a new store: somebody lost the manifest.
    fn first(dir: &Path) -> Result<Self, StoreError> {
        if names(dir)?.iter().any(|name| name.ends_with(".parquet")) {
            return Err(damaged(&dir.join(NAME), "it is missing though there are rollup files"));
        }
        let empty = Self::default();
        empty.commit(dir)?;
        Ok(empty)
    }

    /// Writes the manifest. When this returns, the files and the positions are stored; with [`StoreError::Retry`] the
    /// ones before are; with [`StoreError::Fatal`] either, which only the next start can tell.
    pub(super) fn commit(&self, dir: &Path) -> Result<(), StoreError> {
        let files = self.files.iter().map(|file| file.info.clone()).collect();
        let json = serde_json::to_vec(&Manifest { state: self.state.clone(), files }).expect("numbers and names");
        let temporary = dir.join("MANIFEST.tmp");
        // Files first: the names of all files must be durable before a manifest that lists them.
        sync_dir(dir)?;
        write_synced(&temporary, |out| {
            writeln!(out, "{MAGIC} {VERSION} {:08x}", crc32c::crc32c(&json))?;
            out.write_all(&json)
        })?;
        let path = dir.join(NAME);
        fs::rename(&temporary, &path).map_err(|error| disk_error(&path, &error))?;
        sync_dir(dir).map_err(|error| StoreError::Fatal(error.to_string()))
    }

    /// Removes files that no manifest names: left by a crash between writing and committing.
    pub(super) fn remove_orphans(&self, dir: &Path) -> Result<(), StoreError> {
        let named: HashSet<String> = self.files.iter().map(|file| file.info.name()).collect();
        for name in names(dir)? {
            let ours = name.ends_with(".parquet") || name.ends_with(".tmp");
            if ours && !named.contains(&name) {
                let path = dir.join(&name);
                fs::remove_file(&path).map_err(|error| disk_error(&path, &error))?;
            }
        }
        Ok(())
    }
}

fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| disk_error(dir, &error))?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no header")?;
    let (header, json) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let fields: Vec<&str> = header.split(' ').collect();
    let [MAGIC, version, checksum] = fields[..] else { return Err("it has no header".to_owned()) };
    if version != VERSION.to_string() {
        return Err(format!(
            "it is of format {version}, as another version of this program writes it; this one reads format {VERSION} alone"
        ));
    }
    if checksum != format!("{:08x}", crc32c::crc32c(json)) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}
