//! The last good configuration on disk, so that an evaluator can start with Postgres away.
//!
//! A directory holds a file per environment, one of the keys (their hashes) and one of the secret that the instances share. Each is a line `flagmint-configuration VERSION SHA256`
//! and JSON, is replaced by a rename, and is readable by its owner alone, since it holds the keys of pseudonyms. A file that is damaged or
//! of another version is left out; without that of the keys nothing can be served. Keys that had expired or were revoked when
//! it was written, or expire afterwards, are refused as ever.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use flagmint_ingest::{ContextRedactor, EnvironmentIdentity};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId, ProjectId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use zeroize::Zeroizing;

use crate::directory::{Directory, KeyFacts, KeyHash};
use crate::engine::CompiledEnvironment;
use crate::limits::COPY_FILE_BYTES_MAX;
use crate::snapshot::{Configuration, Snapshot, SnapshotError, recorded_outcomes};

/// The first word of each file's head, and the version of what follows.
const MAGIC: &str = "flagmint-configuration";
const VERSION: u32 = 2;
const KEYS_FILE: &str = "keys";
const SECRET_FILE: &str = "secret";

/// Why there is no copy to start from.
#[derive(Debug, Error)]
pub enum CopyError {
    /// There is none yet.
    #[error("there is no copy of the configuration in {0} yet")]
    None(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was put in force from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Environments.
    pub environments: usize,
    /// Keys.
    pub keys: usize,
    /// Environments whose file is damaged: they are not served.
    pub damaged: usize,
    /// When the copy was last written, microseconds.
    pub written_us: i64,
}

/// An environment's row, as Postgres has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptSnapshot {
    pub environment: EnvironmentId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub version: u64,
    pub revision: i64,
    pub subscription_active: bool,
    pub log_raw_context: bool,
    pub private_attributes: Vec<String>,
    pub pseudonym_key: [u8; 32],
    pub pseudonym_key_number: u32,
    pub compiled: String,
}

impl KeptSnapshot {
    /// Whose it is.
    pub fn identity(&self) -> EnvironmentIdentity {
        EnvironmentIdentity { organization: self.organization, project: self.project, environment: self.environment }
    }

    /// Compiles it and puts it in force.
    pub fn put_in_force(&self, directory: &Directory) -> Result<(), SnapshotError> {
        let identity = self.identity();
        let configuration = Configuration::parse(&self.compiled)?;
        let compiled = CompiledEnvironment::compile(&configuration.flags, &configuration.segments);
        let private = self.private_attributes.iter().map(String::as_str);
        let redactor = ContextRedactor::new(self.pseudonym_key, self.log_raw_context)
            .with_key_number(self.pseudonym_key_number)
            .with_private(private);
        let recorder = directory.recorder_for(identity, recorded_outcomes(&compiled), redactor);
        let (version, revision) = (self.version, self.revision);
        let snapshot = Snapshot::new(identity, version, revision, self.subscription_active, compiled, Some(recorder));
        directory.publish(snapshot.with_metadata(&configuration.metadata).with_stored(self.compiled.clone()));
        Ok(())
    }
}

/// What is kept of a key: no key, only its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptKey {
    id: KeyId,
    hash: KeyHash,
    environment: EnvironmentId,
    expires_at_us: Option<i64>,
    revoked: bool,
    rate_limit_per_minute: u32,
}

impl From<&KeyFacts> for KeptKey {
    fn from(facts: &KeyFacts) -> Self {
        Self {
            id: facts.id,
            hash: facts.hash,
            environment: facts.environment,
            expires_at_us: facts.expires_at_us,
            revoked: facts.revoked,
            rate_limit_per_minute: facts.rate_limit_per_minute,
        }
    }
}

impl From<KeptKey> for KeyFacts {
    fn from(kept: KeptKey) -> Self {
        Self {
            id: kept.id,
            hash: kept.hash,
            environment: kept.environment,
            expires_at_us: kept.expires_at_us,
            revoked: kept.revoked,
            rate_limit_per_minute: kept.rate_limit_per_minute,
        }
    }
}

/// The directory, and what is to be written into it.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    pending: Mutex<Pending>,
    changed: Notify,
}

/// The latest of each: what changes again before it is written is written once.
#[derive(Debug, Default)]
struct Pending {
    snapshots: BTreeMap<EnvironmentId, KeptSnapshot>,
    keys: Option<Vec<KeptKey>>,
    secret: Option<Zeroizing<[u8; 32]>>,
    /// All environments there are.
    known: Option<HashSet<EnvironmentId>>,
}

impl LastGood {
    /// Opens a directory, making it if there is none.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| CopyError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), pending: Mutex::default(), changed: Notify::new() })
    }

    /// Puts in force what is on disk.
    ///
    /// # Errors
    /// If there is none, or the file of the keys cannot be read.
    pub fn load(&self, directory: &Directory) -> Result<Loaded, CopyError> {
        let keys: Vec<KeptKey> = self.read(KEYS_FILE)?;
        let mut loaded = Loaded { environments: 0, keys: keys.len(), damaged: 0, written_us: self.written_us() };
        for environment in self.environments()? {
            let put = self.read::<KeptSnapshot>(&environment.to_string()).and_then(|kept| {
                let damaged = |error: SnapshotError| self.damaged(&environment.to_string(), error);
                kept.put_in_force(directory).map_err(damaged)
            });
            match put {
                Ok(()) => loaded.environments += 1,
                Err(error) => {
                    warn!(%environment, %error, "an environment is not served: its copy cannot be read");
                    loaded.damaged += 1;
                }
            }
        }
        directory.replace_keys(keys.into_iter().map(KeyFacts::from).collect());
        directory.set_loaded_from_copy(loaded.written_us);
        Ok(loaded)
    }

    fn environments(&self) -> Result<Vec<EnvironmentId>, CopyError> {
        let entries = fs::read_dir(&self.path).map_err(|source| CopyError::Io { path: self.path.clone(), source })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    fn written_us(&self) -> i64 {
        let modified = fs::metadata(self.path.join(KEYS_FILE)).and_then(|metadata| metadata.modified());
        let since = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    fn damaged(&self, name: &str, reason: impl ToString) -> CopyError {
        CopyError::Damaged { path: self.path.join(name), reason: reason.to_string() }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, CopyError> {
        let path = self.path.join(name);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CopyError::None(self.path.clone()),
            _ => CopyError::Io { path: path.clone(), source },
        })?;
        let end = text.iter().position(|byte| *byte == b'\n');
        let (head, body) = text.split_at(end.ok_or_else(|| self.damaged(name, "it has no first line"))?);
        let body = &body[1..];
        let expected = head_of(body);
        if head != expected.as_bytes() {
            let found = String::from_utf8_lossy(&head[..head.len().min(expected.len())]).into_owned();
            return Err(self.damaged(name, format!("its first line is {found:?}, where {expected:?} belongs")));
        }
        serde_json::from_slice(body).map_err(|error| self.damaged(name, error))
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, snapshot: KeptSnapshot) {
        self.pending().snapshots.insert(snapshot.environment, snapshot);
        self.changed.notify_one();
    }

    pub(super) fn keep_keys(&self, mut keys: Vec<KeptKey>) {
        keys.sort_by_key(|key| key.id);
        self.pending().keys = Some(keys);
        self.changed.notify_one();
    }

    pub(super) fn keep_secret(&self, secret: &Zeroizing<[u8; 32]>) {
        self.pending().secret = Some(secret.clone());
        self.changed.notify_one();
    }

    /// The secret that was kept, if it was and its file is sound.
    pub(super) fn secret(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.read(SECRET_FILE).ok().map(Zeroizing::new)
    }

    pub(super) fn keep_only(&self, environments: Vec<EnvironmentId>) {
        self.pending().known = Some(environments.into_iter().collect());
        self.changed.notify_one();
    }

    /// Writes what changes until `shutdown`, and what is left then.
    pub(super) async fn write(self: Arc<Self>, shutdown: CancellationToken) {
        let mut is_last = false;
        while !is_last {
            tokio::select! {
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => is_last = true,
            }
            let own = Arc::clone(&self);
            // What could not be written is tried again with the next comparison with Postgres, seconds later.
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || own.write_pending()).await {
                metrics::counter!("flagmint_evaluator_copy_failures_total").increment(1);
                warn!(%error, "the copy of the configuration could not be written; a start with Postgres away would serve an older one");
            }
        }
    }

    fn write_pending(&self) -> Result<(), CopyError> {
        let pending = std::mem::take(&mut *self.pending());
        let written = self.write_all(&pending);
        if written.is_err() {
            let mut held = self.pending();
            for (environment, snapshot) in pending.snapshots {
                held.snapshots.entry(environment).or_insert(snapshot);
            }
            held.keys = held.keys.take().or(pending.keys);
            held.secret = held.secret.take().or(pending.secret);
            held.known = held.known.take().or(pending.known);
        }
        written
    }

    fn write_all(&self, pending: &Pending) -> Result<(), CopyError> {
        for (environment, snapshot) in &pending.snapshots {
            self.replace(&environment.to_string(), snapshot)?;
        }
        if let Some(secret) = &pending.secret {
            self.replace(SECRET_FILE, &**secret)?;
        }
        // The keys last: with them the copy is one to start from.
        if let Some(keys) = &pending.keys {
            self.replace(KEYS_FILE, keys)?;
        }
        let Some(known) = &pending.known else { return Ok(()) };
        for environment in self.environments()?.into_iter().filter(|environment| !known.contains(environment)) {
            let path = self.path.join(environment.to_string());
            fs::remove_file(&path).map_err(|source| CopyError::Io { path, source })?;
        }
        Ok(())
    }

    fn replace(&self, name: &str, value: &impl Serialize) -> Result<(), CopyError> {
        let body = serde_json::to_vec(value).map_err(|error| self.damaged(name, error))?;
        if body.len() > COPY_FILE_BYTES_MAX {
            return Err(self.damaged(name, format!("{} bytes are too large for a copy", body.len())));
        }
        let path = self.path.join(name);
        let mut text = head_of(&body).into_bytes();
        text.push(b'\n');
        text.extend_from_slice(&body);
        if fs::read(&path).is_ok_and(|held| held == text) {
            return Ok(());
        }
        write_atomically(&path, &text).map_err(|source| CopyError::Io { path, source })
    }
}

fn head_of(body: &[u8]) -> String {
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{MAGIC} {VERSION} {digest}")
}

fn write_atomically(path: &Path, text: &[u8]) -> io::Result<()> {
    // A name that is no environment's, so that what a crash leaves is never read; the next write replaces it.
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use flagmint_ingest::Recorder;
    use flagmint_log::{LocalLog, Options};
    use uuid::Uuid;

    use super::*;
    use crate::directory::key_hash;

    fn kept(number: u128, revision: i64) -> KeptSnapshot {
        let compiled =
            r#"{"flags":[{"id":"00000000-0000-0000-0000-000000000001","key":"a","type":"boolean"}],"segments":{}}"#;
        KeptSnapshot {
            environment: EnvironmentId(Uuid::from_u128(number)),
            organization: OrganizationId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::from_u128(2)),
            version: 3,
            revision,
            subscription_active: true,
            log_raw_context: false,
            private_attributes: vec!["user.salary".into()],
            pseudonym_key: [7; 32],
            pseudonym_key_number: 1,
            compiled: compiled.into(),
        }
    }

    fn key(number: u128, text: &str, expires_at_us: Option<i64>, revoked: bool) -> KeptKey {
        let environment = EnvironmentId(Uuid::from_u128(10));
        KeptKey {
            id: KeyId(Uuid::from_u128(number)),
            hash: key_hash(text),
            environment,
            expires_at_us,
            revoked,
            rate_limit_per_minute: 0,
        }
    }

    /// A directory without configuration, on a log of its own.
    async fn empty(place: &Path) -> Directory {
        let log = LocalLog::open(Options::new(place.join("log"), 1)).unwrap();
        let settings = flagmint_ingest::Settings { spool_directory: place.join("spool"), ..Default::default() };
        Directory::new(Recorder::start(Arc::new(log), settings).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_is_in_force_after_a_start() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("configuration");
        let copy = LastGood::open(&path).unwrap();
        let directory = empty(place.path()).await;
        assert!(matches!(copy.load(&directory), Err(CopyError::None(_))));
        assert!(!directory.is_loaded());
        copy.keep(kept(10, 1));
        copy.keep(kept(10, 2));
        copy.keep(kept(11, 1));
        copy.keep_keys(vec![key(1, "good", None, false), key(2, "old", Some(500), false), key(3, "gone", None, true)]);
        copy.write_pending().unwrap();
        let loaded = LastGood::open(&path).unwrap().load(&directory).unwrap();
        assert_eq!((loaded.environments, loaded.keys, loaded.damaged), (2, 3, 0));
        assert!(directory.is_loaded() && directory.is_source_away());
        assert_eq!(directory.copy_written_us(), Some(loaded.written_us));
        assert_eq!(directory.versions()[&EnvironmentId(Uuid::from_u128(10))], 2, "the later of two");
        assert_eq!(copy.secret(), None);
        copy.keep_secret(&Zeroizing::new([9; 32]));
        copy.write_pending().unwrap();
        assert_eq!(copy.secret().as_deref(), Some(&[9; 32]));
        let usable = ["good", "old", "gone", "other"].map(|text| directory.authenticate(text, 499).is_some());
        assert_eq!(usable, [true, true, false, false]);
        assert!(directory.authenticate("old", 500).is_none(), "it expires with Postgres away, too");
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
            assert!(!String::from_utf8(fs::read(entry.path()).unwrap()).unwrap().contains("good"), "hashes only");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_gone_is_removed_and_what_did_not_change_is_not_written() {
        let place = tempfile::tempdir().unwrap();
        let copy = LastGood::open(place.path()).unwrap();
        copy.keep(kept(10, 1));
        copy.keep(kept(11, 1));
        copy.keep_keys(vec![]);
        copy.write_pending().unwrap();
        let inode = |name: u128| {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(place.path().join(Uuid::from_u128(name).to_string())).map(|metadata| metadata.ino()).ok()
        };
        let before = inode(10);
        copy.keep(kept(10, 1));
        copy.keep_only(vec![EnvironmentId(Uuid::from_u128(10))]);
        copy.write_pending().unwrap();
        assert_eq!((inode(10), inode(11)), (before, None));
        copy.keep(kept(10, 2));
        copy.write_pending().unwrap();
        assert_ne!(inode(10), before);
    }

    #[test]
    fn what_could_not_be_written_is_not_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("configuration");
        let copy = LastGood::open(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        copy.keep(kept(10, 1));
        copy.keep_keys(vec![]);
        assert!(copy.write_pending().is_err());
        fs::create_dir(&path).unwrap();
        copy.write_pending().unwrap();
        assert_eq!(copy.environments().unwrap(), [EnvironmentId(Uuid::from_u128(10))]);
        assert!(copy.read::<Vec<KeptKey>>(KEYS_FILE).unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damaged_files_are_told_from_good_ones() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("configuration");
        let copy = LastGood::open(&path).unwrap();
        copy.keep(kept(10, 1));
        copy.keep(kept(11, 1));
        copy.keep_keys(vec![key(1, "good", None, false)]);
        copy.write_pending().unwrap();
        let file = path.join(Uuid::from_u128(11).to_string());
        let good = fs::read(&file).unwrap();
        let changed = |at: usize| [&good[..at], &[good[at] ^ 1], &good[at + 1..]].concat();
        let newer = String::from_utf8(good.clone()).unwrap().replacen(" 2 ", " 3 ", 1).into_bytes();
        let damages =
            [vec![], b"\n".to_vec(), good[..good.len() - 1].to_vec(), changed(good.len() - 20), changed(3), newer];
        for (number, damage) in damages.iter().enumerate() {
            fs::write(&file, damage).unwrap();
            let directory = empty(&place.path().join(number.to_string())).await;
            let loaded = copy.load(&directory).unwrap();
            assert_eq!((loaded.environments, loaded.damaged), (1, 1), "damage {number}");
        }
        fs::write(path.join(KEYS_FILE), b"x").unwrap();
        let directory = empty(&place.path().join("keys")).await;
        assert!(matches!(copy.load(&directory), Err(CopyError::Damaged { .. })));
        assert!(!directory.is_loaded(), "nobody could be let in");
    }
}
