-- Records of the log that could not be read, beside their topic: what to look at when the ledger says that some were parked. A crash may
-- repeat some; ask with FINAL to see each once.
CREATE TABLE IF NOT EXISTS `dead_letters` {on_cluster}
(
    `epoch` UInt64,
    `partition` UInt32,
    `offset` UInt64,
    `append_time_us` Int64,
    `reason` String,
    `header` String,
    `payload` String,
    `payload_bytes` UInt64
)
ENGINE = {engine ReplacingMergeTree}
PARTITION BY intDiv(`append_time_us`, 2764800000000)
ORDER BY (`epoch`, `partition`, `offset`)
TTL toDateTime(intDiv(`append_time_us`, 1000000)) + INTERVAL 30 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
