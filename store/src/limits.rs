//! The store's limits, each with its reason.

use std::time::Duration;

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

/// An event is counted at its own time if it is at most this much older than its append, microseconds: a day (the fold's rule),
/// and an hour in which brokers' clocks may differ. Cells before that are complete once everything after is folded.
pub const LATE_EVENTS_US: i64 = 25 * HOUR_US;

/// A question is given up by ClickHouse after this time, seconds: nobody waits longer for a page.
pub const QUERY_SECONDS_MAX: u64 = 30;

/// A question may take this much memory of ClickHouse, bytes: an answer of a million groups fits, and ten at a time in 24 GiB.
pub const QUERY_MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// A question may read this many rows in ClickHouse: some 20 s of two cores.
pub const QUERY_ROWS_MAX: u64 = 2_000_000_000;

/// A question may have this many groups: what a page is cut from is held in memory here.
pub const QUERY_RESULT_ROWS_MAX: u64 = 2_000_000;

/// Answers from coarse rows of ClickHouse that are kept take this much memory, bytes: some thousand questions, of a few kilobytes each.
pub const SETTLED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A larger answer is not kept, bytes: it would put out many others, and most of its time is not the asking.
pub const SETTLED_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rewriting a day of one table and other work of ClickHouse is given up after this time, seconds.
pub const REWRITE_SECONDS_MAX: u64 = 1800;

/// Rewriting keeps this much in memory of ClickHouse, bytes, before it goes on with files; it may take three times as much.
pub const REWRITE_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

/// Rewritten rows with sketches are gathered up to this many bytes before they are inserted: few inserts, and little memory.
pub const REWRITE_INSERT_BYTES: usize = 16 * 1024 * 1024;

/// What an answer may take longer than ClickHouse works on it, seconds.
pub const ANSWER_WAIT_S: u64 = 10;

/// An insert whose outcome is not known after this time is sent again.
pub const INSERT_TIMEOUT: Duration = Duration::from_secs(30);

/// Days that one insert may have rows of: late events reach back one, and a replay of the log folds no more than
/// a chunk at a time, but an aggregator that was away for long catches up with many.
pub const INSERT_PARTITIONS_MAX: u64 = 1000;

/// Emissions whose bodies are kept for a repetition: an aggregator offers one at a time.
pub const KEPT_EMISSIONS_MAX: usize = 2;

/// Bytes of the pieces that a body is made of: a piece is laid out in memory of its own before it is put into the body, and taken in as one by
/// ClickHouse; memory of this size is used again and stays in a core's caches, that of a whole body is fresh each time.
pub const INSERT_PIECE_BYTES: usize = 1 << 20;

/// How often positions and rewrites are read again, so that the watermark is fresh for whoever asks no question.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// What was read longer ago is read again before a question relies on it. Far below [`SUPERSEDED_GRACE`].
pub const STATE_AGE_MAX: Duration = Duration::from_secs(60);

/// Coarse rows that are not in force any more, and cells that nobody needs, are kept this long: whoever began a question by an
/// older state has finished, and a rewriting that takes more than half of it is not put in force.
pub const SUPERSEDED_GRACE: Duration = Duration::from_secs(3600);

/// How long one program waits for another that migrates.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(90);

/// A lock older than this is of a program that died, seconds: creating all tables takes a second or two.
pub const MIGRATION_LOCK_STALE_S: u64 = 60;
