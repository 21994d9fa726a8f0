//! The embedded PostgreSQL: a real server as our child process, so that one binary and one data directory are all a user needs.
//!
//! [`Postgres::start`] finds the place ([`home`]), the binaries ([`binaries`]) and runs them ([`process`]). With `--postgres URL`
//! nothing of this is called. Why it is done this way: docs/decisions/0001-embedded-postgres.md.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

mod binaries;
mod bundle;
mod home;
mod limits;
mod process;
mod sync;
#[cfg(test)]
mod tests;

use bundle::Bundle;
use home::Home;
use process::Server;

/// A running embedded PostgreSQL. Dropping it stops it.
#[derive(Debug)]
pub struct Postgres {
    // Fields are dropped in this order: the server ends before its socket's directory and its lock go.
    server: Server,
    url: String,
    _short_socket_dir: Option<tempfile::TempDir>,
    _home: Home,
}

/// Why there is no embedded PostgreSQL. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The file system or a system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// Its object.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the same data directory.
    #[error("another flagmint process uses the database in {}", dir.display())]
    Busy {
        /// The home of the database.
        dir: PathBuf,
    },
    /// The files belong to a user that we are not.
    #[error("{} belongs to the user with id {owner}, and this is {us}: run flagmint as that user, or change the owner", path.display())]
    Foreign {
        /// What belongs to somebody else.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Our user id.
        us: u32,
    },
    /// PostgreSQL does not run as root, and the user that it runs as cannot reach its data.
    #[error(
        "PostgreSQL, which does not run as root, cannot reach {}: run `chmod o+x {}`, move the data directory, run flagmint as an \
         ordinary user, or give --postgres URL",
        dir.display(), closed.display()
    )]
    Unreachable {
        /// The home of the database.
        dir: PathBuf,
        /// The outermost directory that is closed.
        closed: PathBuf,
    },
    /// There is nothing to run.
    #[error(
        "no PostgreSQL to run (found: {seen}): build flagmint with `make run`, which brings its own; or install PostgreSQL {} or later, \
         on Debian the package `postgresql`; or give --postgres URL",
        limits::LOWEST_MAJOR
    )]
    NoBinaries {
        /// What was looked at.
        seen: String,
    },
    /// The data directory was made by another major version.
    #[error(
        "{} was made by PostgreSQL {wanted}, and only that version reads it (found: {seen}): install PostgreSQL {wanted}, or dump the data \
         with it and give --postgres URL",
        data.display()
    )]
    WrongMajor {
        /// The data directory.
        data: PathBuf,
        /// Its major version.
        wanted: u32,
        /// What was looked at.
        seen: String,
    },
    /// `initdb` failed.
    #[error("initdb failed: {output}")]
    Init {
        /// What it wrote to standard error.
        output: String,
    },
    /// The server did not become ready.
    #[error("PostgreSQL did not start ({reason}): {log}")]
    Start {
        /// How it ended.
        reason: String,
        /// The end of its log.
        log: String,
    },
}

impl Postgres {
    /// Starts the database of a data directory, making it if there is none; blocks until it accepts connections.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn start(data_dir: &Path) -> Result<Postgres, PostgresError> {
        let home = Home::open(data_dir, Path::new(home::STATE_DIR))?;
        Postgres::start_in(home, Bundle::embedded().as_ref())
    }

    fn start_in(home: Home, bundle: Option<&Bundle>) -> Result<Postgres, PostgresError> {
        let binaries = binaries::prepare(&home, bundle)?;
        keep_one_old_log(&home)?;
        let (socket_dir, short_socket_dir) = make_socket_dir(&home)?;
        let server = Server::start(&binaries.dir.join("postgres"), &home, &socket_dir)?;
        // sqlx refuses an empty host even when a socket is named.
        let url = format!("postgres://postgres@localhost/postgres?host={}", socket_dir.display());
        tracing::info!(pid = server.pid, major = binaries.major, home = %home.dir.display(), "the embedded PostgreSQL is ready");
        Ok(Postgres { server, url, _short_socket_dir: short_socket_dir, _home: home })
    }

    /// Where to connect: over a unix socket that only PostgreSQL's user and root can open.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id of the server, for tests that kill it.
    #[cfg(test)]
    pub fn pid(&self) -> u32 {
        self.server.pid
    }

    /// Stops the server and waits until its data are on disk.
    ///
    /// # Errors
    /// The server had ended before, or ended badly; the next start recovers.
    pub fn stop(mut self) -> io::Result<()> {
        self.server.stop()
    }
}

/// The log of the start before this one stays, so that a crash can still be read about; no more, so that it does not grow for ever.
fn keep_one_old_log(home: &Home) -> Result<(), PostgresError> {
    match fs::rename(home.log(), home.dir.join("postgres.log.1")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.during("rename", &home.log()),
    }
}

/// A directory for the unix socket, of PostgreSQL's user alone: in the home, unless that path is too long or has characters which mean
/// something to PostgreSQL or in a URL; then a new one of a short, unguessable name.
fn make_socket_dir(home: &Home) -> Result<(PathBuf, Option<tempfile::TempDir>), PostgresError> {
    let dir = home.dir.join("run");
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let path = dir.as_os_str().as_encoded_bytes();
    if path.len() + "/.s.PGSQL.5432".len() <= limits::SOCKET_PATH_BYTES && path.iter().all(is_plain) {
        home.make_private_dir(&dir)?;
        return Ok((dir, None));
    }
    let tmp = Path::new("/tmp");
    let short = tempfile::Builder::new()
        .prefix("flagmint-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(tmp)
        .during("create a directory in", tmp)?;
    home.make_private_dir(short.path())?;
    Ok((short.path().to_owned(), Some(short)))
}

/// Says what was being done to which path when it failed.
trait IoContext<T> {
    /// `action` is a verb whose object is the path.
    fn during(self, action: &'static str, path: &Path) -> Result<T, PostgresError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, PostgresError> {
        self.map_err(|source| PostgresError::Io { action, path: path.to_owned(), source })
    }
}
