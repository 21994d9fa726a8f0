//! What is true of the last segment of a partition after a crash: where its frames end, and whether that end is honest.
//!
//! Only the last segment can be torn: a segment is made durable and cut to its size before the next one is created.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::frame::{self, HEAD_BYTES, Head, MAGIC};
use super::segment::{Place, damaged};
use crate::LogError;

/// Bytes read from the file at a time while scanning; sequential reads gain nothing beyond.
const SCAN_BUFFER_BYTES: usize = 1 << 20;

/// The valid frames at the start of a segment.
#[derive(Debug)]
pub(super) struct Scan {
    /// Size of each frame, in order.
    pub frame_bytes: Vec<usize>,
    /// Where they end.
    pub end: Place,
    /// Append time of the last one.
    pub last_append_time_us: Option<i64>,
}

/// Reads frames from the start of `file` until one is missing, torn or damaged.
pub(super) fn scan(file: &File, seed: u32, base: u64) -> io::Result<Scan> {
    let mut reader = BufReader::with_capacity(SCAN_BUFFER_BYTES, file);
    reader.seek(SeekFrom::Start(0))?;
    let mut scan =
        Scan { frame_bytes: Vec::new(), end: Place { offset: base, position: 0 }, last_append_time_us: None };
    let mut frame = Vec::new();
    while let Some(head) = next_frame(&mut reader, &mut frame, seed)? {
        if head.offset != scan.end.offset {
            break;
        }
        scan.frame_bytes.push(frame.len());
        scan.end = Place { offset: head.offset + 1, position: scan.end.position + frame.len() as u64 };
        scan.last_append_time_us = Some(head.append_time_us);
    }
    Ok(scan)
}

fn next_frame(reader: &mut impl Read, frame: &mut Vec<u8>, seed: u32) -> io::Result<Option<Head>> {
    frame.clear();
    reader.by_ref().take(HEAD_BYTES as u64).read_to_end(frame)?;
    let Some(head) = Head::parse(frame) else { return Ok(None) };
    reader.by_ref().take(head.length as u64).read_to_end(frame)?;
    Ok(frame::verify(seed, frame))
}

/// Whether anything but zeros lies behind the last valid frame, i.e. whether the tail must be cut.
///
/// # Errors
/// [`LogError::Fatal`] if a later frame proves that the bytes at `end` were durable once: that is damage, not a torn tail.
pub(super) fn tail_is_torn(file: &File, path: &Path, seed: u32, end: Place) -> Result<bool, LogError> {
    let tail = read_data_from(file, end.position)
        .map_err(|error| LogError::Fatal(format!("cannot read {}: {error}", path.display())))?;
    let Some(last_written) = tail.iter().rposition(|byte| *byte != 0) else { return Ok(false) };
    // A frame may end in zeros of its own, so only the search is bounded by what is not zero.
    let proves_damage = |at: usize| {
        frame::verify(seed, &tail[at..])
            .is_some_and(|head| head.offset >= end.offset && u64::from(head.group_position) > end.position)
    };
    let mut candidates = (0..=last_written).filter(|at| tail[*at..].starts_with(&MAGIC));
    if candidates.any(proves_damage) { Err(damaged(path, end)) } else { Ok(true) }
}

/// The bytes behind `position`, leaving out at both ends what was reserved but never written: most of a 64 MiB segment.
fn read_data_from(file: &File, position: u64) -> io::Result<Vec<u8>> {
    let Some(start) = next_data(file, position)? else { return Ok(Vec::new()) };
    let mut end = start;
    while let Some(data) = next_data(file, end)? {
        end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data))?;
    }
    let mut data = vec![0; usize::try_from(end - start).expect("segments are limited to 1 GiB")];
    file.read_exact_at(&mut data, start)?;
    Ok(data)
}

/// The next position at or behind `position` that was ever written; on file systems that do not know, any.
fn next_data(file: &File, position: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
        Ok(start) => Ok(Some(start)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
