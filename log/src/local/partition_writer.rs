//! The writing half of a partition: owned by the writer thread, it turns a group of records into one write and one fdatasync.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::directory::{at, is_disk_full, sync_directory};
use super::frame::{self, Stamp};
use super::options::SyncData;
use super::partition::{End, Partition};
use super::recover;
use super::segment::{Segment, Source, damaged};
use super::writer::Request;
use super::{Directory, Options};
use crate::LogError;

/// Appends to one partition.
pub(super) struct PartitionWriter {
    partition: Arc<Partition>,
    sync_data: SyncData,
    segment_bytes: u64,
    active: Arc<Segment>,
    /// Where the next frame goes in the active segment; everything before is durable.
    position: u64,
    /// Whether space for the whole active segment is reserved.
    allocated: bool,
    /// Whether the active segment is cut to its size and only waits for its successor.
    sealed: bool,
    next_offset: u64,
    last_append_time_us: i64,
    /// Frames of the current group, not written yet.
    buffer: Vec<u8>,
    pending: Vec<(Request, usize)>,
}

impl PartitionWriter {
    /// Recovers one partition from its directory, creating it if it is new. `closed_end` is the end it had if it was
    /// closed in order.
    ///
    /// # Errors
    /// [`LogError::Fatal`] if it is damaged, [`LogError::Retry`] if the disk is too full to create it.
    pub fn open(
        options: &Options,
        directory: &Directory,
        number: u32,
        closed_end: Option<u64>,
    ) -> Result<Self, LogError> {
        let path = directory.partition(number)?;
        let source = Source { partition: number, seed: frame::seed(directory.epoch, number) };
        let mut segments = list_segments(&path).map_err(|error| at(&path, "list", &error))?;
        let active = match segments.pop() {
            Some(last) => open_for_append(&last).map_err(|error| at(&last.path, "open", &error))?,
            None => create_segment(&path, 0, options.segment_bytes)
                .map_err(|error| at(&Segment::path(&path, 0), "create", &error))?,
        };
        let active = Arc::new(active);
        segments.push(active.clone());
        let (recovered, allocated) = recover_last(options, &active, source, closed_end)?;
        let last_append_time_us = match (recovered.last_append_time_us, segments.iter().nth_back(1)) {
            (Some(time_us), _) => time_us,
            (None, Some(previous)) => scan(previous, source)?.last_append_time_us.unwrap_or(i64::MIN),
            (None, None) => i64::MIN,
        };
        active.publish(recovered.frame_bytes);
        Ok(Self {
            partition: Arc::new(Partition::new(source, path, segments, recovered.end.offset)),
            sync_data: options.sync_data.clone(),
            segment_bytes: options.segment_bytes,
            active,
            position: recovered.end.position,
            allocated,
            sealed: false,
            next_offset: recovered.end.offset,
            last_append_time_us,
            buffer: Vec::new(),
            pending: Vec::new(),
        })
    }

    /// The readers' half.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Appends a group of records, all at `now_us` (microseconds since the Unix epoch), and answers each.
    ///
    /// # Errors
    /// Why the log has failed for good; everybody in the group has been told.
    pub fn commit(&mut self, requests: Vec<Request>, now_us: i64) -> Result<(), LogError> {
        // A clock set back must not make append times decrease: readers bound event times by them, trimming relies on it.
        self.last_append_time_us = self.last_append_time_us.max(now_us);
        let mut requests = requests.into_iter();
        let result = self.write_group(&mut requests);
        if let Err(error) = &result {
            let unwritten = self.pending.drain(..).map(|(request, _)| request).chain(requests);
            unwritten.for_each(|request| request.answer(Err(error.clone())));
            self.buffer.clear();
        }
        match result {
            Err(error @ LogError::Fatal(_)) => Err(error),
            Err(error) => {
                metrics::counter!("flagmint_log_disk_full_total").increment(1);
                tracing::warn!(partition = self.partition.source.partition, %error, "group not written");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn write_group(&mut self, requests: &mut impl Iterator<Item = Request>) -> Result<(), LogError> {
        for request in requests {
            let bytes = frame::frame_bytes(&request.append.header, &request.append.payload);
            if self.position + (self.buffer.len() + bytes) as u64 > self.segment_bytes && !self.is_empty() {
                self.flush()?;
                if let Err(error) = self.roll() {
                    request.answer(Err(error.clone()));
                    return Err(error);
                }
            }
            self.encode(request, bytes);
        }
        self.flush()
    }

    fn is_empty(&self) -> bool {
        self.position == 0 && self.buffer.is_empty()
    }

    fn encode(&mut self, request: Request, bytes: usize) {
        let stamp = Stamp {
            offset: self.next_offset + self.pending.len() as u64,
            append_time_us: self.last_append_time_us,
            group_position: u32::try_from(self.position).expect("segments are limited to 1 GiB"),
        };
        frame::encode(
            &mut self.buffer,
            self.partition.source.seed,
            stamp,
            &request.append.header,
            &request.append.payload,
        );
        self.pending.push((request, bytes));
    }

    /// Writes the buffer, makes it durable, shows it to readers, answers.
    fn flush(&mut self) -> Result<(), LogError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write()?;
        let file = self.active.file().expect("the active segment is open");
        (self.sync_data)(file).map_err(|error| unsynced(&self.active.path, &error))?;
        self.active.publish(self.pending.iter().map(|(_, bytes)| *bytes));
        self.position += self.buffer.len() as u64;
        let first = self.next_offset;
        self.next_offset += self.pending.len() as u64;
        self.partition.end.send_replace(End { offset: self.next_offset, failed: false });
        for ((request, _), offset) in self.pending.drain(..).zip(first..) {
            request.answer(Ok(offset));
        }
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self) -> Result<(), LogError> {
        let file = self.active.file().expect("the active segment is open");
        let result = self.reserve(file).and_then(|()| file.write_all_at(&self.buffer, self.position));
        let Err(error) = result else {
            self.allocated = true;
            return Ok(());
        };
        if !is_disk_full(&error) {
            return Err(LogError::Fatal(format!("cannot write {}: {error}", self.active.path.display())));
        }
        // What was written of the group must go: a whole frame of it would otherwise be recovered one day, although its
        // producer was told to try again.
        self.allocated = false;
        file.set_len(self.position).map_err(|error| at(&self.active.path, "cut", &error))?;
        Err(at(&self.active.path, "write", &error))
    }

    fn reserve(&self, file: &File) -> io::Result<()> {
        if self.allocated { Ok(()) } else { preallocate(file, self.segment_bytes) }
    }

    /// Seals the active segment and starts the next one. May be repeated after an error.
    fn roll(&mut self) -> Result<(), LogError> {
        if !self.sealed {
            let file = self.active.file().expect("the active segment is open");
            file.set_len(self.position).map_err(|error| at(&self.active.path, "cut", &error))?;
            self.allocated = false;
            file.sync_all().map_err(|error| unsynced(&self.active.path, &error))?;
            self.sealed = true;
        }
        let directory = &self.partition.directory;
        let segment = create_segment(directory, self.next_offset, self.segment_bytes)
            .map_err(|error| at(&Segment::path(directory, self.next_offset), "create", &error))?;
        self.active = Arc::new(segment);
        self.partition.push(self.active.clone());
        self.position = 0;
        self.allocated = true;
        self.sealed = false;
        Ok(())
    }
}

fn unsynced(path: &Path, error: &io::Error) -> LogError {
    LogError::Fatal(format!(
        "fsync of {} failed ({error}): the kernel may have dropped what was written, so nothing more is taken. Check the disk, then \
         start again",
        path.display()
    ))
}

/// Segments of a partition, ascending by first offset. Files of other names are left alone.
fn list_segments(directory: &Path) -> io::Result<Vec<Arc<Segment>>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let base = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        match base.filter(|base| path == Segment::path(directory, *base)) {
            Some(base) => bases.push(base),
            None => tracing::warn!(path = %path.display(), "not a segment file, left alone"),
        }
    }
    bases.sort_unstable();
    Ok(bases.into_iter().map(|base| Arc::new(Segment::lazy(Segment::path(directory, base), base))).collect())
}

fn open_for_append(segment: &Segment) -> io::Result<Segment> {
    let file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
    Ok(Segment::opened(segment.path.clone(), segment.base, file))
}

fn scan(segment: &Segment, source: Source) -> Result<recover::Scan, LogError> {
    let scan = || recover::scan(segment.file()?, source.seed, segment.base);
    scan().map_err(|error| at(&segment.path, "read", &error))
}

/// Finds the end of the last segment, cuts a torn tail and makes what is left durable. Also tells whether its space is reserved.
fn recover_last(
    options: &Options,
    active: &Segment,
    source: Source,
    closed_end: Option<u64>,
) -> Result<(recover::Scan, bool), LogError> {
    let path = &active.path;
    let scan = scan(active, source)?;
    if closed_end.is_some_and(|end| scan.end.offset < end) {
        return Err(damaged(path, scan.end));
    }
    let file = active.file().map_err(|error| at(path, "open", &error))?;
    if recover::tail_is_torn(file, path, source.seed, scan.end)? {
        tracing::warn!(path = %path.display(), offset = scan.end.offset, position = scan.end.position, "torn tail cut off");
        file.set_len(scan.end.position).map_err(|error| at(path, "cut", &error))?;
    }
    let allocated = match preallocate(file, options.segment_bytes) {
        Ok(()) => true,
        // Reading works on a full disk, too; the first append tries again.
        Err(error) if is_disk_full(&error) => false,
        Err(error) => return Err(at(path, "reserve space for", &error)),
    };
    // Frames nobody was told of are about to become visible: they must be as durable as the others.
    file.sync_all().map_err(|error| unsynced(path, &error))?;
    Ok((scan, allocated))
}

/// Creates an empty segment whose name and space are durable. A left-over of an earlier attempt holds nothing and is replaced.
fn create_segment(directory: &Path, base: u64, bytes: u64) -> io::Result<Segment> {
    let path = Segment::path(directory, base);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let durable = preallocate(&file, bytes).and_then(|()| file.sync_all()).and_then(|()| sync_directory(directory));
    match durable {
        Ok(()) => Ok(Segment::opened(path, base, file)),
        Err(error) => {
            fs::remove_file(&path)?;
            Err(error)
        }
    }
}

/// Reserves space up to `bytes` without touching what is there; where the file system cannot, only the length is set.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes.max(file.metadata()?.len())),
        result => Ok(result?),
    }
}
