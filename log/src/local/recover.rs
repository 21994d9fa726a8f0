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
    let proves_damage = |at: &usize| {
        frame::verify(seed, &tail[*at..])
            .is_some_and(|head| head.offset >= end.offset && u64::from(head.group_position) > end.position)
    };
    let mut candidates = (0..tail.len().saturating_sub(HEAD_BYTES - 1)).filter(|at| tail[*at..].starts_with(&MAGIC));
    if candidates.any(|at| proves_damage(&at)) {
        return Err(damaged(path, end));
    }
    Ok(tail.iter().any(|byte| *byte != 0))
}

/// The bytes from `position` to the end of the file, or from the first byte behind it that was ever written.
fn read_data_from(file: &File, position: u64) -> io::Result<Vec<u8>> {
    let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(Vec::new()),
        // The file system cannot tell holes from data; zeros are read instead.
        Err(_) => position,
    };
    let length = file.metadata()?.len().saturating_sub(start);
    let mut data = vec![0; usize::try_from(length).expect("segments are limited to 1 GiB")];
    file.read_exact_at(&mut data, start)?;
    Ok(data)
}
