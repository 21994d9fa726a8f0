//! The limits that every crate must agree on, each with its reason.

/// Decisions in one batch at most: the recorder flushes at this many rows; a frame stays well under 1 MiB.
pub const BATCH_DECISIONS_MAX: usize = 8192;

/// Below this many decisions and calls a batch is written as protobuf rows, which have no part that is the same in all batches: packed columns take some
/// hundred bytes before the first row.
pub const PROTOBUF_DECISIONS_BELOW: usize = 8;

/// A batch larger than this is refused when decoding: no honest producer makes one (8192 decisions plus one call's
/// overshoot, contexts of 64 attributes), and it bounds what a damaged length can make us allocate.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A protobuf batch with more rows than this in any table is refused when decoding: producers write at most
/// [`PROTOBUF_DECISIONS_BELOW`] or so, and an empty row is two bytes there but a hundred in memory.
pub const PROTOBUF_ROWS_MAX: usize = 65_536;

/// A packed batch with more rows than this in any table is refused when decoding: producers write [`BATCH_DECISIONS_MAX`] and one
/// call's overshoot, and a column of equal values takes nine bytes there however many rows it has.
pub const PACKED_ROWS_MAX: usize = 131_072;

/// Attributes of one context that are logged at most (data-plane.md section 11).
pub const CONTEXT_ATTRIBUTES_MAX: usize = 64;

/// A silent producer is taken for dead after this long, in microseconds of append time: ten missed heartbeats.
pub const PRODUCER_EXPIRY_US: i64 = 10_000_000;

/// An idle producer appends a heartbeat this often, in microseconds.
pub const HEARTBEAT_INTERVAL_US: i64 = 1_000_000;

/// How often a recorder tells the attributes of a context that keeps coming, in microseconds of event time. Short enough that a context whose attributes were lost, or that comes with
/// one set of them and another in turns, shows the right ones soon; long enough that most batches of a busy service name keys alone.
pub const ATTRIBUTES_INTERVAL_US: i64 = 300_000_000;

/// The longest a decision waits in the recorder before it is appended, in microseconds: the window that a SIGKILL can
/// lose.
pub const FLUSH_INTERVAL_US: i64 = 100_000;

/// Events older than this at append are counted in the minute of their append, in microseconds.
pub const EVENT_TIME_PAST_US: i64 = 24 * 3_600_000_000;

/// Events further in the future than this at append are counted in the minute of their append, in microseconds.
pub const EVENT_TIME_FUTURE_US: i64 = 5 * 60_000_000;
