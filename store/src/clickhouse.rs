//! The distributed backend: cells and coarse rows in ClickHouse, which any number of instances write and read.
//!
//! An emission is one insert per table; the chunks come after all others and the positions last, so what they vouch for is stored.
//! Cells merge by maximum in the tables themselves, whoever emits them, and are summed across chunks by questions. Closed
//! hours and days are rewritten into coarse rows by generations (`clickhouse/rewrites.rs`). docs/decisions/0006-clickhouse.md
//! says why it is built so.

mod client;
mod contexts;
mod ddl;
mod dead_letters;
mod errors;
mod insert;
mod join;
mod maintain;
mod migrate;
mod options;
mod positions;
mod question;
mod rewrites;
mod settled;
mod sketches;

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use crate::answer::answer;
use crate::check::check;
use crate::limits::{REFRESH_INTERVAL, STATE_AGE_MAX, SUPERSEDED_GRACE};
use crate::{Emission, Position, RollupQuery, RollupStore, Rows, StoreError};
use client::{Client, Kind};
use ddl::Layout;
use insert::Pending;
use positions::Positions;
use question::{Merge, Statements};
use rewrites::Rewrites;
use settled::Settled;

pub use dead_letters::DeadLetter;
pub use options::Options;

/// Rollups in a ClickHouse database.
#[derive(Debug)]
pub struct ClickHouseStore {
    shared: Arc<Shared>,
}

/// What questions, upserts and maintenance share.
#[derive(Debug)]
struct Shared {
    client: Client,
    layout: Layout,
    pending: Pending,
    state: Mutex<Cached>,
    settled: Settled,
    /// How long generations are kept that are not in force any more.
    grace: Duration,
}

/// What was read of the tables `positions` and `rewrites`. Any state that once was in force answers right, as long as what it
/// names is there.
#[derive(Clone, Debug, Default)]
struct State {
    positions: Positions,
    rewrites: Rewrites,
}

#[derive(Debug)]
struct Cached {
    state: State,
    loaded: Instant,
    /// The version whose leftovers are dropped.
    swept: u64,
}

/// Creates the database and brings its tables to this version, under a lock. Does nothing if they are.
///
/// # Errors
/// [`StoreError::Fatal`] if the server is too old, the schema newer than this program, or rights are missing;
/// [`StoreError::Retry`] if the server is away or another program holds the lock.
pub async fn migrate(options: &Options) -> Result<(), StoreError> {
    let layout = Layout::new(&options.database, options.cluster.as_deref())?;
    migrate::migrate(&Client::new(options), &layout).await
}

impl ClickHouseStore {
    /// Connects to a database whose schema is this program's ([`migrate`]).
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if URL, credentials, rights, the server's version or the schema are wrong;
    /// [`StoreError::Retry`] if the server is away.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        Self::open_with(options, SUPERSEDED_GRACE).await
    }

    /// As [`ClickHouseStore::open`], where rows that are not in force any more go after `grace`. It must be longer than any
    /// question and any pause of a process takes; tests cannot wait that long.
    ///
    /// # Errors
    /// As [`ClickHouseStore::open`].
    pub async fn open_with(options: &Options, grace: Duration) -> Result<Self, StoreError> {
        let layout = Layout::new(&options.database, options.cluster.as_deref())?;
        let server = Client::new(options);
        migrate::check_server(&server).await?;
        migrate::check_schema(&server, &options.database).await?;
        let cached = Cached { state: State::default(), loaded: Instant::now(), swept: 0 };
        let shared = Arc::new(Shared {
            client: server.in_database(&options.database),
            layout,
            pending: Pending::default(),
            state: Mutex::new(cached),
            settled: Settled::default(),
            grace,
        });
        shared.reload().await?;
        tokio::spawn(refresh(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Rewrites closed hours and days and drops what is old; `now_us` is the time, microseconds since the Unix epoch. Call it every
    /// few seconds, from one instance; from several it is right as well, only wasteful.
    ///
    /// # Errors
    /// As questions have; everything stays as it was.
    pub async fn maintain(&self, now_us: i64) -> Result<(), StoreError> {
        self.shared.roll(now_us).await?;
        self.shared.sweep().await
    }
}

/// Keeps the watermark fresh for whoever asks without a question.
async fn refresh(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(REFRESH_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = shared.reload().await {
            tracing::debug!(%error, "the watermark could not be read");
        }
    }
}

impl Shared {
    fn cached(&self) -> MutexGuard<'_, Cached> {
        self.state.lock().expect("no code panics while it holds the state")
    }

    /// Reads what is stored.
    async fn reload(&self) -> Result<State, StoreError> {
        let mut positions = self.cached().state.positions.clone();
        let started = Instant::now();
        positions.load(&self.client).await?;
        let rewrites = Rewrites::load(&self.client).await?;
        let mut cached = self.cached();
        cached.state.positions.join(&positions);
        if (rewrites.version, rewrites.committed_us)
            >= (cached.state.rewrites.version, cached.state.rewrites.committed_us)
        {
            cached.state.rewrites = rewrites;
        }
        cached.loaded = started;
        Ok(cached.state.clone())
    }

    /// What was read lately, or now if that is too old to be relied on.
    async fn state(&self) -> Result<State, StoreError> {
        {
            let cached = self.cached();
            if cached.loaded.elapsed() < STATE_AGE_MAX {
                return Ok(cached.state.clone());
            }
        }
        self.reload().await
    }

    fn is_unswept(&self, version: u64) -> bool {
        self.cached().swept < version
    }

    fn swept(&self, version: u64) {
        self.cached().swept = version;
    }

    async fn upsert(&self, emission: &Emission) -> Result<(), StoreError> {
        self.pending.store(&self.client, &emission.cells).await?;
        if emission.positions.is_empty() {
            return Ok(());
        }
        let rows = self.cached().state.positions.rows(&emission.positions);
        self.client.insert(positions::INSERT, insert::body(&rows)?).await?;
        self.cached().state.positions.advance(&emission.positions);
        Ok(())
    }

    async fn query(&self, query: &RollupQuery) -> Result<Rows, StoreError> {
        let state = self.state().await?;
        let merge = Merge::of(query);
        let Statements { settled, current, is_short } = question::statements(query, &state.rewrites);
        let settled = self.settled(&merge, settled, is_short);
        let (settled, current) = tokio::try_join!(settled, self.current(&merge, current))?;
        let keys = merge.keys_len();
        let merged = settled.into_iter().try_fold(current, |all, rows| join::joined(query.table, keys, rows, all));
        merged
            .and_then(|merged| answer(merged, keys, query.having.as_ref(), query.page.as_ref()))
            .map_err(|error| StoreError::Fatal(format!("rollup rows do not fit their table: {error}")))
    }

    async fn rows(&self, merge: &Merge<'_>, sql: &str) -> Result<RecordBatch, StoreError> {
        merge.read_all(&self.client.rows(Kind::Question, sql).await?)
    }

    async fn current(&self, merge: &Merge<'_>, sql: Option<String>) -> Result<RecordBatch, StoreError> {
        match sql {
            Some(sql) => self.rows(merge, &sql).await,
            None => Ok(RecordBatch::new_empty(merge.schema())),
        }
    }

    /// Rows of each source that do not change. They are not kept where replicas may lag behind: they would be wrong for longer than that.
    /// What is not kept yet is asked for in one statement: most of what a statement costs is not its rows.
    async fn settled(
        &self,
        merge: &Merge<'_>,
        sources: Vec<String>,
        is_short: bool,
    ) -> Result<Vec<RecordBatch>, StoreError> {
        let is_kept = self.layout.is_one_server();
        let (mut answers, mut missing) = (Vec::with_capacity(sources.len()), Vec::new());
        for source in sources {
            match self.settled.get(&source).filter(|_| is_kept) {
                Some(answer) => answers.push(answer),
                None => missing.push(source),
            }
        }
        let read = match missing.as_slice() {
            [] => Vec::new(),
            [_] => vec![self.rows(merge, &merge.asked(&missing, false, is_short)).await?],
            _ => {
                let sql = merge.asked(&missing, true, is_short);
                merge.read_apart(&self.client.rows(Kind::Question, &sql).await?, missing.len())?
            }
        };
        for (source, answer) in missing.into_iter().zip(read) {
            if is_kept {
                self.settled.put(source, &answer);
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

impl RollupStore for ClickHouseStore {
    async fn upsert(&self, emission: Emission) -> Result<(), StoreError> {
        self.shared.upsert(&emission).await
    }

    async fn query(&self, query: &RollupQuery) -> Result<Rows, StoreError> {
        check(query)?;
        self.shared.query(query).await
    }

    async fn resume_positions(&self) -> Result<Vec<Position>, StoreError> {
        Ok(self.shared.reload().await?.positions.resume())
    }

    fn complete_through_us(&self) -> Option<i64> {
        self.shared.cached().state.positions.complete_through_us()
    }
}
