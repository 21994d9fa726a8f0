//! One partition as readers see it: its segments, and how far they may read.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::watch;

use super::directory::sync_directory;
use super::segment::{Segment, Source};
use crate::{LogError, Record, limits};

/// What watchers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Next offset to be written; everything below is durable.
    pub offset: u64,
    /// Set once when the log fails for good.
    pub failed: bool,
}

/// The readers' half of a partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub source: Source,
    pub directory: PathBuf,
    pub end: watch::Sender<End>,
    /// Ascending by base, never empty; the last one is being written.
    segments: RwLock<Vec<Arc<Segment>>>,
    trimming: Mutex<()>,
}

impl Partition {
    /// A partition of `segments`, ascending and not empty, readable up to `end`.
    pub fn new(source: Source, directory: PathBuf, segments: Vec<Arc<Segment>>, end: u64) -> Self {
        let end = watch::Sender::new(End { offset: end, failed: false });
        Self { source, directory, end, segments: RwLock::new(segments), trimming: Mutex::new(()) }
    }

    /// Adds the segment that is written from now on.
    pub fn push(&self, segment: Arc<Segment>) {
        self.segments.write().expect("no code panics while holding the segments").push(segment);
    }

    pub fn bounds(&self) -> Range<u64> {
        let start = self.segment(0).base;
        start..self.end.borrow().offset
    }

    fn segment(&self, at: usize) -> Arc<Segment> {
        self.segments.read().expect("no code panics while holding the segments")[at].clone()
    }

    /// The segment that holds `offset` and the base of the one after it; `None` if it was trimmed.
    fn holding(&self, offset: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments.read().expect("no code panics while holding the segments");
        let next = segments.partition_point(|segment| segment.base <= offset);
        let at = next.checked_sub(1)?;
        Some((segments[at].clone(), segments.get(next).map(|segment| segment.base)))
    }

    /// See [`DecisionLog::read`](crate::DecisionLog::read); blocks on the disk.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Record>, LogError> {
        let end = self.end.borrow().offset;
        if from == end {
            return Ok(Vec::new());
        }
        if from > end {
            return Err(LogError::Refuse(format!(
                "partition {} ends at offset {end}, {from} was asked for: the position belongs to another log",
                self.source.partition
            )));
        }
        let (segment, next_base) = self.holding(from).ok_or_else(|| self.trimmed(from))?;
        let end = next_base.unwrap_or(end);
        segment.read(self.source, from, end, max_bytes.min(limits::READ_BYTES)).map_err(|error| {
            // The file may have gone between looking it up and opening it.
            if from < self.bounds().start { self.trimmed(from) } else { error }
        })
    }

    fn trimmed(&self, from: u64) -> LogError {
        LogError::Refuse(format!(
            "offset {from} of partition {} was trimmed, the first kept one is {}",
            self.source.partition,
            self.bounds().start
        ))
    }

    /// Removes segments, oldest first, so that a crash in between leaves an unbroken rest. Blocks on the disk.
    pub fn trim(&self, before_append_time_us: i64, folded: u64) -> Result<u64, LogError> {
        let _one_at_a_time = self.trimming.lock().expect("no code panics while trimming");
        let mut removed = 0;
        while let Some(segment) = self.trimmable(before_append_time_us, folded)? {
            self.remove_first(&segment)
                .map_err(|error| LogError::Retry(format!("cannot remove {}: {error}", segment.path.display())))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The oldest segment, if all its records are folded and old. The last segment stays: its name keeps the offsets going.
    fn trimmable(&self, before_append_time_us: i64, folded: u64) -> Result<Option<Arc<Segment>>, LogError> {
        let (oldest, next) = {
            let segments = self.segments.read().expect("no code panics while holding the segments");
            let [oldest, next, ..] = segments.as_slice() else { return Ok(None) };
            (oldest.clone(), next.clone())
        };
        // Append times never decrease, so the first one of the next segment bounds all of this one, without reading it.
        let is_old = || Ok(next.first_append_time_us()?.is_some_and(|time_us| time_us < before_append_time_us));
        Ok((next.base <= folded && is_old()?).then_some(oldest))
    }

    fn remove_first(&self, segment: &Segment) -> io::Result<()> {
        let segments = || self.segments.write().expect("no code panics while holding the segments");
        let first = segments().remove(0);
        let result = fs::remove_file(&segment.path).and_then(|()| sync_directory(&self.directory));
        if result.is_err() && segment.path.exists() {
            segments().insert(0, first);
        }
        result
    }
}
