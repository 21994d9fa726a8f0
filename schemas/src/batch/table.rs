//! The five tables of a batch as columns, version 1: their names and order are the schema that Arrow payloads and
//! packed ones leave out.
//!
//! "None" is 0 for the codes of `decision`, the nil id for ids, [`Call::NO_CONTEXT`](super::Call::NO_CONTEXT) and
//! [`DecisionRow::NO_BUCKET`](super::DecisionRow::NO_BUCKET); truth is 1.

use std::sync::{Arc, LazyLock};

use arrow::array::{FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array, UInt64Array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use uuid::Uuid;

use super::column::{Column, Source};
use super::keys::{ContextKeys, UserHashes};
use super::packed::{Packed, Packer};
use super::{Call, Caller, CodecError, DecisionRow, ObservedContext, Outcome};

/// Declares a table: its columns in order, each with its type and how it is taken from a row; and what rows are packed from, with the
/// method that goes through it once more.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident($table:literal) of $row:ty as $it:ident, packed from $rows:ty => $each:ident {
        $($(#[$column_doc:meta])* $column:ident: $array:ty = $value:expr,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            rows: usize,
            $($column: $array,)+
        }

        impl $name {
            /// Number of rows.
            #[must_use]
            pub const fn len(&self) -> usize {
                self.rows
            }

            /// Whether there is no row.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.rows == 0
            }

            $($(#[$column_doc])*
            #[must_use]
            pub fn $column(&self) -> <$array as Column>::View<'_> {
                Column::view(&self.$column)
            })+

            pub(super) const NAME: &str = $table;

            pub(super) fn from_rows(rows: &[$row]) -> Self {
                Self { rows: rows.len(), $($column: <$array as Column>::collect(rows.iter().map(|$it| $value)),)+ }
            }

            pub(super) fn schema() -> &'static SchemaRef {
                static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
                    let fields = vec![$(Field::new(stringify!($column), <$array as Column>::data_type(), false),)+];
                    Arc::new(Schema::new(fields))
                });
                &SCHEMA
            }

            pub(super) fn read(source: &mut impl Source, rows: usize) -> Result<Self, CodecError> {
                Ok(Self {
                    rows,
                    $($column: <$array as Column>::read(source, rows).map_err(|reason| {
                        CodecError::malformed($table, format!("{}: {reason}", stringify!($column)))
                    })?,)+
                })
            }

            pub(super) fn pack(rows: $rows, packer: &mut Packer<'_>) {
                $(<$array as Column>::pack(rows.$each().map(|$it| $value), packer);)+
            }

            pub(super) fn unpack(source: &mut Packed, rows: usize) -> Result<Self, CodecError> {
                Ok(Self {
                    rows,
                    $($column: <$array as Column>::unpack(source, rows).map_err(|reason| {
                        CodecError::malformed($table, format!("{}: {reason}", stringify!($column)))
                    })?,)+
                })
            }

            pub(super) fn record_batch(&self) -> RecordBatch {
                let columns = vec![$(Column::array(&self.$column),)+];
                RecordBatch::try_new(Self::schema().clone(), columns).expect("columns have the schema's types and one length")
            }
        }
    };
}

table! {
    /// Dictionary of callers.
    CallerColumns("callers") of Caller as row, packed from &[Caller] => iter {
        /// Key ids.
        key: FixedSizeBinaryArray = row.key.0,
        /// Codes of `Transport`.
        transport: UInt8Array = row.transport.code(),
        /// Codes of `Trigger`.
        trigger: UInt8Array = row.trigger.code(),
        /// `custom.source`.
        source: StringArray = row.source.as_str(),
        /// Names of the client library.
        sdk_name: StringArray = row.sdk_name.as_str(),
        /// Versions of the client library.
        sdk_version: StringArray = row.sdk_version.as_str(),
        /// Platforms.
        platform: StringArray = row.platform.as_str(),
        /// Wrappers.
        wrapper: StringArray = row.wrapper.as_str(),
    }
}

table! {
    /// Dictionary of outcomes.
    OutcomeColumns("outcomes") of Outcome as row, packed from &[Outcome] => iter {
        /// Flag ids.
        flag: FixedSizeBinaryArray = row.flag.0,
        /// Flag keys.
        flag_key: StringArray = row.flag_key.as_str(),
        /// Variation ids.
        variation: FixedSizeBinaryArray = row.variation.0,
        /// Codes of `Reason`.
        reason: UInt8Array = row.reason.code(),
        /// Codes of `ErrorCode`, or 0.
        error_code: UInt8Array = row.error_code.map_or(0, crate::decision::ErrorCode::code),
        /// Codes of `Exit`, or 0.
        exit: UInt8Array = row.exit.map_or(0, crate::decision::Exit::code),
        /// Rule ids.
        rule: FixedSizeBinaryArray = row.rule.0,
        /// Rollout ids.
        rollout: FixedSizeBinaryArray = row.rollout,
        /// Values as JSON text.
        value_json: StringArray = row.value_json.as_str(),
        /// 1 with analytics tracking.
        analytics_enabled: UInt8Array = u8::from(row.analytics_enabled),
    }
}

table! {
    /// Dictionary of contexts, see [`ObservedContext`].
    ContextColumns("contexts") of ObservedContext as row, packed from &[ObservedContext] => iter {
        /// `user`, `organization`, `multi`, or empty.
        kind: StringArray = &*row.kind,
        /// Pseudonyms of the keys.
        key: ContextKeys = &row.key,
        /// Hashes of the user keys; 0 means none.
        user_hash: UserHashes = (row.user_hash, &row.key),
        /// Attributes as JSON objects; empty where they are not told.
        attributes_json: StringArray = row.attributes_json(),
        /// Attributes left out.
        attributes_omitted: UInt32Array = row.attributes_omitted(),
    }
}

impl ContextColumns {
    /// Fills in hashes that were left out as they follow from the keys.
    pub(super) fn derive_user_hashes(&mut self) {
        self.user_hash.derive(&self.key);
    }
}

table! {
    /// One row per call, see [`Call`].
    CallColumns("calls") of Call as row, packed from &[Call] => iter {
        /// Call ids, big-endian.
        call_id: FixedSizeBinaryArray = Uuid::from_u128(row.call_id),
        /// Event times, microseconds since the Unix epoch.
        event_time_us: Int64Array = row.event_time_us,
        /// Latencies, microseconds.
        latency_us: UInt32Array = row.latency_us,
        /// Evaluation times, nanoseconds.
        evaluation_ns: UInt32Array = row.evaluation_ns,
        /// Configuration versions.
        config_version: UInt64Array = row.config_version,
        /// Indexes of callers.
        caller: UInt32Array = row.caller,
        /// Indexes of contexts, or [`Call::NO_CONTEXT`].
        context: UInt32Array = row.context,
        /// Numbers of decisions.
        decisions: UInt32Array = row.decisions,
        /// API calls to bill.
        api_calls: UInt32Array = row.api_calls,
        /// Connections opened.
        connections: UInt32Array = row.connections,
        /// Custom and error events accepted.
        track_events: UInt32Array = row.track_events,
        /// Codes of `ErrorCode`, or 0.
        error_code: UInt8Array = row.error_code.map_or(0, crate::decision::ErrorCode::code),
        /// 1 if the decisions served count in analytics.
        counted: UInt8Array = u8::from(row.counted),
    }
}

table! {
    /// One row per decision, see [`DecisionRow`].
    DecisionColumns("decisions") of DecisionRow as row,
    packed from impl ExactSizeIterator<Item = DecisionRow> + Clone => clone {
        /// Indexes of outcomes.
        outcome: UInt32Array = row.outcome,
        /// Buckets, or [`DecisionRow::NO_BUCKET`].
        bucket: UInt8Array = row.bucket,
        /// Evaluations that each row stands for.
        count: UInt32Array = row.count,
    }
}
