//! Records of the log that could not be read, kept where a person can ask about them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};

use super::ClickHouseStore;
use super::insert::body;
use crate::StoreError;

/// A record that could not be read; (epoch, partition, offset) tell repetitions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Log epoch.
    pub epoch: u64,
    /// Log partition.
    pub partition: u32,
    /// Offset of the record.
    pub offset: u64,
    /// When the log took it, microseconds.
    pub append_time_us: i64,
    /// Why it could not be read.
    pub reason: &'a str,
    /// Its header as it is.
    pub header: &'a [u8],
    /// The beginning of its payload.
    pub payload: &'a [u8],
    /// Length of the whole payload in bytes.
    pub payload_bytes: u64,
}

const INSERT: &str = "INSERT INTO `dead_letters` (`epoch`, `partition`, `offset`, `append_time_us`, `reason`, `header`, `payload`, \
    `payload_bytes`) FORMAT ArrowStream";

impl ClickHouseStore {
    /// Keeps a dead letter for thirty days after its append; again, if it is there, which changes nothing.
    ///
    /// # Errors
    /// As upserts have.
    pub async fn keep_dead_letter(&self, letter: DeadLetter<'_>) -> Result<(), StoreError> {
        let number = |value: u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values([value])) };
        let bytes = |value: &[u8]| -> ArrayRef { Arc::new(BinaryArray::from_iter_values([value])) };
        let columns: [(&str, ArrayRef); 8] = [
            ("epoch", number(letter.epoch)),
            ("partition", Arc::new(UInt32Array::from_iter_values([letter.partition]))),
            ("offset", number(letter.offset)),
            ("append_time_us", Arc::new(Int64Array::from_iter_values([letter.append_time_us]))),
            ("reason", bytes(letter.reason.as_bytes())),
            ("header", bytes(letter.header)),
            ("payload", bytes(letter.payload)),
            ("payload_bytes", number(letter.payload_bytes)),
        ];
        let rows = RecordBatch::try_from_iter(columns).expect("columns are equally long");
        self.shared.client.insert(INSERT, body(&rows)?).await
    }
}
