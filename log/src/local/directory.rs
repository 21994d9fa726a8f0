//! The directory of a local log: who holds it, which format and epoch it has, and whether it was closed in order.
//!
//! | file | content |
//! |---|---|
//! | `LOCK` | held with `flock` while open; the holder's process id |
//! | `FORMAT` | format version, epoch and number of partitions, written once |
//! | `CLOSED` | end offsets at an orderly close; removed on open. With it, a missing tail is damage, not a torn write |
//! | `p{n}/{base}.seg` | segments of partition n, named by their first offset |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::Options;
use crate::LogError;

/// Version of everything in the directory; raised with any change an older program would misread.
pub(super) const FORMAT_VERSION: u32 = 1;

/// A log directory held by this process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Identifies this incarnation of the log.
    pub epoch: u64,
    /// Dropping it releases the lock.
    _lock: File,
}

impl Directory {
    /// Locks the directory and reads its format, creating both if there is nothing yet.
    ///
    /// # Errors
    /// [`LogError::Refuse`] if another process holds it, the version or number of partitions differs, or it holds something else.
    pub fn open(options: &Options) -> Result<Self, LogError> {
        let path = options.directory.clone();
        fs::create_dir_all(&path).map_err(|error| at(&path, "create", &error))?;
        let lock = lock(&path.join("LOCK"))?;
        let epoch = match fs::read_to_string(path.join("FORMAT")) {
            Ok(text) => parse_format(&path, &text, options.partitions)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path, options.partitions)?,
            Err(error) => return Err(at(&path.join("FORMAT"), "read", &error)),
        };
        Ok(Self { path, epoch, _lock: lock })
    }

    /// Where the segments of a partition are; created if missing.
    pub fn partition(&self, partition: u32) -> Result<PathBuf, LogError> {
        let path = self.path.join(format!("p{partition}"));
        fs::create_dir_all(&path)
            .and_then(|()| sync_directory(&self.path))
            .map_err(|error| at(&path, "create", &error))?;
        Ok(path)
    }

    /// Notes an orderly close. Without the note the next open only has to scan more carefully, so errors are not errors.
    pub fn mark_closed(&self, ends: &[u64]) -> io::Result<()> {
        let text: String = ends.iter().map(|end| format!("{end}\n")).collect();
        write_atomically(&self.path, "CLOSED", &text)
    }

    /// End offsets of the last orderly close, if that was how the log was left.
    pub fn closed_ends(&self) -> Result<Option<Vec<u64>>, LogError> {
        let path = self.path.join("CLOSED");
        match fs::read_to_string(&path) {
            Ok(text) => text.lines().map(|line| line.parse().ok()).collect::<Option<_>>().map(Some).ok_or_else(|| {
                LogError::Fatal(format!("{} is damaged: check the disk, then remove it", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path, "read", &error)),
        }
    }

    /// Forgets the note of the last close; must be durable before anything is appended.
    pub fn mark_open(&self) -> Result<(), LogError> {
        let path = self.path.join("CLOSED");
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.and_then(|()| sync_directory(&self.path)).map_err(|error| at(&path, "remove", &error)),
        }
    }
}

fn lock(path: &Path) -> Result<File, LogError> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| at(path, "open", &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let holder = match file.read_to_string(&mut holder) {
                Ok(_) if !holder.is_empty() => format!("process {}", holder.trim()),
                _ => "another process".to_owned(),
            };
            return Err(LogError::Refuse(format!(
                "{} is held by {holder}: stop that process first, or use another directory",
                path.display()
            )));
        }
        Err(error) => return Err(at(path, "lock", &error.into())),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // On a full disk the lock still counts, only the name of its holder is missing.
    if let Err(error) = write_pid(&mut file) {
        tracing::warn!(%error, path = %path.display(), "cannot write the process id into the lock file");
    }
    Ok(file)
}

fn create(path: &Path, partitions: u32) -> Result<u64, LogError> {
    if path.join("p0").exists() {
        return Err(LogError::Refuse(format!(
            "{} holds segments but no FORMAT file: restore that file from a backup, or move the directory aside",
            path.display()
        )));
    }
    let epoch = rand::random();
    write_atomically(
        path,
        "FORMAT",
        &format!("flagmint-log {FORMAT_VERSION}\nepoch {epoch:016x}\npartitions {partitions}\n"),
    )
    .and_then(|()| path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_directory))
    .map_err(|error| at(&path.join("FORMAT"), "write", &error))?;
    Ok(epoch)
}

fn parse_format(path: &Path, text: &str, partitions: u32) -> Result<u64, LogError> {
    let refuse = |why: String| Err(LogError::Refuse(format!("{}: {why}", path.join("FORMAT").display())));
    let field = |line: usize, key: &str| text.lines().nth(line)?.strip_prefix(key)?.strip_prefix(' ');
    let Some(version) = field(0, "flagmint-log").and_then(|value| value.parse::<u32>().ok()) else {
        return refuse("this is not the format file of a decision log".to_owned());
    };
    if version != FORMAT_VERSION {
        return refuse(format!(
            "the directory has format version {version}, this program reads version {FORMAT_VERSION}: use the program that wrote it, \
             or another directory"
        ));
    }
    let epoch = field(1, "epoch").and_then(|value| u64::from_str_radix(value, 16).ok());
    let stored = field(2, "partitions").and_then(|value| value.parse::<u32>().ok());
    match (epoch, stored) {
        (Some(epoch), Some(stored)) if stored == partitions => Ok(epoch),
        (Some(_), Some(stored)) => refuse(format!(
            "the log has {stored} partitions, {partitions} were asked for: the number cannot change, set it to {stored}"
        )),
        _ => refuse("epoch or partitions cannot be read: restore the file from a backup".to_owned()),
    }
}

fn write_atomically(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)
}

/// Makes created, renamed and removed names of a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The error of a file operation while opening: a full disk can be retried, the rest needs a person.
pub(super) fn at(path: &Path, verb: &str, error: &io::Error) -> LogError {
    let text = format!("cannot {verb} {}: {error}", path.display());
    if is_disk_full(error) { LogError::Retry(text) } else { LogError::Fatal(text) }
}

/// Whether space, a quota or a file size limit ran out, i.e. whether the same operation may succeed later.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
