//! One segment file as a reader sees it: opened when first needed, with a sparse index from offset to file position.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use bytes::Bytes;

use super::frame::{self, HEAD_BYTES, Head};
use crate::{LogError, Record, limits};

/// A place between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub position: u64,
}

/// What is known of the frames of a segment. Everything before `frontier` is known: for the segment being written that is
/// all that is durable, for a sealed one what somebody has read so far.
#[derive(Debug)]
struct Index {
    sparse: Vec<Place>,
    frontier: Place,
    /// Where the last read ended: the likeliest start of the next one.
    hint: Place,
}

impl Index {
    fn start(base: u64) -> Self {
        let start = Place { offset: base, position: 0 };
        Self { sparse: vec![start], frontier: start, hint: start }
    }

    fn push(&mut self, frame_bytes: usize) {
        let last = self.sparse.last().expect("starts with one entry");
        if self.frontier.position - last.position >= limits::INDEX_STRIDE_BYTES {
            self.sparse.push(self.frontier);
        }
        self.frontier.offset += 1;
        self.frontier.position += frame_bytes as u64;
    }

    /// The known place nearest before `offset`.
    fn floor(&self, offset: u64) -> Place {
        let sparse = self.sparse[self.sparse.partition_point(|place| place.offset <= offset) - 1];
        [self.frontier, self.hint]
            .into_iter()
            .filter(|place| place.offset <= offset)
            .fold(sparse, |best, place| if place.offset > best.offset { place } else { best })
    }
}

/// One segment file of a partition.
#[derive(Debug)]
pub(super) struct Segment {
    pub base: u64,
    pub path: PathBuf,
    file: OnceLock<File>,
    index: Mutex<Index>,
}

impl Segment {
    /// A segment whose file is opened when somebody reads it.
    pub fn lazy(path: PathBuf, base: u64) -> Self {
        Self { base, path, file: OnceLock::new(), index: Mutex::new(Index::start(base)) }
    }

    /// A segment with its file, nothing known of its frames yet.
    pub fn opened(path: PathBuf, base: u64, file: File) -> Self {
        let segment = Self::lazy(path, base);
        segment.file.set(file).expect("new");
        segment
    }

    /// Name of the file of the segment that starts with offset `base`.
    pub fn path(directory: &Path, base: u64) -> PathBuf {
        directory.join(format!("{base:020}.seg"))
    }

    pub fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = File::open(&self.path)?;
        Ok(self.file.get_or_init(|| file))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no code panics while holding the index")
    }

    /// Makes frames known that begin at the frontier; the writer calls it once they are durable.
    pub fn publish(&self, frame_bytes: impl IntoIterator<Item = usize>) {
        let mut index = self.index();
        frame_bytes.into_iter().for_each(|bytes| index.push(bytes));
    }

    /// Records from offset `from` on and below `end`, at most `max_bytes` but at least one. `from` is in this segment.
    pub fn read(&self, source: Source, from: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let start = self.locate(from)?;
        let mut block = self.block(start.position, self.written_bytes(start, end, max_bytes).max(HEAD_BYTES))?;
        if let Some(head) = Head::parse(&block)
            && head.frame_bytes() > block.len()
        {
            block = self.block(start.position, head.frame_bytes())?;
        }
        let (records, place) = self.decode(source, start, end, &block)?;
        let mut index = self.index();
        if index.frontier == start {
            records.iter().for_each(|record| index.push(frame::frame_bytes(&record.header, &record.payload)));
        }
        index.hint = place;
        Ok(records)
    }

    /// Bytes of the frames from `start` to `end`, at most `max_bytes`: the file is longer, as its space is taken in advance.
    fn written_bytes(&self, start: Place, end: u64, max_bytes: usize) -> usize {
        let frontier = self.index().frontier;
        let is_known = frontier.offset >= end;
        let left = frontier.position.saturating_sub(start.position);
        if is_known { max_bytes.min(usize::try_from(left).unwrap_or(usize::MAX)) } else { max_bytes }
    }

    fn decode(&self, source: Source, start: Place, end: u64, block: &Bytes) -> Result<(Vec<Record>, Place), LogError> {
        let mut records = Vec::new();
        let mut place = start;
        let mut at = 0;
        while place.offset < end && at < block.len() {
            let Some(head) = frame::verify(source.seed, &block[at..]).filter(|head| head.offset == place.offset) else {
                let cut_off = block.len() - at < HEAD_BYTES
                    || Head::parse(&block[at..]).is_some_and(|head| head.frame_bytes() > block.len() - at);
                if cut_off && !records.is_empty() {
                    break;
                }
                return Err(damaged(&self.path, place));
            };
            let frame = block.slice(at..at + head.frame_bytes());
            records.push(head.record(source.partition, &frame));
            at += frame.len();
            place = Place { offset: place.offset + 1, position: place.position + frame.len() as u64 };
        }
        if records.is_empty() { Err(self.unreadable(place, block)) } else { Ok((records, place)) }
    }

    /// Walks frame heads from the nearest known place. Checksums are left to the read that follows.
    fn locate(&self, offset: u64) -> Result<Place, LogError> {
        let mut place = self.index().floor(offset);
        while place.offset < offset {
            let block = self.block(place.position, limits::INDEX_STRIDE_BYTES as usize)?;
            let mut at = 0;
            while place.offset < offset && (at == 0 || block.len().saturating_sub(at) >= HEAD_BYTES) {
                let head = Head::parse(&block[at..])
                    .filter(|head| head.offset == place.offset)
                    .ok_or_else(|| self.unreadable(place, &block))?;
                let mut index = self.index();
                if index.frontier == place {
                    index.push(head.frame_bytes());
                }
                at += head.frame_bytes();
                place = Place { offset: place.offset + 1, position: place.position + head.frame_bytes() as u64 };
            }
        }
        Ok(place)
    }

    /// The error for a place where a frame must be and is not; `block` is what the file holds from about there on.
    fn unreadable(&self, place: Place, block: &Bytes) -> LogError {
        if !block.is_empty() {
            return damaged(&self.path, place);
        }
        LogError::Fatal(format!(
            "{} ends before offset {}: the file was cut, or the segment file after it is missing. {REMEDY}",
            self.path.display(),
            place.offset
        ))
    }

    /// Append time of the first frame in microseconds since the Unix epoch, `None` if there is no frame yet.
    pub fn first_append_time_us(&self) -> Result<Option<i64>, LogError> {
        Ok(Head::parse(&self.block(0, HEAD_BYTES)?).map(|head| head.append_time_us))
    }

    /// Up to `bytes` bytes from `position` on, less at the end of the file.
    fn block(&self, position: u64, bytes: usize) -> Result<Bytes, LogError> {
        let read = || -> io::Result<Bytes> {
            let file = self.file()?;
            let left = file.metadata()?.len().saturating_sub(position);
            let mut block = vec![0; bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
            file.read_exact_at(&mut block, position)?;
            Ok(block.into())
        };
        read().map_err(|error| LogError::Fatal(format!("cannot read {} at {position}: {error}", self.path.display())))
    }
}

/// Which partition a segment belongs to, and the seed of its checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub partition: u32,
    pub seed: u32,
}

/// What a person can do about lost or changed bytes.
const REMEDY: &str = "Check the disk; restore the file from a backup, or move the whole log directory aside: a new log starts with a new \
                      epoch, what is folded already stays, and records not folded yet are reported as missing";

/// The error for bytes that were durable once and are not what was written.
pub(super) fn damaged(path: &Path, place: Place) -> LogError {
    LogError::Fatal(format!(
        "{} is damaged at byte {} (offset {}): the record there was written whole, but is not what was written. {REMEDY}",
        path.display(),
        place.position,
        place.offset
    ))
}
