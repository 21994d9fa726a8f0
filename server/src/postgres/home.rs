//! Where the embedded PostgreSQL lives and as whom it runs.
//!
//! Normally `<data directory>/postgres`, as ourselves. PostgreSQL refuses root, so a program that is root runs it as the user
//! `postgres` where there is one, else as `nobody`; and that user must be able to reach the place. A clone under `/root` is closed
//! to it, so there the home goes to `/var/lib/flagmint`, and a file `elsewhere` in the normal place says where.
//!
//! The home belongs to us and nobody else writes there; only `data` and the socket's directory below belong to PostgreSQL's user.
//! So no other user can put a symbolic link in our way while we act as root.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use super::limits::{LOCK_TIMEOUT, POLL_INTERVAL};
use super::{IoContext, PostgresError};

/// Homes of data directories that PostgreSQL's user cannot reach.
pub(super) const STATE_DIR: &str = "/var/lib/flagmint";
/// `nobody`, on every Linux.
const NOBODY: Account = Account { uid: 65534, gid: 65534 };

/// The user that PostgreSQL runs as when we are root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A place for one PostgreSQL, locked by this process.
#[derive(Debug)]
pub(super) struct Home {
    /// Canonical.
    pub(super) dir: PathBuf,
    /// None: run as ourselves.
    pub(super) account: Option<Account>,
    _lock: File,
}

impl Home {
    /// Finds or makes the home of the data directory and locks it.
    ///
    /// # Errors
    /// See [`PostgresError`]: in use, unreachable, of another owner, or a failure of the file system.
    pub(super) fn open(data_dir: &Path, state_dir: &Path) -> Result<Home, PostgresError> {
        DirBuilder::new().recursive(true).mode(0o755).create(data_dir).during("create", data_dir)?;
        let normal = data_dir.canonicalize().during("find", data_dir)?.join("postgres");
        make_dir(&normal, 0o711)?;
        let pointer = normal.join("elsewhere");
        let mut dir = match fs::read_to_string(&pointer) {
            Ok(path) => PathBuf::from(path.trim_end()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => normal,
            Err(error) => return Err(error).during("read", &pointer),
        };
        check_owner(&dir)?;
        let account = account_for(&dir)?;
        if let Some((account, closed)) = account.and_then(|account| Some((account, closed_ancestor(&dir, account)?))) {
            if dir.join("data").exists() || pointer.exists() {
                return Err(PostgresError::Unreachable { dir, closed });
            }
            dir = make_elsewhere(state_dir, &pointer, account)?;
        }
        let lock = lock(&dir)?;
        let home = Home { dir, account, _lock: lock };
        // As after restoring a backup as root; nobody else could write there so far.
        if account.is_some() && fs::symlink_metadata(home.data()).is_ok_and(|metadata| metadata.uid() == 0) {
            home.give_tree(&home.data())?;
        }
        Ok(home)
    }

    /// PostgreSQL's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What PostgreSQL writes to its standard error.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// The major version of the data directory; none if there is no data directory yet.
    ///
    /// # Errors
    /// A data directory without a readable `PG_VERSION`.
    pub(super) fn data_major(&self) -> Result<Option<u32>, PostgresError> {
        if !self.data().exists() {
            return Ok(None);
        }
        let file = self.data().join("PG_VERSION");
        let text = fs::read_to_string(&file).during("read", &file)?;
        let major =
            text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData)).during("read", &file)?;
        Ok(Some(major))
    }

    /// Makes a directory for PostgreSQL's user alone.
    pub(super) fn make_private_dir(&self, path: &Path) -> Result<(), PostgresError> {
        make_dir(path, 0o700)?;
        self.give(path)
    }

    /// Hands one file or directory to PostgreSQL's user.
    fn give(&self, path: &Path) -> Result<(), PostgresError> {
        match self.account {
            Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)).during("change the owner of", path),
            None => Ok(()),
        }
    }

    /// Hands a tree to PostgreSQL's user. Children first: nobody else can enter before the last step.
    pub(super) fn give_tree(&self, dir: &Path) -> Result<(), PostgresError> {
        for entry in fs::read_dir(dir).during("read", dir)? {
            let entry = entry.during("read", dir)?;
            match entry.file_type().during("read", &entry.path())?.is_dir() {
                true => self.give_tree(&entry.path())?,
                false => self.give(&entry.path())?,
            }
        }
        self.give(dir)
    }
}

/// Makes a directory with exactly these permissions, or accepts the one that is there.
fn make_dir(path: &Path, mode: u32) -> Result<(), PostgresError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_real_dir(path) => Ok(()),
        result => result.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode))).during("create", path),
    }
}

fn is_real_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Refuses a home of another user: as root we would act on files that somebody else can swap.
fn check_owner(dir: &Path) -> Result<(), PostgresError> {
    let owner = fs::symlink_metadata(dir).during("find", dir)?.uid();
    let us = rustix::process::geteuid().as_raw();
    if owner == us { Ok(()) } else { Err(PostgresError::Foreign { path: dir.to_owned(), owner, us }) }
}

/// As whom PostgreSQL has to run: the owner of its data, because it refuses those of others.
fn account_for(dir: &Path) -> Result<Option<Account>, PostgresError> {
    let us = rustix::process::geteuid().as_raw();
    let data = dir.join("data");
    let owner = match fs::symlink_metadata(&data) {
        Ok(metadata) => Some(Account { uid: metadata.uid(), gid: metadata.gid() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).during("find", &data),
    };
    match (us, owner) {
        (0, Some(owner)) if owner.uid != 0 => Ok(Some(owner)),
        (0, _) => {
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            Ok(Some(find_postgres(&passwd).unwrap_or(NOBODY)))
        }
        (_, Some(Account { uid, .. })) if uid != us => Err(PostgresError::Foreign { path: data, owner: uid, us }),
        _ => Ok(None),
    }
}

/// The user `postgres` of a passwd file, unless it is root under that name.
fn find_postgres(passwd: &str) -> Option<Account> {
    let mut fields = passwd.lines().find(|line| line.starts_with("postgres:"))?.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some(Account { uid, gid })
}

/// The outermost directory on the way to `dir` (itself included) that the account may not pass. Access control lists are not seen.
fn closed_ancestor(dir: &Path, account: Account) -> Option<PathBuf> {
    let passes = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| {
            let bit = match metadata {
                ref m if m.uid() == account.uid => 0o100,
                ref m if m.gid() == account.gid => 0o010,
                _ => 0o001,
            };
            metadata.mode() & bit != 0
        })
    };
    dir.ancestors().filter(|ancestor| !passes(ancestor)).last().map(Path::to_owned)
}

/// Makes a home of a new, unguessable name under the state directory, and says so in the pointer file.
fn make_elsewhere(state_dir: &Path, pointer: &Path, account: Account) -> Result<PathBuf, PostgresError> {
    make_dir(state_dir, 0o711)?;
    check_owner(state_dir)?;
    let dir = tempfile::Builder::new()
        .prefix("postgres-")
        .permissions(Permissions::from_mode(0o711))
        .tempdir_in(state_dir)
        .during("create a directory in", state_dir)?;
    // Written only once the place is known to serve: it is final.
    if let Some(closed) = closed_ancestor(dir.path(), account) {
        return Err(PostgresError::Unreachable { dir: state_dir.to_owned(), closed });
    }
    let text = format!("{}\n", dir.path().display());
    let mut file = OpenOptions::new().write(true).create_new(true).open(pointer).during("create", pointer)?;
    io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.sync_all()).during("write", pointer)?;
    tracing::info!(home = %dir.path().display(), "the data directory is closed to PostgreSQL's user, so its data are here");
    Ok(dir.keep())
}

/// A program that was killed holds its lock for some milliseconds more, while the kernel takes it apart.
fn lock(dir: &Path) -> Result<File, PostgresError> {
    let path = dir.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).during("open", &path)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
            Err(fs::TryLockError::WouldBlock) => return Err(PostgresError::Busy { dir: dir.to_owned() }),
            Err(fs::TryLockError::Error(error)) => return Err(error).during("lock", &path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_postgres_is_found_unless_it_is_root() {
        let check = |passwd: &str, expected: Option<(u32, u32)>| {
            assert_eq!(find_postgres(passwd), expected.map(|(uid, gid)| Account { uid, gid }), "{passwd}");
        };
        check("root:x:0:0::/root:/bin/sh\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n", Some((101, 104)));
        check("root:x:0:0::/root:/bin/sh\n", None);
        check("postgres:x:0:0::/root:/bin/sh\n", None);
        check("postgres-backup:x:7:7::/:/bin/sh\n", None);
        check("postgres:x:many\n", None);
    }
}
