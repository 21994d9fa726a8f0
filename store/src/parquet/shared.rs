//! What questions, upserts and maintenance share: the directory, the cells in memory and the catalog of files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use rustix::fs::{FlockOperation, flock};

use super::Options;
use super::disk::disk_error;
use super::manifest::Catalog;
use super::memory::Memory;
use super::plan::Merge;
use super::scan::Source;
use crate::answer::answer;
use crate::limits::QUERY_THREADS;
use crate::parts::Parts;
use crate::{Emission, Filter, RollupQuery, Rows, StoreError};

/// The state of a store.
#[derive(Debug)]
pub(super) struct Shared {
    dir: PathBuf,
    /// Held as long as the store is open.
    _lock: File,
    inner: Mutex<Inner>,
    /// Held while files change; set when a failure left it open what is on disk.
    maintenance: Mutex<Option<String>>,
    context: Arc<TaskContext>,
}

/// What changes together: a chunk leaves memory at the moment when its files are in the catalog.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) memory: Memory,
    pub(super) catalog: Arc<Catalog>,
}

impl Shared {
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|error| disk_error(dir, &error))?;
        let lock_path = dir.join("LOCK");
        let lock = File::create(&lock_path).map_err(|error| disk_error(&lock_path, &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::Fatal(format!("{} is in use by another process", dir.display())))?;
        let catalog = Catalog::load(dir)?;
        catalog.remove_orphans(dir)?;
        let memory = Memory::new(catalog.state.fold.clone(), options.memory_bytes_max);
        let config = SessionConfig::new().with_target_partitions(QUERY_THREADS);
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
            inner: Mutex::new(Inner { memory, catalog: Arc::new(catalog) }),
            maintenance: Mutex::new(None),
            context: Arc::new(TaskContext::default().with_session_config(config)),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn context(&self) -> Arc<TaskContext> {
        Arc::clone(&self.context)
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the cells")
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.inner().catalog)
    }

    pub(super) fn upsert(&self, emission: &Emission) -> Result<(), StoreError> {
        let Inner { memory, catalog } = &mut *self.inner();
        memory.upsert(emission, &catalog.state.fold)
    }

    /// Runs a step of maintenance while no other does. After a failure that leaves open what is on disk, nothing is
    /// written any more.
    pub(super) fn maintaining(&self, step: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut failed = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &*failed {
            return Err(StoreError::Fatal(reason.clone()));
        }
        let result = step();
        if let Err(StoreError::Fatal(reason)) = &result {
            *failed = Some(reason.clone());
        }
        result
    }

    /// Answers a question that was checked.
    pub(super) async fn query(&self, query: &RollupQuery) -> Result<Rows, StoreError> {
        let times = query.period.rounding();
        let merge = Merge {
            table: query.table,
            organization: query.organization,
            filters: &query.filters,
            group_by: &query.group_by,
            times,
            values: query.values.as_deref(),
        };
        let merged = if query.filters.iter().any(nothing_meets) {
            RecordBatch::new_empty(merge.answer_schema())
        } else {
            merge.run(self.sources(query), self.context()).await.map_err(query_error)?
        };
        let keys = query.group_by.len() + usize::from(times.is_some());
        answer(merged, keys, query.having.as_ref(), query.page.as_ref()).map_err(unexpected)
    }

    /// The rows that a question is about, at one moment.
    fn sources(&self, query: &RollupQuery) -> Vec<Source> {
        let (catalog, memory) = {
            let mut inner = self.inner();
            (Arc::clone(&inner.catalog), inner.memory.batches(query.table))
        };
        let parts = Parts::new(query.table, &query.time_us, query.period);
        let files = catalog.files.iter().filter(|file| file.info.table() == Some(query.table));
        let files = files.filter_map(|file| {
            let wanted = file.info.level.wanted(&parts, file.info.rolled);
            file.overlaps(&wanted).then(|| Source::File(Arc::clone(file), wanted))
        });
        let memory = memory.into_iter().map(|batch| Source::Memory(batch, vec![query.time_us.clone()]));
        files.chain(memory).collect()
    }
}

/// Whether a filter is a list without entries.
fn nothing_meets(filter: &Filter) -> bool {
    match filter {
        Filter::IdIn(_, ids) => ids.is_empty(),
        Filter::CodeIn(_, codes) => codes.is_empty(),
        Filter::TextIs(..) => false,
    }
}

/// An error of a kernel that gets checked arguments.
pub(super) fn unexpected(error: arrow::error::ArrowError) -> StoreError {
    StoreError::Fatal(format!("rollup rows do not fit their table: {error}"))
}

/// What a failed plan means: our own errors come back as they were.
pub(super) fn query_error(error: DataFusionError) -> StoreError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<StoreError>() {
            Ok(own) => *own,
            Err(other) => StoreError::Fatal(format!("stored rollups cannot be read: {other}")),
        },
        DataFusionError::Shared(inner) => StoreError::Fatal(inner.to_string()),
        DataFusionError::Context(_, inner) => query_error(*inner),
        DataFusionError::ResourcesExhausted(reason) => StoreError::Retry(reason),
        other => StoreError::Fatal(format!("stored rollups cannot be read: {other}")),
    }
}
