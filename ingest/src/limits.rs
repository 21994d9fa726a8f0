//! The limits of recording, each with its reason. Those that readers of the log rely on are in `flagmint_schemas::limits`.

use std::time::Duration;

/// How often buffers are flushed. Half of `FLUSH_INTERVAL_US`, so that a tick which comes late or takes its time still
/// keeps that bound.
pub const FLUSH_TICK: Duration = Duration::from_millis(50);

/// Decisions in one shard's buffer of one environment at which the flusher is woken to encode them before its tick: a batch that is
/// nearly full, and whose calls and contexts are still in the caches of the core.
/// The log is given nothing before the tick: a hundred disk syncs a second took a core's time without use.
pub const WAKE_DECISIONS: usize = flagmint_schemas::limits::BATCH_DECISIONS_MAX * 3 / 4;

/// Decisions that one shard's buffer of one environment holds at most. Only a flusher that gets no processor time for a fifth of
/// a second can let it fill.
pub const BUFFER_DECISIONS_MAX: usize = 32 * flagmint_schemas::limits::BATCH_DECISIONS_MAX;

/// Calls that one shard's buffer of one environment holds at most; for calls without decisions.
pub const BUFFER_CALLS_MAX: usize = BUFFER_DECISIONS_MAX;

/// Shards of buffers at most. More would not lower contention (a push holds the lock some 20 ns) but make flushes dearer.
pub const SHARDS_MAX: usize = 8;

/// Callers told apart per configuration version of an environment; those beyond are recorded without the texts the
/// client chose (source, SDK, wrapper), so that a client inventing names cannot grow memory.
pub const CALLERS_MAX: usize = 1024;

/// Characters kept of each text of a caller: longer ones are no names.
pub const CALLER_TEXT_CHARACTERS: usize = 64;

/// Batches of one environment in one flush that go to the same partition; those beyond go to the next ones. Eight batches every
/// 50 ms are a million decisions/s from one instance: few environments ever leave their partition, and one that does costs each
/// further partition a set of cells.
pub const FLUSH_BATCHES_PER_PARTITION: usize = 8;

/// Bytes of encoded batches that wait in memory for one partition of the log: about a second at full load.
pub const QUEUE_BYTES: usize = 8 << 20;

/// Payloads kept for the next batches: what one flush at full load queues before the log has taken the one before.
pub const SPARE_PAYLOADS: usize = 16;

/// Bytes of a payload that is kept; rare giants are given back.
pub const SPARE_PAYLOAD_BYTES: usize = 1 << 20;

/// Records that wait in memory for one partition of the log; bounds the queue when they are tiny.
pub const QUEUE_RECORDS: usize = 4096;

/// If the oldest waiting record is older than this, new ones go to the spool: what a kill can lose stays a fraction of a
/// second even while the log stands still, and ordinary pauses of a disk do not reach it.
pub const SPOOL_AFTER: Duration = Duration::from_millis(200);

/// Default bytes of the spool on disk, all partitions together: half an hour at 10,000 decisions/s.
pub const SPOOL_BYTES: u64 = 1 << 30;

/// Bytes read from the spool at once, so that replaying takes little memory.
pub const SPOOL_READ_BYTES: usize = 1 << 20;

/// First pause after the log said "later".
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);

/// Longest pause after the log said "later": short against what people notice, long against what the attempt costs.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long a drain waits for the log before it puts what is left into the spool: orchestrators kill after 30 s.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of a string value that may be logged as it is (data-plane.md section 11).
pub const ATTRIBUTE_CHARACTERS_MAX: usize = 64;

/// Characters of an attribute's name that is logged; attributes with longer ones are left out and counted, as they
/// are data rather than names.
pub const ATTRIBUTE_NAME_CHARACTERS_MAX: usize = 64;

/// Bytes of a value (as JSON) logged under raw logging; larger ones are replaced by their type, so that a batch stays
/// far below what the log takes.
pub const RAW_VALUE_BYTES_MAX: usize = 1024;

/// Calls in one batch at most; like decisions, so that calls without decisions do not make a giant.
pub const BATCH_CALLS_MAX: usize = flagmint_schemas::limits::BATCH_DECISIONS_MAX;

/// Bytes of texts after which a batch takes no more calls: with 8192 rows beside them and one call's overshoot it stays
/// below the 8 MiB that the log takes as one record.
pub const BATCH_TEXT_BYTES: usize = 2 << 20;
