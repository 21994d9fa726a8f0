//! The open connections of one environment: told when what they were sent may be out of date, by a publish or because a gradual
//! rollout stepped.
//!
//! A connection evaluates by itself when it is told, in the task that writes to its socket: so the work is spread over the
//! cores, and one whose client does not read costs nothing. What connections with the same context need is evaluated by the first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, End};
use super::interned::Interned;
use super::map::FlagMap;
use crate::directory::Environment;
use crate::engine::Decision;
use crate::http::Received;
use crate::limits::{CLOCK_TRUST_MAX, PUBLISH_INTERVAL_MIN};
use crate::snapshot::Snapshot;

/// A context as sent, and what was last decided for it by a publish.
#[derive(Debug)]
pub struct SharedContext {
    /// JSON of an object. Read again for each evaluation: kept as text it needs a tenth of the memory.
    pub text: Box<str>,
    /// With the epoch it was decided in.
    pub decided: Mutex<Option<(u64, Arc<FlagMap>)>>,
}

/// One environment's connections.
pub struct Hub {
    environment: Arc<Environment>,
    /// Raised with each publish and each step of a gradual rollout.
    epoch: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    contexts: Interned<SharedContext>,
    maps: Interned<FlagMap>,
}

impl Hub {
    /// A hub without connections, and its task, which ends with `draining`.
    pub fn start(environment: Arc<Environment>, draining: CancellationToken) -> Arc<Self> {
        let changes = environment.changes();
        let hub = Arc::new(Self {
            environment,
            epoch: AtomicU64::new(1),
            connections: Mutex::default(),
            contexts: Interned::default(),
            maps: Interned::default(),
        });
        let following = Arc::clone(&hub);
        tokio::spawn(async move {
            tokio::select! {
                () = following.follow(changes) => {}
                () = draining.cancelled() => {}
            }
        });
        hub
    }

    async fn follow(&self, mut changes: watch::Receiver<()>) {
        let mut told_us = Received::now().time_us;
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.step_after(told_us) => {}
            }
            told_us = Received::now().time_us;
            self.epoch.fetch_add(1, Ordering::AcqRel);
            let has_lapsed = self.environment.snapshot().as_ref().is_some_and(|snapshot| !snapshot.subscription_active);
            for connection in self.all() {
                if has_lapsed { connection.end(End::SubscriptionInactive) } else { connection.wake() }
            }
            // Whatever else is published meanwhile is one further round.
            sleep(PUBLISH_INTERVAL_MIN).await;
        }
    }

    /// Returns when a gradual rollout in use has stepped since `told_us`.
    async fn step_after(&self, told_us: i64) {
        loop {
            let step_us =
                self.environment.snapshot().as_ref().and_then(|held| held.compiled.next_gradual_step_us(told_us));
            let left_us = step_us.map_or(i64::MAX, |step_us| step_us.saturating_sub(Received::now().time_us));
            if left_us <= 0 {
                return;
            }
            // The wall clock may be set while we sleep.
            sleep(Duration::from_micros(left_us.unsigned_abs()).min(CLOCK_TRUST_MAX)).await;
        }
    }

    /// The current epoch: read before the snapshot, so that a decision is never taken for a newer one than it is.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The environment.
    pub fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    /// The context of this text.
    pub fn context(&self, text: &str) -> Arc<SharedContext> {
        let make = || SharedContext { text: text.into(), decided: Mutex::default() };
        self.contexts.get_or_make(text.as_bytes(), |held| *held.text == *text, make)
    }

    /// What these decisions serve.
    pub fn map(&self, snapshot: &Snapshot, decisions: &[Decision]) -> Arc<FlagMap> {
        let mut values = Vec::new();
        snapshot.write_values(decisions, &mut values);
        let values = String::from_utf8(values).expect("JSON made of texts");
        let analytics = snapshot.analytics();
        let is_same = |held: &FlagMap| *held.values == *values && held.analytics == *analytics;
        let make = || FlagMap { values: values.as_str().into(), analytics: Arc::clone(analytics) };
        self.maps.get_or_make(values.as_bytes(), is_same, make)
    }

    /// The connection of that number.
    pub fn find(&self, number: u64) -> Option<Arc<Connection>> {
        self.held().get(&number).map(Arc::clone)
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.held().values().map(Arc::clone).collect()
    }

    pub(super) fn add(&self, connection: &Arc<Connection>) {
        self.held().insert(connection.number, Arc::clone(connection));
    }

    pub(super) fn remove(&self, number: u64) {
        let mut held = self.held();
        held.remove(&number);
        // After a crowd has left its table is given back.
        if held.capacity() > 1024 && held.len() < held.capacity() / 4 {
            held.shrink_to_fit();
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
