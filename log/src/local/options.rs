//! How a local log is set up; everything a test wants to control is an argument here.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{LogError, limits, wall_clock_us};

/// Source of append times: microseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Makes the bytes of a file durable, normally `fdatasync`.
pub type SyncData = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// Settings of a [`LocalLog`](crate::LocalLog).
#[derive(Clone)]
pub struct Options {
    /// Directory of the log; created if it does not exist.
    pub directory: PathBuf,
    /// Number of partitions. Fixed when the directory is created; another number is refused later.
    pub partitions: u32,
    /// Size to which a segment file is preallocated.
    pub segment_bytes: u64,
    /// Longest time a record waits for others to share its fdatasync.
    pub group_linger: Duration,
    /// Bytes that close a commit group early.
    pub group_bytes: usize,
    /// Records that may wait for the writer.
    pub queue_records: usize,
    /// Bytes that may wait for the writer.
    pub queue_bytes: usize,
    /// Where append times come from.
    pub clock: Clock,
    /// How appended bytes are made durable.
    pub sync_data: SyncData,
}

impl Options {
    /// Settings for production use, with the sizes of [`limits`].
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, partitions: u32) -> Self {
        Self {
            directory: directory.into(),
            partitions,
            segment_bytes: limits::SEGMENT_BYTES,
            group_linger: limits::GROUP_LINGER,
            group_bytes: limits::GROUP_BYTES,
            queue_records: limits::QUEUE_RECORDS,
            queue_bytes: limits::QUEUE_BYTES,
            clock: Arc::new(wall_clock_us),
            sync_data: Arc::new(File::sync_data),
        }
    }

    /// Checks what cannot be expressed in types.
    ///
    /// # Errors
    /// [`LogError::Refuse`] naming the setting and its range.
    pub(super) fn validate(&self) -> Result<(), LogError> {
        if !(1..=limits::PARTITIONS).contains(&self.partitions) {
            return Err(LogError::Refuse(format!(
                "partitions = {}, must be 1 to {}",
                self.partitions,
                limits::PARTITIONS
            )));
        }
        if !(limits::MIN_SEGMENT_BYTES..=limits::MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return Err(LogError::Refuse(format!(
                "segment_bytes = {}, must be {} to {}",
                self.segment_bytes,
                limits::MIN_SEGMENT_BYTES,
                limits::MAX_SEGMENT_BYTES
            )));
        }
        Ok(())
    }
}
