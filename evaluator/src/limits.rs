//! The limits of the evaluation tier, each with its reason.

use std::time::Duration;

/// Bytes of a request body at most (data-plane.md section 2): contexts are a few hundred bytes, and this bounds what one
/// request can make us parse.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a context header at most: hyper refuses larger heads anyway, this names the limit.
pub const CONTEXT_HEADER_BYTES_MAX: usize = 64 * 1024;

/// Requests a minute of a key that has no limit of its own (data-plane.md 3.4).
pub const RATE_LIMIT_PER_MINUTE: u32 = 6_000;

/// Configuration is compared with Postgres this often even without a notification, so that a lost one heals.
pub const RESYNC_INTERVAL: Duration = Duration::from_secs(10);

/// The first wait before Postgres is asked again after a failure; doubled up to [`RETRY_MAX`].
pub const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before Postgres is asked again: with it back, configuration is in force again within this.
pub const RETRY_MAX: Duration = Duration::from_secs(1);

/// `last_used_at` of keys is written this often (data-plane.md section 2: at most once a minute).
pub const LAST_USED_INTERVAL: Duration = Duration::from_secs(60);

/// Connections to Postgres: one listens, one loads.
pub const POSTGRES_CONNECTIONS: u32 = 2;

/// Characters kept of anything a client says about itself: longer names are cut, so that they cannot fill memory.
pub const IDENTITY_CHARS_MAX: usize = 64;

/// Shards of the cache of contexts read lately: look-ups of different contexts rarely meet.
pub const CONTEXT_CACHE_SHARDS: usize = 8;

/// Bytes per shard and generation of that cache: 2 MiB, so one environment's cache stays below 32 MiB whatever is sent, and some
/// 8,000 contexts of 200 bytes are found again for certain.
pub const CONTEXT_CACHE_BYTES: usize = 2 << 20;

/// What a cached context is taken to need: this, and [`CONTEXT_CACHE_FACTOR`] times its text for the parsed and the logged form.
pub const CONTEXT_CACHE_ENTRY_BYTES: usize = 512;

/// See [`CONTEXT_CACHE_ENTRY_BYTES`]: a member of ten bytes of JSON becomes some 90 bytes of map entry, attribute and text.
pub const CONTEXT_CACHE_FACTOR: usize = 8;

/// Bytes of one file of the configuration's copy on disk at most: a compiled environment is some megabytes at its own limits, a million
/// keys are 200 MB.
pub const COPY_FILE_BYTES_MAX: usize = 1 << 30;
