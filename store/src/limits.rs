//! The store's limits, each with its reason.

/// Microseconds of an hour.
pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// Microseconds of a UTC day.
pub(crate) const DAY_US: i64 = 24 * HOUR_US;

/// Minute rows are kept this long, microseconds: the longest range that may be asked at minute precision (14 days).
pub const MINUTE_RETENTION_US: i64 = 14 * DAY_US;

/// Hour rows are kept this long, microseconds: the longest range that may be asked by the hour (90 days).
pub const HOUR_RETENTION_US: i64 = 90 * DAY_US;

/// Day rows, the ledger, its chunks and daily sketches are kept this long, microseconds: 13 months of billing history,
/// rounded up so that the same month of last year is always whole (400 days).
pub const DAY_RETENTION_US: i64 = 400 * DAY_US;

/// Observed contexts are kept this long, microseconds: they are personal data, if pseudonymised (30 days).
pub const CONTEXT_RETENTION_US: i64 = 30 * DAY_US;

/// An hour or day is taken for closed when everything up to this long after its end has been folded, microseconds.
/// Later cells are still right, they only wait for the next rewrite as minute rows (10 minutes).
pub const CLOSE_MARGIN_US: i64 = 600_000_000;

/// Cells not yet in files may take this much memory, bytes, unless the options say otherwise: some two million minute
/// cells, far more than all open chunks have, so that it is reached only while the disk takes no files.
pub const MEMORY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// This many files of alike size make one: readers open at most a handful per table, level and day, and each row is
/// rewritten a logarithmic number of times.
pub const COMPACTION_FILES: usize = 4;

/// A file larger than this is not merged any more, bytes: merging holds all rows in memory (64 MiB of Parquet are some
/// 10 million cells).
pub const COMPACTION_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Rows in a row group: small enough that a question about one environment or flag skips most of a file by its
/// statistics, large enough that the footer stays small.
pub const ROW_GROUP_ROWS: usize = 8192;

/// Threads that answer questions: the machines planned for have two cores, and analytics must leave one to decisions
/// under load.
pub const QUERY_THREADS: usize = 2;

/// Questions that read fewer rows than this run on one thread: handing batches over costs more than it saves.
pub const PARALLEL_ROWS_MIN: u64 = 100_000;
