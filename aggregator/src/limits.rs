//! The limits of the fold and of its loop, each with its reason.
//!
//! The fold's limits shape chunks and therefore cells: with other values an open chunk would be cut elsewhere than the
//! emissions that are already stored. They are constants of a release; whoever changes one starts a new log epoch.

use std::time::Duration;

/// Records of one chunk at most: what a restart replays. 16,384 records are some seconds of folding at full load and half an hour of an idle
/// partition's heartbeats and flushes.
pub const CHUNK_RECORDS: u64 = 16_384;

/// Distinct cells of one chunk at most: bounds the memory of a partition to some 150 MB (a cell takes about 300 bytes,
/// a histogram 1 kB, a dense sketch 4 kB).
pub const CHUNK_CELLS: usize = 100_000;

/// Contexts of a page at most: some 50 kB, so that what a page has but once is next to nothing and a question opens little at a time.
pub const PAGE_CONTEXTS: usize = 1024;

/// A batch is a duplicate if its (producer, sequence) occurred within this many records before it. A producer repeats a batch
/// after an unknown outcome within seconds; 4,096 records are half a minute of a partition with 12 busy environments.
pub const DUPLICATE_WINDOW_RECORDS: usize = 4096;

/// Append time before a chunk's start, in microseconds, that must be read to know the producers there: twice the expiry, so that a
/// producer whose last record is older is forgotten however the reading started.
pub const PRIME_US: i64 = 2 * flagmint_schemas::limits::PRODUCER_EXPIRY_US;

/// Span of a producer's last records, in microseconds of append time, from which its rate is taken when it ends without a
/// goodbye: long enough to hold ten flushes, short enough to be the rate it had at its end.
pub const RATE_SPAN_US: i64 = 1_000_000;

/// Records looked back upon to judge whether a partition is poisoned.
pub const POISON_WINDOW_RECORDS: usize = 128;

/// Poison in that window at most, in percent: half of the records unreadable is no longer damage here and there but another
/// format, and folding on would park everything.
pub const POISON_PERCENT: usize = 50;

/// Bytes of a dead letter's payload that are kept: enough to see what it was, small enough for a line of a file.
pub const DEAD_LETTER_BYTES: usize = 64 * 1024;

/// Kinds of calls (source, minute, counted or not) of one batch whose look-up tables are kept at once; honest batches have one to four.
pub const BATCH_CLASSES: usize = 16;

/// Kinds of calls of one environment whose cells are remembered from one batch to the next, by outcome: the minute that most are of, and the one before, counted or
/// not. Some 100 bytes for each outcome that has cells.
pub const RECENT_CLASSES: usize = 4;

/// Bytes read from one partition at a time: some 100 batches, so that reading costs little per record and all partitions
/// together stay within tens of megabytes.
pub const READ_BYTES: usize = 4 * 1024 * 1024;

/// Bytes read from all partitions together at a time, whatever their number: bounds memory with 64 partitions.
pub const READ_BYTES_ALL: usize = 32 * 1024 * 1024;

/// Bytes read from one partition at a time however many there are, and while a partition is opened: some ten batches.
pub const READ_BYTES_MIN: usize = 512 * 1024;

/// Shortest time between two emissions: a store's fixed cost per upsert is a few milliseconds.
pub const EMIT_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Longest time that folded cells wait for their emission while there is more to fold.
pub const EMIT_INTERVAL: Duration = Duration::from_millis(100);

/// Of how far folding is behind, the part that folded cells may wait while it catches up: answers that are minutes old do not suffer from being a quarter
/// older, and each sketch is written once for all that was folded meanwhile.
pub const EMIT_PART_BEHIND: u32 = 4;

/// How long they wait then at most. What takes memory does not wait for it ([`PENDING_CELLS`]), and closed chunks make what is complete move on.
pub const EMIT_INTERVAL_BEHIND: Duration = Duration::from_secs(10);

/// The same where open chunks are in ClickHouse, too. A chunk's end writes all of its sketches once more and the next one its contexts, so it is worth the memory
/// to have few: some 100 MB a partition where contexts are what fills it, thrice that of [`CHUNK_CELLS`] at worst.
pub const CHUNK_CELLS_CLICKHOUSE: usize = 300_000;

/// Cells waiting for their emission at most, before the loop emits whatever the time: those of closed chunks, and changed contexts of open ones. Nearly all are contexts
/// then, of which as many take some 100 MB on their way; fewer at a time would be more inserts, and parts that ClickHouse merges again.
pub const PENDING_CELLS: usize = 500_000;

/// First and longest wait before a failed upsert or read is tried again.
pub const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How often the ends of partitions are asked for, which tell the lag.
pub const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer to that is waited for.
pub const LAG_WAIT: Duration = Duration::from_secs(5);

/// How often partitions that have not moved are looked at, should the log's wake-up be late: an idle loop then costs nothing.
pub const IDLE_WAIT: Duration = Duration::from_secs(1);

/// Payload bytes from which a reading is folded on a thread for blocking work: below, folding takes under a
/// millisecond, which the runtime can spare.
pub const INLINE_BYTES: usize = 128 * 1024;

/// How long a store that does not take the last cells is asked again at shutdown: the log still has what they are made of, and
/// whoever waits for the process must not wait for ever.
pub const DRAIN_WAIT: Duration = Duration::from_secs(5);
