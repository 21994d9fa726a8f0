//! The limits of the evaluation tier, each with its reason.

use std::time::Duration;

/// Bytes of a request body at most (data-plane.md section 2): contexts are a few hundred bytes, and this bounds what one
/// request can make us parse.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A request's body must come within this, or its connection is closed: 64 KiB take a second on a bad line, and one that drips in
/// holds its connection no longer.
pub const BODY_MAX: Duration = Duration::from_secs(10);

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

/// Connections to Postgres: one listens, one loads, one claims sessions.
pub const POSTGRES_CONNECTIONS: u32 = 3;

/// Characters kept of anything a client says about itself: longer names are cut, so that they cannot fill memory.
pub const IDENTITY_CHARS_MAX: usize = 64;

/// Shards of the cache of contexts read lately: look-ups of different contexts rarely meet.
pub const CONTEXT_CACHE_SHARDS: usize = 8;

/// Bytes per shard and generation of that cache: 2 MiB, so each of an environment's two caches (REST's, OFREP's) stays below 32 MiB
/// whatever is sent, and some 8,000 contexts of 200 bytes are found again for certain.
pub const CONTEXT_CACHE_BYTES: usize = 2 << 20;

/// What a cached context is taken to need: this, and [`CONTEXT_CACHE_FACTOR`] times its text for the parsed and the logged form.
pub const CONTEXT_CACHE_ENTRY_BYTES: usize = 512;

/// See [`CONTEXT_CACHE_ENTRY_BYTES`]: a member of ten bytes of JSON becomes some 90 bytes of map entry, attribute and text.
pub const CONTEXT_CACHE_FACTOR: usize = 8;

/// Bytes of one file of the configuration's copy on disk at most: a compiled environment is some megabytes at its own limits, a million
/// keys are 200 MB.
pub const COPY_FILE_BYTES_MAX: usize = 1 << 30;

/// A session unused for this long is over (data-plane.md section 5): clients open their stream at once.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(60);

/// Bytes of a session's or connection's id that is worth opening: ours have some 200, and one with an address 300.
pub const SEALED_ID_BYTES_MAX: usize = 1024;

/// A stream waits this long at most for Postgres to say whether its session was used elsewhere: clients give up after 5 s, and with
/// Postgres away streams must open all the same.
pub const CLAIM_MAX: Duration = Duration::from_millis(250);

/// Session claims waiting for Postgres at most, and claims of one statement: some 100 kB.
pub const CLAIMS_MAX: usize = 1024;

/// Used session ids remembered for a minute at most, 40 bytes each: 3,000 streams opened a second.
pub const USED_SESSIONS_MAX: usize = 200_000;

/// Seconds after which a client over its monthly limit may ask again, at most (data-plane.md 10.3): the plan may have changed.
pub const QUOTA_RETRY_MAX_S: i64 = 3600;

/// Connections of one key that this instance holds at most: at 20 kB each, 1 GB.
pub const CONNECTIONS_PER_KEY_MAX: usize = 50_000;

/// Two rounds of telling connections of a publish are this far apart at least: a storm of publishes costs five rounds a second, and
/// a single one is told at once.
pub const PUBLISH_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// The wall clock is looked at this often at least while the next step of a gradual rollout is waited for: it may be set.
pub const CLOCK_TRUST_MAX: Duration = Duration::from_secs(10);

/// A posted context is evaluated when none has followed it for this long (data-plane.md 6.4), …
pub const CONTEXT_DEBOUNCE: Duration = Duration::from_millis(400);

/// … but no later than this after the first: clients wait for 5 s.
pub const CONTEXT_DEBOUNCE_MAX: Duration = Duration::from_secs(2);

/// Keys are looked at for having expired this often: a connection outlives its key by this at most.
pub const KEY_EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a key that failed is remembered (data-plane.md 4.3).
pub const FAILED_KEY_MEMORY: Duration = Duration::from_secs(60);

/// Failed keys remembered at most, 48 bytes each.
pub const FAILED_KEYS_MAX: usize = 10_000;

/// A drain ends connections in this many rounds, …
pub const DRAIN_ROUNDS: usize = 50;

/// … this far apart: a second in all, a third of what open requests get.
pub const DRAIN_ROUND: Duration = Duration::from_millis(20);

/// Bytes of a context in a stream's URL at most, decoded; those in bodies are bounded by their bodies.
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a forwarded context at most: a body's worth, escaped in JSON (twice as long at worst that still decodes) and as base64.
pub const FORWARDED_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

/// A stream says something this often, so that nobody on the way takes it for dead (data-plane.md 6.2).
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// The first map of a socket is sent this long after its upgrade: Go misses one that comes within 20 ms, and JS wants it within 50 ms
/// (data-plane.md 4.2). In the middle, since timers and networks are late by milliseconds.
pub const FIRST_FLAGS_AFTER: Duration = Duration::from_millis(30);

/// A socket is pinged this often (data-plane.md 4.2).
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Pings in a row that may stay unanswered before a socket is closed: a peer that vanished is noticed within 90 s.
pub const UNANSWERED_PINGS_MAX: u32 = 2;

/// Bytes of a frame or message of a socket at most (data-plane.md 4.2): a context's worth.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a socket's read buffer: contexts are a few hundred, and each open socket has one. Larger messages get a larger one.
pub const SOCKET_READ_BYTES: usize = 1024;

/// Bytes that wait to be written to a socket at most: each message waits for the one before, so this is one map.
pub const SOCKET_WRITE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Messages read from one socket in a second at most; the rest waits unread. No client of ours sends more than two.
pub const MESSAGES_PER_SECOND_MAX: u32 = 500;

/// A socket that was told why it is closed is given this long to take note.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Bytes read from such a socket at most, which the client had under way.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// A key that failed in the last minute is refused this much later (data-plane.md 4.3): Go retries refusals for ever.
pub const CLOSE_DELAY: Duration = Duration::from_secs(1);

/// Sockets waiting to be refused late at most, some 5 kB each; beyond that they are refused at once.
pub const LATE_CLOSES_MAX: usize = 2_000;

/// Connections to a listener at most unless told otherwise, if descriptors allow: at 20 kB each, 2 GB.
pub const CONNECTIONS_MAX: u32 = 100_000;

/// Connections from one address at most unless told otherwise. Proxies hold those of many clients, so this bounds only what one machine
/// can do: it has some 28,000 ports.
pub const CONNECTIONS_PER_ADDRESS_MAX: u32 = 30_000;

/// A client may take this long for a request's head from its first bytes on, and as long to send the first bytes of a connection: ample on
/// a bad line, and heads sent byte by byte hold nothing for longer.
pub const HEAD_READ_MAX: Duration = Duration::from_secs(15);

/// A connection may be idle between requests for this long: longer than proxies keep theirs (60 s), so that they close first.
pub const IDLE_MAX: Duration = Duration::from_secs(75);

/// Requests under way on one HTTP/2 connection at most: more than proxies ask for, and at 64 KiB each their bodies need 8 MiB.
pub const HTTP2_REQUESTS_MAX: u32 = 128;

/// Requests of an HTTP/2 connection that may have been taken back before they were looked at; one more ends the connection. Clients take
/// back one now and then; a flood of them costs the server and not the client (CVE-2023-44487).
pub const HTTP2_TAKEN_BACK_MAX: usize = 20;

/// Requests of an HTTP/2 connection that we had to refuse for their form; one more ends it (CVE-2025-8671).
pub const HTTP2_REFUSED_MAX: usize = 64;

/// An HTTP/2 connection on which nothing has come for this long is asked whether anybody is there, and ends without an answer within
/// [`UNREAD_MAX`].
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Bytes of a request's head at most, and of what waits to be written to a connection: a context of 64 KiB as base64 in a URL or header fits.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;

/// A client that reads nothing of what it is sent for this long is given up: heartbeats come every 15 s, and networks recover in less.
pub const UNREAD_MAX: Duration = Duration::from_secs(20);

/// Requests with bad keys from one address in a minute that are answered as such: a fleet of a hundred clients with an old key that
/// polls, and no search for a key.
pub const BAD_KEYS_PER_MINUTE: u32 = 120;

/// Slots of the table of addresses with bad keys: 128 kB, and few of a thousand addresses share one.
pub const BAD_KEY_SLOTS: usize = 8192;

/// Pause after a connection could not be accepted: descriptors come back when others close.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that the kernel may hold of what is sent to one client: two large maps. It doubles the number for its own needs.
pub const SEND_BUFFER_BYTES: u32 = 128 * 1024;

/// Connections that may wait to be accepted: as many as Linux allows by default, since clients come back all at once after a deploy.
pub const BACKLOG: u32 = 4096;

/// How long a connection to Postgres is waited for: a start that finds it away goes on from the copy on disk after that.
pub const POSTGRES_WAIT: Duration = Duration::from_secs(5);

/// Instances tell each other what each key has used this often: between two exchanges a key may go over its limit by what it sends to
/// the others, so this is how far the shared limit is off.
pub const SHARED_RATES_INTERVAL: Duration = Duration::from_secs(1);

/// Deltas of one environment kept in memory at most: as many versions as the control plane keeps.
pub const HISTORY_VERSIONS_MAX: usize = 1_000;

/// Bytes of them at most: a thousand small changes, and a client that missed more is served better by the whole configuration.
pub const HISTORY_BYTES_MAX: usize = 2 << 20;

/// How long a client that has been away waits for deltas from Postgres before it gets the whole configuration instead: its own
/// patience is 5 s.
pub const HISTORY_WAIT: Duration = Duration::from_secs(1);

/// Bytes of a body of events at most (data-plane.md section 2).
pub const EVENTS_BODY_BYTES_MAX: usize = 256 * 1024;

/// Events of one body at most (data-plane.md section 8): clients send 20; what is beyond is dropped and counted.
pub const EVENTS_MAX: usize = 500;

/// Evaluations that one event may stand for: published.
pub const EVENT_COUNT_MAX: u64 = 10_000;

/// An event older than this at its receipt is taken to have happened then: published.
pub const EVENT_AGE_MAX_US: i64 = 7 * 86_400_000_000;

/// The same for one further ahead than this.
pub const EVENT_AHEAD_MAX_US: i64 = 5 * 60_000_000;

/// A batch of events that came before is dropped for this long: published. Clients that lost a reply send again within minutes.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(600);

/// Batches of events remembered for that: some 25 MB. More than 400 a second shorten the window, which is counted.
pub const REPEATS_MAX: usize = 1 << 18;

/// Characters of a user key or name in an event at most: longer ones are no keys, and each would be hashed.
pub const EVENT_TEXT_CHARS_MAX: usize = 1024;

/// The lease of an open configuration stream is renewed this often (data-plane.md 7.4): four times before it ends.
pub const LEASE_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Bytes of a head within which a stream's request is read without the usual buffers; larger ones are read the usual way.
pub const LEAN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of such a request at most: browsers behind proxies send some 25.
pub const LEAN_HEADERS_MAX: usize = 64;
