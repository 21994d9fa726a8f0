//! The embedded backend: Parquet files and a manifest on disk, open cells in memory, questions run by DataFusion.
//!
//! The one module that names `datafusion` and `parquet`. A chunk's cells are in memory until the chunk is final and
//! flushed, then in files; the manifest holds the list of files and the positions they reach, and is committed by one
//! rename. After a crash memory is empty and the log is folded again from [`RollupStore::resume_positions`].

mod cells;
mod change;
mod disk;
mod file;
mod fold;
mod level;
mod maintain;
mod manifest;
mod memory;
mod plan;
mod scan;
mod shared;
mod sketches;

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::check::check;
use crate::limits::{MEMORY_BYTES_MAX, QUERY_THREADS};
use crate::{Emission, Position, RollupQuery, RollupStore, Rows, StoreError};
use shared::Shared;

/// Settings of a [`ParquetStore`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Above this many bytes of cells in memory, upserts are answered with [`StoreError::Retry`].
    pub memory_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { memory_bytes_max: MEMORY_BYTES_MAX }
    }
}

/// Rollups in a directory. One process at a time.
#[derive(Debug)]
pub struct ParquetStore {
    shared: Arc<Shared>,
    /// Questions and maintenance run here, so that they never hold up the threads that serve requests.
    runtime: Option<Runtime>,
}

impl ParquetStore {
    /// Opens a directory, creating it if there is none, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if another process has it open, if it is of another version, or if a file is missing or
    /// damaged; [`StoreError::Retry`] if the disk is full.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::open(dir, options)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(QUERY_THREADS)
            .thread_name("flagmint-store")
            .build()
            .map_err(|error| StoreError::Fatal(format!("starting the store's threads: {error}")))?;
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Writes the cells of final chunks to files and commits them together with the positions they reach. Does nothing
    /// if nothing moved.
    ///
    /// # Errors
    /// [`StoreError::Retry`] if the disk is full: everything stays as it was. [`StoreError::Fatal`] otherwise.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.run(Shared::flush).await
    }

    /// Flushes, rewrites closed hours and days, merges small files and drops expired ones; `now_us` is the time,
    /// microseconds since the Unix epoch. Call it every few seconds.
    ///
    /// # Errors
    /// Like [`ParquetStore::flush`].
    pub async fn maintain(&self, now_us: i64) -> Result<(), StoreError> {
        self.run(move |shared| {
            shared.flush()?;
            shared.roll()?;
            shared.compact()?;
            shared.expire(now_us)
        })
        .await
    }

    async fn run(
        &self,
        step: impl FnOnce(&Shared) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let task = self.runtime().spawn_blocking(move || shared.maintaining(|| step(&shared)));
        task.await.map_err(|error| StoreError::Fatal(format!("maintenance of rollups ended: {error}")))?
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken only when the store is dropped")
    }
}

impl Drop for ParquetStore {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed in asynchronous code; what they do is safe to interrupt at any point.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl RollupStore for ParquetStore {
    async fn upsert(&self, emission: Emission) -> Result<(), StoreError> {
        self.shared.upsert(&emission)
    }

    async fn query(&self, query: &RollupQuery) -> Result<Rows, StoreError> {
        check(query)?;
        let (shared, query) = (Arc::clone(&self.shared), query.clone());
        let task = self.runtime().spawn(async move { shared.query(&query).await });
        task.await.map_err(|error| StoreError::Fatal(format!("a question ended early: {error}")))?
    }

    async fn resume_positions(&self) -> Result<Vec<Position>, StoreError> {
        Ok(self.shared.catalog().state.fold.resume_positions())
    }

    fn complete_through_us(&self) -> Option<i64> {
        self.shared.inner().memory.fold.complete_through_us()
    }
}
