//! The recorder: takes calls and their decisions into memory and brings them into the log, exactly once and in order.
//!
//! A request thread pushes rows into a buffer of its shard and environment ([`EnvironmentRecorder::record`]). The
//! flusher, a thread, turns all buffers into batches every 50 ms or when one fills up, and queues them per partition.
//! One task per partition appends them. A log that cannot keep up is waited for in memory, then in files (the spool), and
//! what does not fit there is refused and counted: recorded = appended + in flight + refused, at any time.
//!
//! What a SIGKILL can lose: what was recorded since the last flush was appended, less than 100 ms while the log keeps
//! up; while it stands still, what waits in memory besides, bounded by `limits::SPOOL_AFTER` and a flush.

mod appender;
mod assemble;
mod contexts;
mod environment;
mod epochs;
mod flusher;
mod payloads;
mod queue;
mod spool;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use flagmint_log::{DecisionLog, wall_clock_us};
use flagmint_schemas::batch::{BatchHeader, Outcome};
use flagmint_schemas::ids::EnvironmentId;
use thiserror::Error;
use tokio::task::JoinSet;

pub use self::contexts::KnownContext;
use self::environment::EnvironmentState;
pub use self::environment::{CallFacts, CallerId, CallerName, EnvironmentIdentity, EnvironmentRecorder};
use self::epochs::Epochs;
use self::flusher::Flusher;
use self::queue::{Item, Queue, SpoolSpace};
use self::spool::SpoolFile;
use crate::limits;
pub use crate::pseudonym::ContextRedactor;

/// How a recorder is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where batches wait that the log does not take; created if it does not exist.
    pub spool_directory: PathBuf,
    /// Bytes of the spool at most.
    pub spool_bytes: u64,
    /// How long a drain waits for the log.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            spool_directory: PathBuf::from("spool"),
            spool_bytes: limits::SPOOL_BYTES,
            drain_timeout: limits::DRAIN_TIMEOUT,
        }
    }
}

/// Why a recorder cannot start or end in order.
#[derive(Debug, Error)]
pub enum RecorderError {
    /// The spool's directory cannot be used.
    #[error("the spool in {directory} cannot be used: {source}")]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The flusher's thread cannot be started.
    #[error("the flusher cannot be started: {0}")]
    Thread(std::io::Error),
    /// Decisions were still in flight when the recorder was drained and found no room in the spool.
    #[error("{0} decisions could neither be appended nor spooled")]
    Lost(u64),
}

/// How the recorder fares with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The log takes what is recorded.
    Appending,
    /// The log says "later", or does not answer; batches wait.
    LogBehind {
        /// What the log says, if it does.
        reason: Option<String>,
    },
    /// The log has failed for good; batches go to the spool until it is full.
    LogFailed {
        /// What the log says.
        reason: String,
    },
}

/// What became of what was recorded in this process: recorded = appended + in flight + refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls recorded.
    pub recorded_calls: u64,
    /// Decisions recorded, refused ones included.
    pub recorded_decisions: u64,
    /// Decisions in the log.
    pub appended_decisions: u64,
    /// Decisions in buffers, queues and the spool.
    pub in_flight_decisions: u64,
    /// Decisions refused.
    pub refused_decisions: u64,
    /// Calls refused when recorded.
    pub refused_calls: u64,
    /// Decisions of earlier processes that were replayed from the spool; not among the others.
    pub replayed_decisions: u64,
    /// Bytes of the spool, recovered files included.
    pub spool_bytes: u64,
}

/// Counts, changed together under one lock so that they always add up.
#[derive(Debug, Default)]
struct Totals {
    /// `in_flight_decisions` counts what was taken out of the buffers only.
    stats: Stats,
    refused_by_environment: HashMap<EnvironmentId, u64>,
}

impl Totals {
    fn refuse(&mut self, environment: EnvironmentId, decisions: u64) {
        metrics::counter!("flagmint_ingest_refused_decisions_total").increment(decisions);
        self.stats.refused_decisions += decisions;
        *self.refused_by_environment.entry(environment).or_default() += decisions;
    }
}

/// What all parts of a recorder share.
#[derive(Debug)]
pub(crate) struct Shared {
    epochs: Epochs,
    shards: usize,
    producer: u128,
    partitions: u32,
    environments: Mutex<Vec<Arc<EnvironmentState>>>,
    totals: Mutex<Totals>,
    space: SpoolSpace,
    health: Mutex<Health>,
    is_closed: AtomicBool,
    flusher: OnceLock<Thread>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    fn wake_flusher(&self) {
        if let Some(thread) = self.flusher.get() {
            thread.unpark();
        }
    }

    /// The environments that may hold rows; forgets those that nobody can record to any more and that are empty.
    fn environments_in_use(&self) -> Vec<Arc<EnvironmentState>> {
        let mut environments = lock(&self.environments);
        let in_use = environments.clone();
        // Two: the list's and the copy's. Nobody else can get hold of it any more, so what it holds is flushed now.
        environments.retain(|environment| Arc::strong_count(environment) > 2);
        in_use
    }

    /// All environments, for taking full buffers before a flush.
    fn environments(&self) -> Vec<Arc<EnvironmentState>> {
        lock(&self.environments).clone()
    }

    /// Takes away the buffers of an environment that hold a call and so many decisions; returns their shards.
    fn take_buffers(&self, environment: &EnvironmentState, decisions_min: usize) -> Vec<usize> {
        let mut totals = lock(&self.totals);
        let stats = &mut totals.stats;
        let mut filled = Vec::new();
        for shard in 0..environment.shards() {
            let (calls, decisions) = environment.swap(shard, decisions_min);
            if calls > 0 {
                stats.recorded_calls += calls;
                stats.recorded_decisions += decisions;
                stats.in_flight_decisions += decisions;
                filled.push(shard);
            }
        }
        filled
    }

    /// Refuses a call that was never in a buffer.
    #[cold]
    fn refuse(&self, environment: EnvironmentId, decisions: u64) {
        let mut totals = lock(&self.totals);
        totals.stats.recorded_calls += 1;
        totals.stats.refused_calls += 1;
        totals.stats.recorded_decisions += decisions;
        totals.refuse(environment, decisions);
    }

    /// Refuses decisions taken out of the buffers.
    fn refuse_taken(&self, environment: EnvironmentId, decisions: u64) {
        let mut totals = lock(&self.totals);
        totals.stats.in_flight_decisions -= decisions;
        totals.refuse(environment, decisions);
    }

    /// The log has these records, except those it refused for good.
    fn appended(&self, items: &[Item], refused: &[BatchHeader]) {
        let mut totals = lock(&self.totals);
        for header in items.iter().map(|item| item.header).filter(|header| header.decisions > 0) {
            let decisions = u64::from(header.decisions);
            let is_own = header.producer == self.producer;
            if is_own {
                totals.stats.in_flight_decisions -= decisions;
            }
            if refused.contains(&header) {
                totals.refuse(header.environment, decisions);
            } else if is_own {
                totals.stats.appended_decisions += decisions;
            } else {
                totals.stats.replayed_decisions += decisions;
            }
        }
    }

    fn set_health(&self, health: Health) {
        let mut current = lock(&self.health);
        // A log that failed for good stays failed, whatever other partitions still manage.
        if !matches!(*current, Health::LogFailed { .. }) && *current != health {
            *current = health;
        }
    }

    /// Totals with what the buffers hold.
    fn stats(&self) -> Stats {
        let environments = lock(&self.environments).clone();
        let totals = lock(&self.totals);
        let mut stats = totals.stats;
        for environment in environments {
            for shard in 0..environment.shards() {
                let buffer = environment.buffer(shard);
                stats.recorded_calls += buffer.calls.len() as u64;
                stats.recorded_decisions += buffer.decisions.len() as u64;
                stats.in_flight_decisions += buffer.decisions.len() as u64;
            }
        }
        stats.spool_bytes = self.space.bytes.load(Ordering::Relaxed);
        stats
    }

    fn report(&self) {
        let stats = lock(&self.totals).stats;
        metrics::counter!("flagmint_ingest_recorded_decisions_total").absolute(stats.recorded_decisions);
        metrics::counter!("flagmint_ingest_appended_decisions_total").absolute(stats.appended_decisions);
        metrics::gauge!("flagmint_ingest_spool_bytes").set(self.space.bytes.load(Ordering::Relaxed) as f64);
    }
}

/// The shard of this thread: threads are spread evenly, and each keeps its own.
fn current_shard(shards: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get() % shards
}

/// A call under way: until it is dropped, the low watermark stays at or before its event time. Drop it after `record`.
#[derive(Debug)]
#[must_use = "the watermark passes the call as soon as this is dropped"]
pub struct InFlight {
    shared: Arc<Shared>,
    shard: usize,
    parity: usize,
    received_us: i64,
}

impl InFlight {
    /// When the call was received, microseconds since the Unix epoch: its event time.
    #[must_use]
    pub const fn received_us(&self) -> i64 {
        self.received_us
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.epochs.leave(self.shard, self.parity);
    }
}

/// A handle to the recorder; cheap to clone. It works until [`Recorder::drain`].
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Debug)]
struct Running {
    flusher: std::thread::JoinHandle<()>,
    appenders: JoinSet<()>,
    queues: Vec<Arc<Queue>>,
    drain_timeout: Duration,
}

impl Recorder {
    /// Starts recording into `log`; must be called within a tokio runtime. First of all, what earlier processes left in the
    /// spool is appended as it is.
    ///
    /// # Errors
    /// If the spool's directory cannot be used or no thread can be started.
    pub fn start(log: Arc<impl DecisionLog>, settings: Settings) -> Result<Self, RecorderError> {
        let spool_error = |source| RecorderError::Spool { directory: settings.spool_directory.clone(), source };
        let partitions = log.partitions();
        let recovered = recover(&settings.spool_directory, partitions).map_err(spool_error)?;
        let shards = std::thread::available_parallelism().map_or(1, usize::from).min(limits::SHARDS_MAX);
        let producer: u128 = rand::random();
        let spool_bytes = recovered.iter().flatten().map(SpoolFile::bytes).sum();
        let shared = Arc::new(Shared {
            epochs: Epochs::new(shards),
            shards,
            producer,
            partitions,
            environments: Mutex::default(),
            totals: Mutex::default(),
            space: SpoolSpace {
                directory: settings.spool_directory.clone(),
                bytes_max: settings.spool_bytes,
                bytes: AtomicU64::new(spool_bytes),
                started_us: wall_clock_us(),
            },
            health: Mutex::new(Health::Appending),
            is_closed: AtomicBool::new(false),
            flusher: OnceLock::new(),
        });
        let queues: Vec<Arc<Queue>> =
            (0..).zip(recovered).map(|(partition, files)| Arc::new(Queue::new(partition, files))).collect();
        let flusher = Flusher::new(Arc::clone(&shared), queues.clone(), producer);
        let flusher = std::thread::Builder::new()
            .name("recorder-flush".to_owned())
            .spawn(move || flusher.run())
            .map_err(RecorderError::Thread)?;
        shared.flusher.set(flusher.thread().clone()).expect("set here only");
        let mut appenders = JoinSet::new();
        for (partition, queue) in (0..).zip(&queues) {
            appenders.spawn(appender::run(Arc::clone(&log), partition, Arc::clone(queue), Arc::clone(&shared)));
        }
        let running = Running { flusher, appenders, queues, drain_timeout: settings.drain_timeout };
        Ok(Self { shared, running: Arc::new(Mutex::new(Some(running))) })
    }

    /// The recorder of an environment under one compiled configuration, whose outcomes are indexes into `outcomes`. Made
    /// once per configuration version; the one before may be used until its last call has ended.
    #[must_use]
    pub fn environment(
        &self,
        identity: EnvironmentIdentity,
        outcomes: Arc<[Outcome]>,
        redactor: ContextRedactor,
    ) -> EnvironmentRecorder {
        let partition = partition_of(identity.environment, self.shared.partitions);
        let state = Arc::new(EnvironmentState::new(identity, partition, outcomes, redactor, self.shared.shards));
        lock(&self.shared.environments).push(Arc::clone(&state));
        EnvironmentRecorder::new(state, Arc::clone(&self.shared))
    }

    /// Registers a call that was received just now. Without it a call counts as received when it is recorded, and the
    /// watermark may have passed its event time.
    pub fn begin(&self) -> InFlight {
        let shard = current_shard(self.shared.shards);
        let (parity, received_us) = self.shared.epochs.enter(shard);
        InFlight { shared: Arc::clone(&self.shared), shard, parity, received_us }
    }

    /// What became of what was recorded.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Decisions of one environment that were refused.
    #[must_use]
    pub fn refused_decisions(&self, environment: EnvironmentId) -> u64 {
        lock(&self.shared.totals).refused_by_environment.get(&environment).copied().unwrap_or_default()
    }

    /// How the recorder fares with the log.
    #[must_use]
    pub fn health(&self) -> Health {
        lock(&self.shared.health).clone()
    }

    /// Whether the log has not failed for good.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !matches!(self.health(), Health::LogFailed { .. })
    }

    /// Ends recording: everything recorded is appended, then each partition gets a closing heartbeat. What the log does not
    /// take in time goes to the spool, for the next start. Calls recorded from now on are refused. A second drain does nothing.
    ///
    /// # Errors
    /// [`RecorderError::Lost`] if something found no room in the spool either.
    pub async fn drain(&self) -> Result<(), RecorderError> {
        let Some(running) = lock(&self.running).take() else { return Ok(()) };
        let Running { flusher, mut appenders, queues, drain_timeout } = running;
        self.shared.is_closed.store(true, Ordering::Release);
        flusher.thread().unpark();
        let flushed = tokio::task::spawn_blocking(move || flusher.join()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::error!("the flusher panicked; what it held is lost");
        }
        let all_appended = async { while appenders.join_next().await.is_some() {} };
        if tokio::time::timeout(drain_timeout, all_appended).await.is_err() {
            appenders.shutdown().await;
        }
        let lost: u64 =
            queues.iter().flat_map(|queue| queue.spill(&self.shared.space)).map(|item| self.lose(&item)).sum();
        let directory = self.shared.space.directory.clone();
        let synced = tokio::task::spawn_blocking(move || {
            queues.iter().try_for_each(|queue| queue.sync())?;
            std::fs::File::open(directory)?.sync_all()
        });
        if let Ok(Err(error)) = synced.await {
            tracing::warn!(%error, "the spool is not known to be on disk; the next start replays what is there");
        }
        if lost == 0 { Ok(()) } else { Err(RecorderError::Lost(lost)) }
    }

    fn lose(&self, item: &Item) -> u64 {
        let decisions = u64::from(item.header.decisions);
        self.shared.refuse_taken(item.header.environment, decisions);
        decisions
    }
}

/// The partition of an environment: FNV-1a over its id, the same on every instance.
fn partition_of(environment: EnvironmentId, partitions: u32) -> u32 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = environment.0.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    (hash % u64::from(partitions)) as u32
}

/// The files of earlier processes per partition, oldest first. If the log has fewer partitions than then, they wrap around.
fn recover(directory: &std::path::Path, partitions: u32) -> std::io::Result<Vec<Vec<SpoolFile>>> {
    std::fs::create_dir_all(directory)?;
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    let mut files: Vec<Vec<SpoolFile>> = (0..partitions).map(|_| Vec::new()).collect();
    for path in paths {
        if let Some(partition) = spool::partition_of(&path) {
            files[(partition % partitions) as usize].push(SpoolFile::open(path)?);
        }
    }
    Ok(files)
}
