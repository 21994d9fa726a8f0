//! The limits of this crate, each with its reason.

use std::time::Duration;

/// Days that one question may cover: daily analytics are kept this long (management API, retention).
pub const PERIOD_DAYS_MAX: i64 = 400;

/// Days that a question by hour may cover: hourly analytics are kept this long, and a series stays below 750 points.
pub const HOURLY_DAYS_MAX: i64 = 31;

/// Days covered when none are asked for, today included.
pub const PERIOD_DAYS_DEFAULT: i64 = 30;

/// Days for which observed contexts are kept, today included (management API, retention).
pub const CONTEXT_DAYS: i64 = 30;

/// First and last year that `from` and `to` may name: microseconds of every time between them, and of a period before
/// them, fit the rollups' 64 bits.
pub const YEARS: std::ops::RangeInclusive<i32> = 1970..=9998;

/// Flags of a ranking when none are asked for.
pub const TOP_FLAGS_DEFAULT: usize = 10;

/// Flags of a ranking or of a distribution at most: what a person reads, and what bounds the sketches fetched for it.
pub const FLAGS_MAX: usize = 100;

/// Rows of a page when none are asked for.
pub const PAGE_ROWS_DEFAULT: usize = 20;

/// Rows of a page at most (management API 1.3).
pub const PAGE_ROWS_MAX: usize = 100;

/// Rows that a page may lie behind: a store sorts all rows before it, so this bounds what it must hold.
pub const OFFSET_ROWS_MAX: usize = 1_000_000;

/// Bytes of a search text: no logged key or attribute that it could be part of is longer than a few hundred.
pub const SEARCH_BYTES_MAX: usize = 512;

/// Contexts, newest first, among which a search text is looked for exactly: bounds the memory and time of one search.
pub const SEARCH_CANDIDATES_MAX: usize = 50_000;

/// Connections to Postgres: a question reads a few names in about a millisecond, then works elsewhere.
pub const POOL_CONNECTIONS_MAX: u32 = 8;

/// Connections to Postgres that are made at the start and kept: what one question asks at once. A new one takes Postgres 5 ms or more.
pub const POOL_CONNECTIONS_MIN: u32 = 2;

/// How long a question waits for Postgres before it is refused with 503: people do not wait longer for a page.
pub const POOL_WAIT: Duration = Duration::from_secs(2);

/// How long one statement may run in Postgres: all are look-ups by index.
pub const STATEMENT_TIMEOUT: &str = "5s";
