//! The configuration in force: keys and compiled environments, read without locks on the path of a request.
//!
//! A request loads one pointer for the keys and one for its environment's snapshot. Writers build the next state aside
//! and swap it in; a reader keeps the state it began with until its reply is built.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use flagmint_ingest::{EnvironmentIdentity, EnvironmentRecorder, InFlight, Recorder};
use flagmint_schemas::ids::{EnvironmentId, KeyId, OrganizationId};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::config_sync::history::History;
use crate::config_sync::payload::Delta;
use crate::configuration::ConfigurationSource;
use crate::http::RateWindow;
use crate::limits::HISTORY_WAIT;
use crate::quota::{Limit, Limits, Meter};
use crate::snapshot::Snapshot;

/// SHA-256 of a key's text: all that is ever stored of it.
pub type KeyHash = [u8; 32];

/// The hash under which a key's text is stored.
#[must_use]
pub fn key_hash(text: &str) -> KeyHash {
    Sha256::digest(text.as_bytes()).into()
}

/// What Postgres says about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// The key's id.
    pub id: KeyId,
    /// Hash of its text.
    pub hash: KeyHash,
    /// The environment it grants evaluation in.
    pub environment: EnvironmentId,
    /// When it ends by itself, microseconds.
    pub expires_at_us: Option<i64>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Requests a minute; 0 is no limit.
    pub rate_limit_per_minute: u32,
}

/// A key that may be used, with what it has used.
pub struct Key {
    /// What Postgres says.
    pub facts: KeyFacts,
    /// Its environment.
    pub environment: Arc<Environment>,
    /// Its requests in this minute.
    pub rate: RateWindow,
    last_used_us: AtomicI64,
    used: AtomicBool,
}

impl Key {
    /// Notes a use, to be written to Postgres in time.
    pub fn touch(&self, now_us: i64) {
        self.last_used_us.store(now_us, Ordering::Relaxed);
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// An environment, whose snapshot changes while it stays.
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// What its latest publishes changed.
    pub history: History,
    snapshot: ArcSwapOption<Snapshot>,
    /// Told when `snapshot` was replaced.
    changes: watch::Sender<()>,
}

impl Environment {
    /// The snapshot in force; `None` until one could be loaded.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Option<Arc<Snapshot>>> {
        self.snapshot.load()
    }

    /// Changes whenever another snapshot is in force.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// Keys and environments.
pub struct Directory {
    keys: ArcSwap<HashMap<KeyHash, Arc<Key>>>,
    /// Told when `keys` was replaced.
    key_changes: watch::Sender<()>,
    environments: Mutex<HashMap<EnvironmentId, Arc<Environment>>>,
    limits: Limits,
    recorder: Recorder,
    source: OnceLock<ConfigurationSource>,
    loaded: AtomicBool,
    source_away: AtomicBool,
    /// When the copy on disk was last written that is in force; 0 when configuration is the source's own.
    copy_written_us: AtomicI64,
}

impl Directory {
    /// An empty directory whose environments record through `recorder`.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self {
            keys: ArcSwap::default(),
            key_changes: watch::Sender::new(()),
            environments: Mutex::default(),
            limits: Limits::default(),
            recorder,
            source: OnceLock::new(),
            loaded: AtomicBool::new(false),
            source_away: AtomicBool::new(false),
            copy_written_us: AtomicI64::new(0),
        }
    }

    /// The key with this text, if it may be used at `now_us`.
    #[must_use]
    pub fn authenticate(&self, text: &str, now_us: i64) -> Option<Arc<Key>> {
        self.usable_key(&key_hash(text), now_us)
    }

    /// The key with this hash, if it may be used at `now_us`.
    #[must_use]
    pub fn usable_key(&self, hash: &KeyHash, now_us: i64) -> Option<Arc<Key>> {
        let keys = self.keys.load();
        let key = keys.get(hash)?;
        let expired = key.facts.expires_at_us.is_some_and(|expiry| expiry <= now_us);
        (!expired && !key.facts.revoked).then(|| Arc::clone(key))
    }

    /// The recorder of an environment's next snapshot.
    #[must_use]
    pub fn recorder_for(
        &self,
        identity: EnvironmentIdentity,
        outcomes: Arc<[flagmint_schemas::batch::Outcome]>,
        redactor: flagmint_ingest::ContextRedactor,
    ) -> EnvironmentRecorder {
        self.recorder.environment(identity, outcomes, redactor)
    }

    /// Registers a call under way: until the guard is dropped, no watermark passes the time it was received.
    pub fn begin(&self) -> InFlight {
        self.recorder.begin()
    }

    /// How many flags an environment's snapshot in force has.
    #[must_use]
    pub fn flag_count(&self, id: EnvironmentId) -> Option<usize> {
        let environments = self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = environments.get(&id)?.snapshot.load();
        snapshot.as_ref().map(|snapshot| snapshot.compiled.flags().len())
    }

    /// Puts a snapshot in force, unless a newer one is.
    pub fn publish(&self, snapshot: Snapshot) {
        let environment = self.environment(snapshot.identity.environment);
        let held = environment.snapshot.load_full();
        if held.as_ref().is_some_and(|held| held.version > snapshot.version) {
            return;
        }
        let next = match &held {
            Some(held) => snapshot.with_contexts_of(held),
            None => snapshot,
        };
        environment.snapshot.store(Some(Arc::new(next)));
        environment.changes.send_replace(());
    }

    /// What leads from one version of an environment to a later one; `None` if a delta is missing. Those from before the start
    /// are fetched once, for which the first who asks waits [`HISTORY_WAIT`] at most: it is no call that waits, but a client
    /// that comes back after a restart.
    pub async fn deltas(&self, environment: &Environment, from: u64, to: u64) -> Option<Vec<Arc<Delta>>> {
        if let Some(deltas) = environment.history.between(from, to) {
            return Some(deltas);
        }
        let source = self.source.get()?;
        tokio::time::timeout(HISTORY_WAIT, source.fetch_history(environment, to)).await.ok()?;
        environment.history.between(from, to)
    }

    /// Where deltas of before the start come from.
    pub(crate) fn set_source(&self, source: &ConfigurationSource) {
        let _ = self.source.set(source.clone());
    }

    /// Configuration versions in force, by environment.
    #[must_use]
    pub fn versions(&self) -> HashMap<EnvironmentId, i64> {
        let environments = self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        let version = |environment: &Arc<Environment>| {
            environment.snapshot.load().as_ref().map(|snapshot| (environment.id, snapshot.revision))
        };
        environments.values().filter_map(version).collect()
    }

    /// Replaces all keys. What a key has used in this minute is kept.
    pub fn replace_keys(&self, facts: Vec<KeyFacts>) {
        let held = self.keys.load();
        let keys = facts.into_iter().map(|facts| (facts.hash, self.key(&held, facts))).collect();
        self.keys.store(Arc::new(keys));
        self.key_changes.send_replace(());
    }

    /// Adds or changes one key.
    pub fn put_key(&self, facts: KeyFacts) {
        self.keys.rcu(|held| {
            let mut keys = HashMap::clone(held);
            keys.insert(facts.hash, self.key(held, facts.clone()));
            keys
        });
        self.key_changes.send_replace(());
    }

    fn key(&self, held: &HashMap<KeyHash, Arc<Key>>, facts: KeyFacts) -> Arc<Key> {
        match held.get(&facts.hash) {
            Some(key) if key.facts == facts => Arc::clone(key),
            _ => Arc::new(Key {
                environment: self.environment(facts.environment),
                facts,
                rate: RateWindow::default(),
                last_used_us: AtomicI64::new(0),
                used: AtomicBool::new(false),
            }),
        }
    }

    /// The environment with this id, known or new.
    pub(crate) fn environment(&self, id: EnvironmentId) -> Arc<Environment> {
        let mut environments = self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Environment {
            id,
            history: History::default(),
            snapshot: ArcSwapOption::empty(),
            changes: watch::Sender::new(()),
        };
        Arc::clone(environments.entry(id).or_insert_with(|| Arc::new(new())))
    }

    /// What is known of all keys.
    #[must_use]
    pub fn key_facts(&self) -> Vec<KeyFacts> {
        self.keys.load().values().map(|key| key.facts.clone()).collect()
    }

    /// What each key with a limit has used of it here in a minute, by the minute's number since the epoch.
    #[must_use]
    pub fn admitted_in(&self, minute: u64) -> Vec<(KeyId, u32)> {
        let keys = self.keys.load();
        let limited = keys.values().filter(|key| key.facts.rate_limit_per_minute > 0);
        limited.filter_map(|key| Some((key.facts.id, key.rate.admitted_in(minute)?))).collect()
    }

    /// Learns what the other instances have admitted in a minute, by key.
    pub fn learn_rates(&self, minute: u64, others: &HashMap<KeyId, u32>) {
        let keys = self.keys.load();
        for (key, requests) in keys.values().filter_map(|key| Some((key, others.get(&key.facts.id)?))) {
            key.rate.learn(minute, *requests);
        }
    }

    /// Keys used since this was last asked, with the time of their last use in microseconds.
    #[must_use]
    pub fn take_used(&self) -> Vec<(KeyId, i64)> {
        let keys = self.keys.load();
        let used = keys.values().filter(|key| key.used.swap(false, Ordering::Relaxed));
        used.map(|key| (key.facts.id, key.last_used_us.load(Ordering::Relaxed))).collect()
    }

    /// Changes whenever a key may have.
    #[must_use]
    pub fn key_changes(&self) -> watch::Receiver<()> {
        self.key_changes.subscribe()
    }

    /// Replaces what is known of monthly limits reached.
    pub fn set_limits(&self, limits: HashMap<OrganizationId, Vec<Limit>>) {
        self.limits.set(limits);
    }

    /// The monthly limit in force at `now_us`, if the organization has reached that one.
    #[must_use]
    pub fn limit_reached(&self, organization: OrganizationId, meter: Meter, now_us: i64) -> Option<Limit> {
        self.limits.reached(organization, meter, now_us)
    }

    /// Whether configuration has been loaded once: able to evaluate.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether the source of configuration cannot be reached: what is in force may be old.
    #[must_use]
    pub fn is_source_away(&self) -> bool {
        self.source_away.load(Ordering::Acquire)
    }

    pub(crate) fn set_source_state(&self, away: bool) {
        self.source_away.store(away, Ordering::Release);
        if !away {
            self.copy_written_us.store(0, Ordering::Release);
            self.loaded.store(true, Ordering::Release);
        }
    }

    /// When the copy on disk was last written whose configuration is in force, microseconds; `None` once the source was reached.
    #[must_use]
    pub fn copy_written_us(&self) -> Option<i64> {
        Some(self.copy_written_us.load(Ordering::Acquire)).filter(|us| *us != 0)
    }

    pub(crate) fn set_loaded_from_copy(&self, written_us: i64) {
        self.source_away.store(true, Ordering::Release);
        self.copy_written_us.store(written_us, Ordering::Release);
        self.loaded.store(true, Ordering::Release);
    }
}
