//! Open connections: sockets and streams that are pushed to. Who may open one, who holds which, and when all must go.
//!
//! Nothing here knows a wire format: [`crate::http`] speaks to the clients.

mod client;
mod connection;
mod failed;
mod hub;
mod interned;
mod map;

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use flagmint_schemas::decision::Transport;
use flagmint_schemas::ids::EnvironmentId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::client::Client;
pub use self::connection::{Connection, End, Event};
pub use self::failed::FailedKeys;
use self::hub::Hub;
pub use self::map::FlagMap;
use crate::directory::{Directory, Environment, Key, KeyHash};
use crate::http::{DataPlane, Received};
use crate::limits::{DRAIN_ROUND, DRAIN_ROUNDS, KEY_EXPIRY_INTERVAL, SEALED_ID_BYTES_MAX};
use crate::session::sealed::Sealer;

/// All connections of this instance.
pub struct Streams {
    directory: Arc<Directory>,
    /// This run of this instance.
    instance: Uuid,
    /// Where other instances reach this one; empty if there are none.
    address: String,
    sealer: Sealer,
    hubs: Mutex<HashMap<EnvironmentId, Arc<Hub>>>,
    by_key: Mutex<HashMap<KeyHash, usize>>,
    per_key_max: usize,
    count: AtomicUsize,
    next_number: AtomicU64,
    draining: CancellationToken,
    is_kept: AtomicBool,
    /// Keys refused lately.
    pub failed_keys: FailedKeys,
}

/// Where the connection of an id is held.
#[derive(Debug, PartialEq, Eq)]
pub enum Held {
    /// Here, if it is still open.
    Here(u64),
    /// By another instance.
    There {
        /// Which run of it.
        instance: Uuid,
        /// Where it is reached.
        address: String,
        /// The connection's number there.
        number: u64,
    },
}

/// Why no connection can be opened; clients try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key has as many as it may have.
    TooManyOfKey,
    /// This instance is about to stop.
    GoingAway,
}

impl Streams {
    /// No connections yet. `address` is told to other instances.
    #[must_use]
    pub fn new(directory: Arc<Directory>, secret: &[u8; 32], address: Option<String>, per_key_max: usize) -> Self {
        Self {
            directory,
            instance: Uuid::new_v4(),
            address: address.unwrap_or_default(),
            sealer: Sealer::new(secret, "flagmint-connection-v1"),
            hubs: Mutex::default(),
            by_key: Mutex::default(),
            per_key_max,
            count: AtomicUsize::new(0),
            next_number: AtomicU64::new(1),
            draining: CancellationToken::new(),
            is_kept: AtomicBool::new(false),
            failed_keys: FailedKeys::default(),
        }
    }

    /// Opens a connection with this key; `context` is the JSON of an object, or `None` for a client that evaluates by itself.
    ///
    /// # Errors
    /// [`Refusal`], which is counted.
    pub fn open(
        self: &Arc<Self>,
        plane: &DataPlane,
        key: &Arc<Key>,
        transport: Transport,
        client: Client,
        context: Option<&str>,
    ) -> Result<Open, Refusal> {
        let refused = |refusal, reason: &'static str| {
            metrics::counter!("flagmint_evaluator_streams_refused_total", "reason" => reason).increment(1);
            Err(refusal)
        };
        if self.draining.is_cancelled() {
            return refused(Refusal::GoingAway, "draining");
        }
        {
            let mut by_key = lock(&self.by_key);
            let count = by_key.entry(key.facts.hash).or_default();
            if *count >= self.per_key_max {
                return refused(Refusal::TooManyOfKey, "per_key");
            }
            *count += 1;
        }
        self.keep();
        self.count.fetch_add(1, Ordering::Relaxed);
        open_gauge(transport).increment(1.0);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let hub = self.hub(&key.environment);
        let connection =
            Arc::new(Connection::new((number, Arc::clone(&hub), Arc::clone(key)), transport, client, context));
        hub.add(&connection);
        // Whoever drains has cancelled before it looks for connections; whoever revokes has changed the keys.
        if self.draining.is_cancelled() {
            connection.end(End::GoingAway);
        }
        if self.directory.usable_key(&key.facts.hash, Received::now().time_us).is_none() {
            connection.end(End::InvalidApiKey);
        }
        Ok(Open { connection, streams: Arc::clone(self), plane: plane.clone() })
    }

    /// Connections open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The id under which clients name a connection: it says which instance holds it.
    #[must_use]
    pub fn id_of(&self, connection: &Connection) -> String {
        let number = connection.number.to_be_bytes();
        self.sealer.seal(&[self.instance.as_bytes().as_slice(), &number, self.address.as_bytes()].concat())
    }

    /// Which connection an id names; `None` if we never gave it out.
    #[must_use]
    pub fn locate(&self, id: &str) -> Option<Held> {
        if id.len() > SEALED_ID_BYTES_MAX {
            return None;
        }
        let bytes = self.sealer.open(id)?;
        let (instance, rest) = bytes.split_first_chunk()?;
        let (number, address) = rest.split_first_chunk()?;
        let (instance, number) = (Uuid::from_bytes(*instance), u64::from_be_bytes(*number));
        if instance == self.instance {
            return Some(Held::Here(number));
        }
        let address = std::str::from_utf8(address).ok()?.to_owned();
        Some(Held::There { instance, address, number })
    }

    /// This run of this instance.
    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.instance
    }

    /// The connection of that number, if it is open and of this environment.
    #[must_use]
    pub fn find(&self, environment: EnvironmentId, number: u64) -> Option<Arc<Connection>> {
        let hub = lock(&self.hubs).get(&environment).map(Arc::clone)?;
        hub.find(number)
    }

    /// Ends all connections, spread over a while so that not all clients come back at once. No new ones are opened.
    pub async fn drain(&self) {
        self.draining.cancel();
        let hubs: Vec<Arc<Hub>> = lock(&self.hubs).values().map(Arc::clone).collect();
        let connections: Vec<_> = hubs.iter().flat_map(|hub| hub.all()).collect();
        for round in connections.chunks(connections.len().div_ceil(DRAIN_ROUNDS).max(1)) {
            for connection in round {
                connection.end(End::GoingAway);
            }
            if connections.len() > DRAIN_ROUNDS {
                sleep(DRAIN_ROUND).await;
            }
        }
    }

    fn hub(&self, environment: &Arc<Environment>) -> Arc<Hub> {
        let mut hubs = lock(&self.hubs);
        let start = || Hub::start(Arc::clone(environment), self.draining.clone());
        Arc::clone(hubs.entry(environment.id).or_insert_with(start))
    }

    /// Starts what ends the connections of keys that may no longer be used, once.
    fn keep(self: &Arc<Self>) {
        if !self.is_kept.swap(true, Ordering::AcqRel) {
            let streams = Arc::clone(self);
            tokio::spawn(async move {
                tokio::select! {
                    () = streams.follow_keys() => {}
                    () = streams.draining.cancelled() => {}
                }
            });
        }
    }

    async fn follow_keys(&self) {
        let mut changes = self.directory.key_changes();
        let mut expiry = interval(KEY_EXPIRY_INTERVAL);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = expiry.tick() => {}
            }
            let now_us = Received::now().time_us;
            let is_over = |hash: &&KeyHash| self.directory.usable_key(hash, now_us).is_none();
            let over: HashSet<KeyHash> = lock(&self.by_key).keys().filter(is_over).copied().collect();
            if over.is_empty() {
                continue;
            }
            let hubs: Vec<Arc<Hub>> = lock(&self.hubs).values().map(Arc::clone).collect();
            for connection in hubs.iter().flat_map(|hub| hub.all()) {
                if over.contains(&connection.key.facts.hash) {
                    connection.end(End::InvalidApiKey);
                }
            }
        }
    }

    fn close(&self, connection: &Connection) {
        connection.hub.remove(connection.number);
        let mut by_key = lock(&self.by_key);
        if let Some(count) = by_key.get_mut(&connection.key.facts.hash) {
            *count -= 1;
            if *count == 0 {
                by_key.remove(&connection.key.facts.hash);
            }
        }
        drop(by_key);
        self.count.fetch_sub(1, Ordering::Relaxed);
        open_gauge(connection.transport).decrement(1.0);
    }
}

fn open_gauge(transport: Transport) -> metrics::Gauge {
    metrics::gauge!("flagmint_evaluator_streams_open", "transport" => transport.as_str())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection in the hands of who writes to its socket; closed when dropped.
pub struct Open {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The data plane it is part of.
    pub plane: DataPlane,
    streams: Arc<Streams>,
}

impl Open {
    /// The id under which clients name it.
    #[must_use]
    pub fn id(&self) -> String {
        self.streams.id_of(&self.connection)
    }

    /// What is to be done now.
    #[must_use]
    pub fn next(&self) -> Event {
        self.connection.next(&self.plane, Instant::now())
    }

    /// Waits for something to do. Not for connections whose context is posted: those must look at times, too.
    pub async fn changed(&self) -> Event {
        poll_fn(|cx| {
            self.connection.register(cx.waker());
            match self.next() {
                Event::Wait(_) => Poll::Pending,
                event => Poll::Ready(event),
            }
        })
        .await
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.close(&self.connection);
    }
}
