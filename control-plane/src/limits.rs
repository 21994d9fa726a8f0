//! Every limit of the control plane, each with its reason.

use std::time::Duration;

/// Largest request body: the published limit (management API 1.5). Larger is 413.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Longest name of anything, in characters: fits a heading, and an index entry of Postgres.
pub const MAX_NAME_CHARS: usize = 255;

/// Longest description, in characters: some paragraphs.
pub const MAX_DESCRIPTION_CHARS: usize = 4_000;

/// Longest key of a flag, project, segment or variation: the published length for flags, used for all.
pub const MAX_KEY_CHARS: usize = 128;

/// Fewest and most characters of an attribute's key: published.
pub const ATTRIBUTE_KEY_CHARS: std::ops::RangeInclusive<usize> = 2..=255;

/// Most attributes of an organization: each private one is part of every snapshot of its environments.
pub const MAX_ATTRIBUTES: i64 = 1_000;

/// Most suggested values of an attribute: a list to choose from, returned with every page.
pub const MAX_SUGGESTIONS: usize = 200;

/// Longest salt: hashed once per decision and key, so it should stay short.
pub const MAX_SALT_CHARS: usize = 255;

/// Longest mail address that can be delivered to (RFC 5321).
pub const MAX_EMAIL_CHARS: usize = 254;

/// Fewest and most characters of a password: published.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 10..=128;

/// Largest value of a variation as JSON text: published; each decision may carry it.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// Largest metadata of a flag as JSON text: it is returned in every list.
pub const MAX_METADATA_BYTES: usize = 16 << 10;

/// Most variations of one flag: each is compiled into every environment.
pub const MAX_VARIATIONS: usize = 100;

/// Most conditions of one rule or rules of one segment: all are tried for each decision.
pub const MAX_CONDITIONS: usize = 500;

/// Rows of a page when none is asked for, and the most that can be: published.
pub const DEFAULT_PAGE_ROWS: i64 = 20;
/// See [`DEFAULT_PAGE_ROWS`].
pub const MAX_PAGE_ROWS: i64 = 100;

/// Furthest row a page may begin at: keeps the arithmetic far from overflow; no list is that long.
pub const MAX_OFFSET_ROWS: i64 = 1_000_000_000;

/// Sign-in attempts per minute for one address and mail: published.
pub const LOGINS_PER_MINUTE: u16 = 5;

/// Requests per minute for one user: published (1.5).
pub const REQUESTS_PER_MINUTE: u16 = 600;

/// Keys a rate limiter remembers: some 10 MB at most, and more callers in a minute than one instance serves.
pub const MAX_LIMITER_KEYS: usize = 100_000;

/// Passwords hashed at the same time: each takes 19 MiB and a core for some 20 ms.
pub const MAX_CONCURRENT_HASHES: usize = 4;

/// How long a sign-in may wait for its turn to hash, before it is told to come back.
pub const HASH_QUEUE_WAIT: Duration = Duration::from_secs(5);

/// How long a request waits for a connection to Postgres before it is answered 503.
pub const POOL_WAIT: Duration = Duration::from_millis(2_500);

/// Connections to Postgres: the embedded one takes 20, which the evaluator (2) and the query API (8) share.
pub const MAX_POOL_CONNECTIONS: u32 = 8;

/// Longest a statement may run: nothing here needs more than some milliseconds; a lock held elsewhere must not pile up.
pub const STATEMENT_TIMEOUT: &str = "10s";

/// Largest `rate_limit_per_minute` of a key: a number nobody reaches on one instance; larger is surely a mistake.
pub const MAX_KEY_RATE_PER_MINUTE: i32 = 100_000_000;

/// Deltas kept per environment: published. With [`DELTA_DAYS`] it bounds the table, and who missed more is sent everything.
pub const DELTA_VERSIONS: i64 = 1_000;

/// Days that a delta is kept: published.
pub const DELTA_DAYS: i32 = 7;
