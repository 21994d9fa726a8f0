//! What every handler shares: the store, the directory, the clock.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use flagmint_store::{RollupQuery, RollupStore, Rows};

use crate::directory::Directory;
use crate::error::ApiError;
use crate::meta::Moment;

/// A source of the current time.
type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The query API's state; cloning is cheap and shares everything.
pub struct QueryApi<S> {
    store: Arc<S>,
    directory: Arc<Directory>,
    clock: Clock,
}

impl<S> Clone for QueryApi<S> {
    fn clone(&self) -> Self {
        let (store, directory, clock) = (&self.store, &self.directory, &self.clock);
        Self { store: Arc::clone(store), directory: Arc::clone(directory), clock: Arc::clone(clock) }
    }
}

impl<S> std::fmt::Debug for QueryApi<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueryApi")
    }
}

impl<S: RollupStore> QueryApi<S> {
    /// An API over `store`, with names from `directory` and the system's clock.
    pub fn new(store: Arc<S>, directory: Directory) -> Self {
        Self { store, directory: Arc::new(directory), clock: Arc::new(Utc::now) }
    }

    /// The same with another clock: it decides what "today" is and which tokens have expired.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// The clock and the watermark. Taken before the store is asked, so that the answer holds all that it promises.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.now(), complete_through_us: self.store.complete_through_us() }
    }

    /// Merged rows for one question.
    pub(crate) async fn ask(&self, question: RollupQuery) -> Result<Rows, ApiError> {
        let start = Instant::now();
        let answer = self.store.query(&question).await;
        metrics::histogram!("flagmint_query_api_store_seconds", "table" => question.table.name())
            .record(start.elapsed());
        Ok(answer?)
    }

    /// As [`QueryApi::ask`], if there is a question.
    pub(crate) async fn ask_if(&self, question: Option<RollupQuery>) -> Result<Option<Rows>, ApiError> {
        match question {
            Some(question) => self.ask(question).await.map(Some),
            None => Ok(None),
        }
    }
}
