//! The limits of the binary itself, each with its reason.

use std::time::Duration;

/// A drain takes at most this long: orchestrators kill after 10 s by default.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Of the drain, open requests get at most this long.
pub const DRAIN_REQUESTS_MAX: Duration = Duration::from_secs(3);

/// A request that takes longer than this is given up with 503: no endpoint needs a tenth of it.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);

/// How often the rollups are written, rewritten and thinned, and the log is trimmed.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// Connections of an open-loop load: enough that a 10 ms answer does not hold back 6,000 requests a second.
pub const OPEN_LOOP_CONNECTIONS: u32 = 64;

/// A load generator waits this long for one answer before it counts a failure.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The demo waits this long after its last request for the ledger to be complete.
pub const COMPLETE_MAX: Duration = Duration::from_secs(30);

/// Bytes of one answer that a load generator reads at most.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Management writes waiting to be metered at most; beyond that they are refused and counted.
pub const METERED_WRITES_MAX: usize = 10_000;

/// Bytes of the file of dead letters at most; beyond that they are counted only.
pub const DEAD_LETTERS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Records kept in the log before the oldest open chunk: a fold that resumes recognises duplicates within 4,096 records and
/// producers within 20 s, which at 100 batches a second are 2,000 more.
pub const LOG_RECORDS_BEFORE_CHUNK: u64 = 8192;

/// Letters waiting to be written down at most; the aggregator waits beyond that.
pub const DEAD_LETTERS_WAITING_MAX: usize = 64;

/// How long a dependency has to answer for `/health/ready`: below the time-outs of probes.
pub const HEALTH_CHECK_MAX: Duration = Duration::from_secs(2);

/// Of a drain, folding what the log still holds gets at most this long: a backlog is folded by the next run, or by another process.
pub const DRAIN_FOLD_MAX: Duration = Duration::from_secs(2);

/// Of a drain, a log that does not take the last decisions is waited for at most this long; then they go to the spool.
pub const DRAIN_RECORDER_MAX: Duration = Duration::from_secs(4);

/// Shortest time between two inserts into ClickHouse, unless an option says otherwise: docs/performance.md has what other intervals cost.
pub const EMIT_INTERVAL_CLICKHOUSE: Duration = Duration::from_millis(100);

/// Shortest time between two such inserts of sketches, contexts and the ledger: they are many times as long as counts, an insert costs some 5 ms
/// whatever is in it, and nobody asks how many users there were in the last tenth of a second.
pub const WHOLE_INTERVAL_CLICKHOUSE: Duration = Duration::from_secs(1);

/// How often a dead letter is offered to its topic and to its table, each time for the client's own time-out.
pub const DEAD_LETTER_ATTEMPTS: u32 = 3;

/// Between two attempts: a server that restarts is back after some seconds.
pub const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

/// How often usage totals are asked of the store and published: limits are then known to be reached half a second late at most. Each asks one
/// question of some milliseconds.
pub const USAGE_TOTALS_INTERVAL: Duration = Duration::from_millis(250);

/// How far folding is behind when they are asked for less often, and how often then: they are that old anyway, and the store has enough to do.
pub const USAGE_TOTALS_BEHIND: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// First and longest wait before a log that failed for good is opened again.
pub const REOPEN_WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How often the process's histograms are condensed: a second's observations take a few milliseconds.
pub const CONDENSE_INTERVAL: Duration = Duration::from_secs(1);

/// How far all but requests steps back where one process has all roles, its Postgres included: with both at work, a core goes to requests
/// for seven tenths. Less would let a fold or a publish delay requests; more lets the log fall behind, and at last decisions be refused,
/// where a core can do no more.
pub const BACKGROUND_NICENESS: i32 = 4;
