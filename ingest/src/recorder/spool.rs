//! Records that wait on disk: one file of frames, written at its end and read from its front, in order.
//!
//! Frame, little-endian: crc32c u32 of what follows, payload length u32, last-of-flush u32, header, payload. Beside the file
//! stands `….cursor` with the position up to which the log has acknowledged the frames, so that a restart does not
//! append again what was appended long ago. Written data survives the process at once, and a power cut after an orderly
//! end, which syncs it (docs/decisions/0005).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flagmint_schemas::batch::BatchHeader;
use flagmint_schemas::limits::BATCH_BYTES_MAX;

use super::queue::Item;

const EXTENSION: &str = "spool";
const PREFIX_BYTES: usize = 12;
const HEAD_BYTES: usize = PREFIX_BYTES + BatchHeader::LEN;

/// A file of waiting records.
#[derive(Debug)]
pub(super) struct SpoolFile {
    path: PathBuf,
    file: File,
    cursor: File,
    read_at: u64,
    end: u64,
}

/// Where a record stands in the name order of spool files: by partition, then age.
pub(super) fn file_name(partition: u32, started_us: i64, producer: u128, sequence: u64) -> String {
    format!("p{partition:05}-{started_us:020}-{producer:032x}-{sequence:020}.{EXTENSION}")
}

/// The partition in a spool file's name.
pub(super) fn partition_of(path: &Path) -> Option<u32> {
    let is_spool = path.extension().is_some_and(|extension| extension == EXTENSION);
    let name = path.file_name()?.to_str().filter(|_| is_spool)?;
    name.strip_prefix('p')?.split('-').next()?.parse().ok()
}

/// Bytes an item takes in a spool file.
pub(super) fn frame_bytes(item: &Item) -> u64 {
    (HEAD_BYTES + item.payload.len()) as u64
}

impl SpoolFile {
    /// Opens or creates a file, reading goes on where the log had acknowledged.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let (file, cursor) = (open(&path)?, open(&path.with_extension("cursor"))?);
        let mut position = [0; 8];
        let has_cursor = cursor.read_exact_at(&mut position, 0).is_ok();
        let end = file.metadata()?.len();
        let read_at = if has_cursor { u64::from_le_bytes(position).min(end) } else { 0 };
        Ok(Self { path, file, cursor, read_at, end })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file, read or not.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    pub(super) fn is_drained(&self) -> bool {
        self.read_at >= self.end
    }

    /// Writes a record at the end; what a failed write left behind is written over by the next.
    pub(super) fn push(&mut self, item: &Item) -> io::Result<()> {
        let mut frame = Vec::with_capacity(HEAD_BYTES + item.payload.len());
        frame.extend([0; 4]);
        frame.extend((item.payload.len() as u32).to_le_bytes());
        frame.extend(u32::from(item.ends_flush).to_le_bytes());
        frame.extend(item.header.encode());
        frame.extend(&item.payload);
        let checksum = crc32c::crc32c(&frame[4..]);
        frame[..4].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&frame, self.end)?;
        self.end += frame.len() as u64;
        Ok(())
    }

    /// The next records in order, up to the end of a flush or some `max_bytes`; at least one.
    ///
    /// # Errors
    /// `InvalidData` if the next frame is damaged or torn.
    pub(super) fn peek(&self, max_bytes: usize) -> io::Result<Vec<Item>> {
        let (mut items, mut at, mut bytes) = (Vec::new(), self.read_at, 0);
        while at < self.end && bytes < max_bytes {
            let item = match self.read_frame(at) {
                Ok(item) => item,
                // What comes before the damage is still good.
                Err(_) if !items.is_empty() => break,
                Err(error) => return Err(error),
            };
            at += frame_bytes(&item);
            bytes += item.payload.len();
            let ends_flush = item.ends_flush;
            items.push(item);
            if ends_flush {
                break;
            }
        }
        Ok(items)
    }

    fn read_frame(&self, at: u64) -> io::Result<Item> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} at {at}"));
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut head, at).map_err(|_| damaged("torn frame"))?;
        let word = |index: usize| u32::from_le_bytes(head[4 * index..][..4].try_into().expect("four bytes"));
        let payload_bytes = word(1) as usize;
        if payload_bytes > BATCH_BYTES_MAX {
            return Err(damaged("impossible length"));
        }
        let mut payload = vec![0; payload_bytes];
        self.file.read_exact_at(&mut payload, at + HEAD_BYTES as u64).map_err(|_| damaged("torn frame"))?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[4..]), &payload) != word(0) {
            return Err(damaged("wrong checksum"));
        }
        let header = BatchHeader::decode(&head[PREFIX_BYTES..]).map_err(|error| damaged(&error.to_string()))?;
        Ok(Item { header, payload: Bytes::from(payload), ends_flush: word(2) == 1, queued_at: None })
    }

    /// The log has these records now.
    pub(super) fn acknowledge(&mut self, items: &[Item]) -> io::Result<()> {
        self.read_at += items.iter().map(frame_bytes).sum::<u64>();
        self.cursor.write_all_at(&self.read_at.to_le_bytes(), 0)
    }

    /// Makes what was written survive a power cut. Waits for the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Removes the file.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        std::fs::remove_file(self.path.with_extension("cursor"))
    }

    /// Puts a file that cannot be read on aside, for a person.
    pub(super) fn set_aside(self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("damaged"))
    }
}
