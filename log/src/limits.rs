//! Every limit of the log, each with its reason.

use std::time::Duration;

/// Bytes of one segment file. Large enough that a segment switch (two fsyncs and a preallocation, some 10 ms) happens less
/// than once a second at 50 MB/s; small enough that trimming frees space in useful steps and recovery reads at most this much per partition.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Smallest segment that may be configured: below this a segment switch would cost more than the records in it.
pub const MIN_SEGMENT_BYTES: u64 = 4 << 10;

/// Largest segment that may be configured: positions inside a segment are 32 bits wide in the frame.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Largest header plus payload of one record. A batch of 8192 decisions is about 1 MiB at worst; 8 MiB leaves room without letting
/// one record hold up the group commit for long. Kafka brokers are configured for at most this, too.
pub const RECORD_BYTES: usize = 8 << 20;

/// Most partitions of a local log: each preallocates a segment and holds one file open.
pub const PARTITIONS: u32 = 256;

/// Bytes that close a commit group: past 1 MiB an fdatasync no longer gets cheaper per byte.
pub const GROUP_BYTES: usize = 1 << 20;

/// Longest a record waits for others to share its fdatasync. Against the 50-100 ms a batch was collected for it is noise.
pub const GROUP_LINGER: Duration = Duration::from_millis(2);

/// Records waiting for the writer. Bounds the queue when records are tiny (heartbeats).
pub const QUEUE_RECORDS: usize = 4096;

/// Bytes waiting for the writer, about one second of a slow disk. Beyond it callers get `Retry` and spool.
pub const QUEUE_BYTES: usize = 64 << 20;

/// Most bytes one `read` returns whatever it was asked for, so that a reader's typo cannot exhaust memory.
pub const READ_BYTES: usize = 16 << 20;

/// Distance between entries of the in-memory index from offset to file position. A look-up walks at most this many bytes of frames;
/// a 64 MiB segment needs 1024 entries (16 KiB).
pub const INDEX_STRIDE_BYTES: u64 = 64 << 10;
