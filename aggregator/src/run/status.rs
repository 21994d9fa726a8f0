//! What the loop tells others about itself.

/// The state of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Log partition.
    pub partition: u32,
    /// The offset that follows the last record whose cells the store has taken.
    pub emitted_offset: u64,
    /// Records in the log that are not folded yet, as of about a second ago.
    pub lag_records: u64,
    /// Every event of this partition before this is in the store, microseconds; `i64::MIN` if unknown.
    pub complete_through_us: i64,
    /// Too many of its last records were unreadable: it is not folded further until somebody acts and restarts the loop.
    pub is_stopped: bool,
}

/// The state of the loop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Of the assignment that is followed; 0 before the first.
    pub generation: u64,
    /// The partitions that are folded here, by number; those being opened are missing.
    pub partitions: Vec<PartitionStatus>,
    /// Some assigned partitions are being opened: their position is asked for, or what precedes it read.
    pub is_opening: bool,
    /// Records parked since the start.
    pub parked_records: u64,
    /// Upserts that failed and were tried again since the start.
    pub upsert_retries: u64,
    /// What the store said last, if it does not work now.
    pub store_trouble: Option<String>,
    /// What the log said last, if it cannot be read now.
    pub log_trouble: Option<String>,
}

impl Status {
    /// One partition, if it is folded here.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<&PartitionStatus> {
        self.partitions.iter().find(|partition| partition.partition == number)
    }

    /// Records in the log that are not folded yet.
    #[must_use]
    pub fn lag_records(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lag_records).sum()
    }

    /// Every event before this is in the store, microseconds: the least of the partitions that know. `None` if none does.
    #[must_use]
    pub fn complete_through_us(&self) -> Option<i64> {
        self.partitions.iter().map(|partition| partition.complete_through_us).filter(|time| *time != i64::MIN).min()
    }
}
