//! Durable writes, and what a failure of the disk means for the caller.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::StoreError;

/// Creates a file, lets `write` fill it, and syncs it. A file that could not be finished is removed.
pub(super) fn write_synced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), StoreError> {
    let written = File::create(path).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    written.map_err(|error| {
        // It is not named by any manifest; if removing fails too, the next start does it.
        let _ = fs::remove_file(path);
        disk_error(path, &error)
    })
}

/// Makes new names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(|error| disk_error(dir, &error))
}

/// A full disk passes, anything else does not.
pub(super) fn disk_error(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Retry(format!("{message}. Make room on the disk; folding goes on by itself"))
        }
        _ => StoreError::Fatal(message),
    }
}

/// A file that cannot be used, and what to do about it.
pub(super) fn damaged(path: &Path, what: &str) -> StoreError {
    let dir = path.parent().unwrap_or(path).display();
    StoreError::Fatal(format!(
        "{}: {what}. Restore {dir} from a backup, or move {dir} away: rollups are then folded again from the decision log, \
         as far back as it reaches",
        path.display()
    ))
}
