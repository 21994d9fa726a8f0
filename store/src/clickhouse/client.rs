//! One ClickHouse as this store speaks to it: statements, bodies of rows in, rows out. The one file that names the crate
//! `clickhouse`.
//!
//! Every statement carries its settings, so that a server's or a user's defaults change nothing.

use std::time::Duration;

use ::clickhouse::error::Error;
use ::clickhouse::query::BytesCursor;
use ::clickhouse::{Client as Http, Compression};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Options;
use super::errors::{self, Doing};
use crate::StoreError;
use crate::limits::{
    ANSWER_WAIT_S, INSERT_PARTITIONS_MAX, INSERT_TIMEOUT, QUERY_MEMORY_BYTES_MAX, QUERY_RESULT_ROWS_MAX,
    QUERY_ROWS_MAX, QUERY_SECONDS_MAX, REWRITE_MEMORY_BYTES, REWRITE_SECONDS_MAX,
};

/// A client; cloning shares connections.
#[derive(Clone)]
pub(super) struct Client {
    http: Http,
    /// Where it speaks to, for messages: without the password.
    place: String,
    quorum: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.place)
    }
}

/// What a statement is, which decides its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A question of a user: bounded in time, memory and rows.
    Question,
    /// Rewriting and schema: may take minutes, spills to disk.
    Work,
}

impl Client {
    pub(super) fn new(options: &Options) -> Self {
        let http = Http::default()
            .with_url(&options.url)
            .with_user(&options.user)
            .with_password(&options.password)
            .with_compression(Compression::None)
            .with_product_info("flagmint", env!("CARGO_PKG_VERSION"));
        Self { http, place: options.place(), quorum: options.cluster.is_some() }
    }

    /// The same client, all of whose statements mean the tables of a database.
    pub(super) fn in_database(&self, database: &str) -> Self {
        Self { http: self.http.clone().with_database(database), ..self.clone() }
    }

    fn error(&self, doing: Doing, error: &Error) -> StoreError {
        errors::classify(&self.place, doing, &errors::text(error))
    }

    fn late(&self, doing: Doing) -> StoreError {
        errors::classify(&self.place, doing, "no answer in time")
    }

    fn settings(&self, kind: Kind) -> Http {
        // A result in types that Arrow's reader takes as they are: ids as fixed bytes, texts and sketches as bytes.
        let http = self
            .http
            .clone()
            .with_setting("output_format_arrow_string_as_string", "0")
            .with_setting("output_format_arrow_fixed_string_as_fixed_byte_array", "1")
            .with_setting("output_format_arrow_low_cardinality_as_dictionary", "0")
            .with_setting("output_format_arrow_compression_method", "none")
            .with_setting("output_format_json_quote_64bit_integers", "0")
            .with_setting("prefer_column_name_to_alias", "1")
            .with_setting("use_query_cache", "0")
            // Conditions are on keys alone: what an index leaves out of one part it leaves out of all, and values need not be read to know.
            .with_setting("use_skip_indexes_if_final", "1")
            .with_setting("use_skip_indexes_if_final_exact_mode", "0")
            .with_setting("optimize_move_to_prewhere_if_final", "1")
            .with_setting("do_not_merge_across_partitions_select_final", "1")
            .with_setting("distributed_group_by_no_merge", "0");
        match kind {
            Kind::Question => http
                .with_setting("readonly", "2")
                .with_setting("max_execution_time", QUERY_SECONDS_MAX.to_string())
                .with_setting("timeout_overflow_mode", "throw")
                .with_setting("max_memory_usage", QUERY_MEMORY_BYTES_MAX.to_string())
                .with_setting("max_rows_to_read", QUERY_ROWS_MAX.to_string())
                .with_setting("read_overflow_mode", "throw")
                .with_setting("max_result_rows", QUERY_RESULT_ROWS_MAX.to_string())
                .with_setting("result_overflow_mode", "throw"),
            Kind::Work => http
                .with_setting("max_execution_time", REWRITE_SECONDS_MAX.to_string())
                .with_setting("max_bytes_before_external_group_by", REWRITE_MEMORY_BYTES.to_string())
                .with_setting("max_query_size", "16777216")
                .with_setting("max_memory_usage", (3 * REWRITE_MEMORY_BYTES).to_string())
                .with_setting("distributed_foreground_insert", "1"),
        }
    }

    fn inserting(&self, http: Http) -> Http {
        let http = http
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            // An emission has each key once: merging it with itself would be a third of the work.
            .with_setting("optimize_on_insert", "0")
            .with_setting("distributed_foreground_insert", "1")
            .with_setting("max_partitions_per_insert_block", INSERT_PARTITIONS_MAX.to_string())
            .with_setting("input_format_null_as_default", "0");
        if self.quorum {
            // Acknowledged means: on most replicas.
            http.with_setting("insert_quorum", "auto").with_setting("insert_quorum_parallel", "1")
        } else {
            http
        }
    }

    /// Runs a statement without an answer.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let http = self.inserting(self.settings(Kind::Work));
        let run = http.query_raw(sql).execute();
        match tokio::time::timeout(longest(Kind::Work), run).await {
            Ok(done) => done.map_err(|error| self.error(Doing::Work, &error)),
            Err(_late) => Err(self.late(Doing::Work)),
        }
    }

    /// Sends rows that are in a body of Arrow's stream format.
    pub(super) async fn insert(&self, sql: &str, body: Bytes) -> Result<(), StoreError> {
        let http = self.inserting(self.http.clone());
        let send = async {
            let mut insert = http.insert_formatted_with(sql);
            insert.send(body).await?;
            insert.end().await
        };
        match tokio::time::timeout(INSERT_TIMEOUT, send).await {
            Ok(done) => done.map_err(|error| self.error(Doing::Insert, &error)),
            Err(_late) => Err(self.late(Doing::Insert)),
        }
    }

    /// All rows of an answer, in the batches in which they came.
    pub(super) async fn rows(&self, kind: Kind, sql: &str) -> Result<Vec<RecordBatch>, StoreError> {
        let mut answer = self.answer(kind, sql)?;
        let mut batches = Vec::new();
        while let Some(batch) = answer.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// The rows of an answer as they come.
    pub(super) fn answer(&self, kind: Kind, sql: &str) -> Result<Answer<'_>, StoreError> {
        let doing = if kind == Kind::Question { Doing::Question } else { Doing::Work };
        let cursor = self.settings(kind).query_raw(sql).fetch_bytes("ArrowStream");
        Ok(Answer {
            client: self,
            doing,
            deadline: Instant::now() + longest(kind),
            cursor: cursor.map_err(|error| self.error(doing, &error))?,
            decoder: StreamDecoder::new(),
            buffer: Buffer::default(),
        })
    }

    /// All rows of an answer as records.
    pub(super) async fn records<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, StoreError> {
        let failed = |error: Error| self.error(Doing::Question, &error);
        let read = async {
            let mut cursor = self.settings(Kind::Question).query_raw(sql).fetch_bytes("JSONEachRow").map_err(failed)?;
            cursor.collect().await.map_err(failed)
        };
        let body = match tokio::time::timeout(longest(Kind::Question), read).await {
            Ok(body) => body?,
            Err(_late) => return Err(self.late(Doing::Question)),
        };
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = |line: &[u8]| {
            serde_json::from_slice(line)
                .map_err(|error| StoreError::Fatal(format!("{}: an answer that cannot be read: {error}", self.place)))
        };
        lines.map(read).collect()
    }
}

/// Rows on their way.
pub(super) struct Answer<'a> {
    client: &'a Client,
    doing: Doing,
    deadline: Instant,
    cursor: BytesCursor,
    decoder: StreamDecoder,
    buffer: Buffer,
}

impl Answer<'_> {
    /// The next rows; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        let place = &self.client.place;
        let unreadable = |error| StoreError::Fatal(format!("{place}: an answer that is no Arrow stream: {error}"));
        loop {
            while !self.buffer.is_empty() {
                if let Some(batch) = self.decoder.decode(&mut self.buffer).map_err(unreadable)? {
                    return Ok(Some(batch));
                }
            }
            match tokio::time::timeout_at(self.deadline, self.cursor.next()).await {
                Ok(Ok(Some(bytes))) => self.buffer = Buffer::from(bytes),
                Ok(Ok(None)) => return self.decoder.finish().map_err(unreadable).map(|()| None),
                Ok(Err(error)) => return Err(self.client.error(self.doing, &error)),
                Err(_late) => return Err(self.client.late(self.doing)),
            }
        }
    }
}

/// How long an answer is waited for: somewhat longer than the server works on it.
const fn longest(kind: Kind) -> Duration {
    match kind {
        Kind::Question => Duration::from_secs(QUERY_SECONDS_MAX + ANSWER_WAIT_S),
        Kind::Work => Duration::from_secs(REWRITE_SECONDS_MAX + ANSWER_WAIT_S),
    }
}
