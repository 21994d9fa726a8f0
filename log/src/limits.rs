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

/// Partitions of a decisions topic that we create: enough for a dozen aggregators, and few enough that a small installation's
/// flushes still fill batches.
pub const KAFKA_PARTITIONS: u32 = 12;

/// How long Kafka keeps decisions in a topic that we create. A week of replay, at some 12 bytes a decision.
pub const KAFKA_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Shortest retention that is accepted: twice the time for which an idle partition's chunk can stay open (16,384 heartbeats of one
/// producer are four and a half hours), and the log must reach back to the start of an open chunk.
pub const KAFKA_RETENTION_MIN: Duration = Duration::from_secs(12 * 3600);

/// What Kafka adds to a record at most: the batch header (61 bytes), lengths, key, the header's name. Topics and clients allow
/// [`RECORD_BYTES`] plus this.
pub const KAFKA_OVERHEAD_BYTES: usize = 64 << 10;

/// How long opening a log waits for a broker before it gives up and says so.
pub const KAFKA_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a process that only appends and can go on without one: answers matter more than the log, which has a spool before it.
pub const KAFKA_APPENDER_WAIT: Duration = Duration::from_secs(2);

/// How long one request to the brokers may take: a failover of three brokers takes 2 to 4 s.
pub const KAFKA_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a producer waits for more records before it sends: a flush hands over its records within microseconds.
pub const KAFKA_LINGER: Duration = Duration::from_millis(1);

/// How long closing a log waits for records that the brokers have not confirmed: the recorder has waited for 10 s by then and spools them.
pub const KAFKA_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// First and longest pause before a producer that failed is made again.
pub const KAFKA_PRODUCER_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// First and longest pause between attempts to reach a broker: a broker that is back is found within a second.
pub const KAFKA_RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a broker holds a fetch that has nothing to answer with. A reader that turns to another place waits for the fetch under
/// way, so this is short; forty empty fetches a second cost a broker less than one per cent of a core.
pub const KAFKA_FETCH_WAIT: Duration = Duration::from_millis(25);

/// Bytes that wait for readers in all partitions of one log together; past its share of it a partition is paused. A second of
/// folding at 50 MB/s.
pub const KAFKA_READ_AHEAD_BYTES: usize = 64 << 20;

/// Bytes that the client library holds in addition before they are sorted into partitions.
pub const KAFKA_FETCH_QUEUE_BYTES: usize = 16 << 20;

/// A partition that nobody has read or waited for this long is no longer fetched.
pub const KAFKA_IDLE: Duration = Duration::from_secs(60);

/// How often a waiting reader asks for the end of its partition, should its fetch have stalled; and how long the end may be beyond
/// what was fetched before the watchdog makes the consumer again.
pub const KAFKA_STALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// How long a member of the group may be silent before its partitions go to others: the brokers' own lower limit, since answers must be
/// fresh 10 s after a kill.
pub const KAFKA_SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Usage totals that wait for a follower before its topic is held back.
pub const KAFKA_USAGE_EVENTS: usize = 1024;
