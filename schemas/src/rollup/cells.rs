//! The rows of each rollup table.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::Table;
use super::column::{Cell, CellError, CellValue, Column, Role};
use crate::ids::{EnvironmentId, FlagId, KeyId, OrganizationId, ProjectId, RuleId, VariationId};

/// Whether a decision shows in analytics: values of the `counting` columns.
pub mod counting {
    /// The flag had no Analytics Tracking.
    pub const HIDDEN: u8 = 0;
    /// The flag had it, but this evaluation does not count (pushed, or reported by the client itself).
    pub const UNCOUNTED: u8 = 1;
    /// Counted in analytics.
    pub const COUNTED: u8 = 2;
}

/// What a row of `decisions` counts: values of its `measure` column.
pub mod measure {
    /// Decisions made by the server.
    pub const SERVED: u8 = 1;
    /// Evaluations reported by clients.
    pub const REPORTED: u8 = 2;
    /// Goals: clients' custom events.
    pub const GOAL: u8 = 3;
    /// Application errors beside a flag.
    pub const APP_ERROR: u8 = 4;
}

/// Declares a table's row: the struct, its columns with their roles, and the conversion from and to Arrow.
macro_rules! cell {
    ($(#[$doc:meta])* $cell:ident of $table:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty, $role:ident;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $cell {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl Cell for $cell {
            const TABLE: Table = Table::$table;

            fn columns() -> &'static [Column] {
                const COLUMNS: &[Column] = &[
                    $(Column { name: stringify!($field), role: Role::$role, data_type: <$type as CellValue>::data_type },)+
                ];
                COLUMNS
            }

            fn to_batch(rows: &[Self]) -> RecordBatch {
                let arrays = vec![$(<$type as CellValue>::to_array(rows.iter().map(|row| &row.$field)),)+];
                RecordBatch::try_new(Arc::clone(&Self::TABLE.schema()), arrays).expect("columns are declared once for both")
            }

            fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, CellError> {
                $(
                    let error = CellError { table: Self::TABLE.name(), column: stringify!($field) };
                    let array = batch.column_by_name(stringify!($field)).ok_or(error.clone())?;
                    let mut $field = <$type as CellValue>::from_array(array).ok_or(error)?.into_iter();
                )+
                let row = |_| $cell { $($field: $field.next().expect("all columns of a batch are equally long"),)+ };
                Ok((0..batch.num_rows()).map(row).collect())
            }
        }
    };
}

cell! {
    /// Decisions of one flag with one result in one minute.
    DecisionCell of Decisions {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// Flag; `NONE` for calls that failed before evaluation.
        flag: FlagId, Dimension;
        /// Variation recorded, or `NONE`.
        variation: VariationId, Dimension;
        /// `Reason` code.
        reason: u8, Dimension;
        /// `ErrorCode` code, 0 for none.
        error_code: u8, Dimension;
        /// Rule that matched, or `NONE`.
        rule: RuleId, Dimension;
        /// `custom.source` as sent.
        source: String, Dimension;
        /// One of [`measure`].
        measure: u8, Dimension;
        /// One of [`counting`].
        counting: u8, Dimension;
        /// Minute of the event.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Decisions.
        count: u64, Count;
    }
}

cell! {
    /// Latencies of the calls in which one flag was decided, one weight per decision.
    LatencyCell of Latency {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// Flag.
        flag: FlagId, Dimension;
        /// One of [`counting`].
        counting: u8, Dimension;
        /// Minute of the event.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Decisions served.
        count: u64, Count;
        /// Sum of the calls' latencies, microseconds.
        latency_us: u64, Count;
        /// Sum of the time in the evaluator per decision, nanoseconds.
        evaluation_ns: u64, Count;
        /// Histogram of the calls' latencies in microseconds (`sketch::latency`).
        buckets: Vec<u8>, Histogram;
    }
}

cell! {
    /// Decisions of one flag in one hour, whatever came of them.
    FlagCell of Flags {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// Flag.
        flag: FlagId, Dimension;
        /// One of [`counting`].
        counting: u8, Dimension;
        /// Hour of the event.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Decisions made by the server.
        served: u64, Count;
        /// Evaluations reported by clients.
        reported: u64, Count;
        /// Served ones whose reason is an error.
        errors: u64, Count;
        /// Application errors.
        app_errors: u64, Count;
        /// Goals.
        goals: u64, Count;
    }
}

cell! {
    /// What all flags of one environment add up to in one minute.
    TotalCell of Totals {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// One of [`counting`].
        counting: u8, Dimension;
        /// Minute of the event.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Decisions made by the server.
        served: u64, Count;
        /// Evaluations reported by clients.
        reported: u64, Count;
        /// Served ones whose reason is an error.
        errors: u64, Count;
        /// Application errors.
        app_errors: u64, Count;
        /// Goals.
        goals: u64, Count;
        /// As in [`LatencyCell`].
        latency_us: u64, Count;
        /// As in [`LatencyCell`].
        evaluation_ns: u64, Count;
        /// As in [`LatencyCell`].
        buckets: Vec<u8>, Histogram;
    }
}

cell! {
    /// The meters of one key in one minute of append.
    UsageCell of Usage {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// SDK key, `NONE` for management writes.
        key: KeyId, Dimension;
        /// `Transport` code.
        transport: u8, Dimension;
        /// Client library.
        sdk_name: String, Dimension;
        /// Its version.
        sdk_version: String, Dimension;
        /// Minute of the append.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Billable API calls.
        api_calls: u64, Count;
        /// Connections opened.
        connections: u64, Count;
        /// Custom and error events accepted.
        track_events: u64, Count;
        /// All calls recorded, billable or not.
        calls: u64, Count;
        /// Calls that failed before evaluation.
        failed_calls: u64, Count;
    }
}

cell! {
    /// Distinct user keys of one day.
    UniqueCell of Uniques {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// Flag, counted decisions only; `NONE` for every context seen in the environment, counted or not.
        flag: FlagId, Dimension;
        /// Variation; `NONE` for the flag as a whole.
        variation: VariationId, Dimension;
        /// Day of the event (of the append for flag `NONE`).
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// HyperLogLog registers (`sketch::unique`).
        registers: Vec<u8>, Registers;
    }
}

cell! {
    /// Distinct user keys of all flags of one environment on one day, counted decisions only.
    UserCell of Users {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// Day of the event.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// HyperLogLog registers (`sketch::unique`).
        registers: Vec<u8>, Registers;
    }
}

cell! {
    /// One context observed on one day.
    ContextCell of Contexts {
        /// Tenant.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// `user`, `organization`, `multi` or empty.
        kind: String, Dimension;
        /// Pseudonymised key.
        key: String, Dimension;
        /// `custom.source` as sent.
        source: String, Dimension;
        /// Day of the event.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Decisions made for it.
        evaluations: u64, Count;
        /// First seen, microseconds.
        first_seen_us: i64, Min;
        /// Last seen, microseconds.
        last_seen_us: i64, Max;
        /// 16 hex digits of the time seen (so that the maximum is the latest), then a JSON object `{"attributes":{…},"omitted":n,"sdk":{"name","version","platform","wrapper"}}`.
        profile: String, Max;
    }
}

cell! {
    /// What became of the records and decisions of one environment, by hour of append.
    LedgerCell of Ledger {
        /// Tenant; `NONE` for records whose header could not be read and for heartbeats.
        organization: OrganizationId, Dimension;
        /// Project.
        project: ProjectId, Dimension;
        /// Environment.
        environment: EnvironmentId, Dimension;
        /// Hour of the append.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Records read.
        records: u64, Count;
        /// Decisions that the headers of all records announce.
        produced: u64, Count;
        /// Decisions folded into cells (sum of `decisions.count`, goals and application errors included).
        counted: u64, Count;
        /// Calls folded.
        calls: u64, Count;
        /// Records recognised as duplicates.
        duplicate_records: u64, Count;
        /// Decisions in them.
        duplicate_decisions: u64, Count;
        /// Records that could not be decoded.
        parked_records: u64, Count;
        /// Decisions that their headers announce.
        parked_decisions: u64, Count;
        /// Records that a gap in a producer's sequence proves lost.
        gaps: u64, Count;
        /// Decisions counted in the minute of their append because their own time was out of range.
        clamped: u64, Count;
        /// Decisions estimated lost with producers that ended without a goodbye.
        estimated_missing: u64, Count;
    }
}

cell! {
    /// One chunk of the log as far as it is folded. Its time is that of its first record's append.
    ChunkCell of Chunks {
        /// Append time of the first record, rounded down to the minute.
        time_us: i64, Time;
        /// Log epoch.
        epoch: u64, Chunk;
        /// Log partition.
        partition: u32, Chunk;
        /// First offset of the chunk.
        chunk: u64, Chunk;
        /// Records folded.
        records: u64, Count;
        /// The offset that follows the last record folded.
        next_offset: u64, Max;
        /// 1 when the chunk is closed.
        complete: u64, Max;
    }
}

/// The columns of a table.
#[must_use]
pub fn table_columns(table: Table) -> &'static [Column] {
    match table {
        Table::Decisions => DecisionCell::columns(),
        Table::Latency => LatencyCell::columns(),
        Table::Flags => FlagCell::columns(),
        Table::Totals => TotalCell::columns(),
        Table::Usage => UsageCell::columns(),
        Table::Uniques => UniqueCell::columns(),
        Table::Users => UserCell::columns(),
        Table::Contexts => ContextCell::columns(),
        Table::Ledger => LedgerCell::columns(),
        Table::Chunks => ChunkCell::columns(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn rows_round_trip_through_arrow() {
        let cell = UniqueCell {
            organization: OrganizationId(Uuid::from_u128(1)),
            project: ProjectId(Uuid::from_u128(2)),
            environment: EnvironmentId(Uuid::from_u128(3)),
            flag: FlagId(Uuid::from_u128(4)),
            variation: VariationId::NONE,
            time_us: -60_000_000,
            epoch: 5,
            partition: 6,
            chunk: 7,
            registers: vec![0, 1, 0, 9],
        };
        let rows = vec![cell.clone(), UniqueCell { chunk: 8, ..cell }];
        assert_eq!(UniqueCell::from_batch(&UniqueCell::to_batch(&rows)), Ok(rows));
        assert!(DecisionCell::from_batch(&UniqueCell::to_batch(&[])).is_err());
    }

    #[test]
    fn every_table_has_a_time_and_a_chunk() {
        for table in Table::ALL {
            let of = |role| table.columns().iter().filter(|column| column.role == role).count();
            assert_eq!((of(Role::Time), of(Role::Chunk)), (1, 3), "{}", table.name());
            assert_eq!(table.schema().fields().len(), table.columns().len());
        }
    }
}
