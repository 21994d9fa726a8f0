-- The rollups. Columns are those of schemas/src/rollup; each row is a cell.
--
-- A table named like a rollup holds cells as emitted: keyed by the chunk of the log that they were folded from, merged by maximum,
-- so that an emission may be lost, repeated or late (`contexts` by whoever reads them, the others by the server as well). A sketch is a text whose greatest value is the latest one (its weight,
-- big-endian, then its stored form: docs/decisions/0006-clickhouse.md). Tables `_hour` and `_day` hold what closed hours
-- and days were rewritten into, without chunks, `_project_` the same for all environments of a project together; only those generations count that
-- the newest row of `rewrites` names. Rows with sketches are wide, so their granules are small: a question about some flags reads few others.
--
-- {on_cluster} and {engine …} are filled in by store/src/clickhouse/ddl.rs. Times are microseconds since the Unix epoch.
-- A comment that stands alone begins a line with two hyphens; statements end with a semicolon at the end of a line.

-- Decisions by flag, variation, reason, rule and source.
CREATE TABLE IF NOT EXISTS `decisions` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `variation` FixedString(16),
    `reason` UInt8,
    `error_code` UInt8,
    `rule` FixedString(16),
    `source` LowCardinality(String),
    `measure` UInt8,
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `count` SimpleAggregateFunction(max, UInt64),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `environment`, intDiv(`time_us`, 3600000000), `flag`)
ORDER BY (`organization`, `project`, `environment`, intDiv(`time_us`, 3600000000), `flag`, `variation`, `reason`, `error_code`, `rule`, `source`, `measure`, `counting`, `time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `decisions_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `variation` FixedString(16),
    `reason` UInt8,
    `error_code` UInt8,
    `rule` FixedString(16),
    `source` LowCardinality(String),
    `measure` UInt8,
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `count` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `flag`, `variation`, `reason`, `error_code`, `rule`, `source`, `measure`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `decisions_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `variation` FixedString(16),
    `reason` UInt8,
    `error_code` UInt8,
    `rule` FixedString(16),
    `source` LowCardinality(String),
    `measure` UInt8,
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `count` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 691200000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `flag`, `variation`, `reason`, `error_code`, `rule`, `source`, `measure`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Latency histograms by flag.
CREATE TABLE IF NOT EXISTS `latency` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `count` SimpleAggregateFunction(max, UInt64),
    `latency_us` SimpleAggregateFunction(max, UInt64),
    `evaluation_ns` SimpleAggregateFunction(max, UInt64),
    `buckets` SimpleAggregateFunction(max, String),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `flag`, `environment`, intDiv(`time_us`, 3600000000))
ORDER BY (`organization`, `project`, `flag`, `environment`, intDiv(`time_us`, 3600000000), `counting`, `time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

CREATE TABLE IF NOT EXISTS `latency_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `count` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `environment`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

CREATE TABLE IF NOT EXISTS `latency_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `count` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 691200000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `environment`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

CREATE TABLE IF NOT EXISTS `latency_project_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `count` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

CREATE TABLE IF NOT EXISTS `latency_project_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `count` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 691200000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

-- Decisions by flag and hour, for questions about all flags.
CREATE TABLE IF NOT EXISTS `flags` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `served` SimpleAggregateFunction(max, UInt64),
    `reported` SimpleAggregateFunction(max, UInt64),
    `errors` SimpleAggregateFunction(max, UInt64),
    `app_errors` SimpleAggregateFunction(max, UInt64),
    `goals` SimpleAggregateFunction(max, UInt64),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `environment`, `time_us`, `flag`)
ORDER BY (`organization`, `project`, `environment`, `time_us`, `flag`, `counting`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 1024;

CREATE TABLE IF NOT EXISTS `flags_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `flag`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `flags_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `flag`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `flags_project_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `flags_project_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `flag` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What all flags of an environment add up to.
CREATE TABLE IF NOT EXISTS `totals` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `served` SimpleAggregateFunction(max, UInt64),
    `reported` SimpleAggregateFunction(max, UInt64),
    `errors` SimpleAggregateFunction(max, UInt64),
    `app_errors` SimpleAggregateFunction(max, UInt64),
    `goals` SimpleAggregateFunction(max, UInt64),
    `latency_us` SimpleAggregateFunction(max, UInt64),
    `evaluation_ns` SimpleAggregateFunction(max, UInt64),
    `buckets` SimpleAggregateFunction(max, String),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `environment`, intDiv(`time_us`, 3600000000))
ORDER BY (`organization`, `project`, `environment`, intDiv(`time_us`, 3600000000), `counting`, `time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 64;

CREATE TABLE IF NOT EXISTS `totals_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `totals_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `totals_project_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `totals_project_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `counting` UInt8,
    `time_us` Int64 CODEC(Delta, LZ4),
    `served` UInt64,
    `reported` UInt64,
    `errors` UInt64,
    `app_errors` UInt64,
    `goals` UInt64,
    `latency_us` UInt64,
    `evaluation_ns` UInt64,
    `buckets` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `counting`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The meters by key, transport and SDK.
CREATE TABLE IF NOT EXISTS `usage` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `key` FixedString(16),
    `transport` UInt8,
    `sdk_name` LowCardinality(String),
    `sdk_version` LowCardinality(String),
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `api_calls` SimpleAggregateFunction(max, UInt64),
    `connections` SimpleAggregateFunction(max, UInt64),
    `track_events` SimpleAggregateFunction(max, UInt64),
    `calls` SimpleAggregateFunction(max, UInt64),
    `failed_calls` SimpleAggregateFunction(max, UInt64),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `environment`, intDiv(`time_us`, 3600000000), `key`)
ORDER BY (`organization`, `project`, `environment`, intDiv(`time_us`, 3600000000), `key`, `transport`, `sdk_name`, `sdk_version`, `time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `usage_hour` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `key` FixedString(16),
    `transport` UInt8,
    `sdk_name` LowCardinality(String),
    `sdk_version` LowCardinality(String),
    `time_us` Int64 CODEC(Delta, LZ4),
    `api_calls` UInt64,
    `connections` UInt64,
    `track_events` UInt64,
    `calls` UInt64,
    `failed_calls` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `key`, `transport`, `sdk_name`, `sdk_version`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `usage_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `key` FixedString(16),
    `transport` UInt8,
    `sdk_name` LowCardinality(String),
    `sdk_version` LowCardinality(String),
    `time_us` Int64 CODEC(Delta, LZ4),
    `api_calls` UInt64,
    `connections` UInt64,
    `track_events` UInt64,
    `calls` UInt64,
    `failed_calls` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `key`, `transport`, `sdk_name`, `sdk_version`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Distinct user keys by flag and variation, per day.
CREATE TABLE IF NOT EXISTS `uniques` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `variation` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `registers` SimpleAggregateFunction(max, String),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `time_us`, `flag`, `environment`)
ORDER BY (`organization`, `project`, `time_us`, `flag`, `environment`, `variation`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

CREATE TABLE IF NOT EXISTS `uniques_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `flag` FixedString(16),
    `variation` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `registers` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 691200000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `environment`, `variation`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

CREATE TABLE IF NOT EXISTS `uniques_project_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `flag` FixedString(16),
    `variation` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `registers` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 691200000000), `generation`)
ORDER BY (`organization`, `project`, `flag`, `variation`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

-- Distinct user keys of all flags of an environment, per day.
CREATE TABLE IF NOT EXISTS `users` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `registers` SimpleAggregateFunction(max, String),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `environment`, `time_us`)
ORDER BY (`organization`, `project`, `environment`, `time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `users_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `registers` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `users_project_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `registers` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Contexts observed, per day, in pages: a row holds cells that differ in the key only, a list of values for each column. Nothing merges them but questions;
-- with its last values a chunk tells all its contexts once more, as `complete`, and the pages before are deleted (docs/decisions/0014-contexts-are-pages.md). Pseudonyms are random, so trying to compress them is in vain.
CREATE TABLE IF NOT EXISTS `contexts` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `kind` LowCardinality(String),
    `source` LowCardinality(String),
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `complete` UInt8,
    `pseudonyms` Array(FixedString(16)) CODEC(NONE),
    `texts` Array(String),
    `evaluations` Array(UInt64) CODEC(T64, LZ4),
    `first_seen_us` Array(Int64) CODEC(T64, LZ4),
    `last_seen_us` Array(Int64) CODEC(T64, LZ4),
    `known_us` Array(UInt64) CODEC(T64, LZ4),
    `profiles` Array(String),
    `shared_by` Array(UInt32),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `complete`)
ORDER BY (`organization`, `project`, `environment`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 64;

CREATE TABLE IF NOT EXISTS `contexts_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `kind` LowCardinality(String),
    `key` String,
    `source` LowCardinality(String),
    `time_us` Int64 CODEC(Delta, LZ4),
    `evaluations` UInt64,
    `first_seen_us` Int64,
    `last_seen_us` Int64,
    `profile` String,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 86400000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `kind`, `key`, `source`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What became of records and decisions, per hour of append.
CREATE TABLE IF NOT EXISTS `ledger` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64 CODEC(Delta, LZ4),
    `records` SimpleAggregateFunction(max, UInt64),
    `produced` SimpleAggregateFunction(max, UInt64),
    `counted` SimpleAggregateFunction(max, UInt64),
    `calls` SimpleAggregateFunction(max, UInt64),
    `duplicate_records` SimpleAggregateFunction(max, UInt64),
    `duplicate_decisions` SimpleAggregateFunction(max, UInt64),
    `parked_records` SimpleAggregateFunction(max, UInt64),
    `parked_decisions` SimpleAggregateFunction(max, UInt64),
    `gaps` SimpleAggregateFunction(max, UInt64),
    `clamped` SimpleAggregateFunction(max, UInt64),
    `estimated_missing` SimpleAggregateFunction(max, UInt64),
    INDEX `rewritten` (`time_us`, `partition`, `epoch`, `chunk`) TYPE minmax GRANULARITY 1
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 86400000000)
PRIMARY KEY (`organization`, `project`, `environment`, `time_us`)
ORDER BY (`organization`, `project`, `environment`, `time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `ledger_day` {on_cluster}
(
    `organization` FixedString(16),
    `project` FixedString(16),
    `environment` FixedString(16),
    `time_us` Int64 CODEC(Delta, LZ4),
    `records` UInt64,
    `produced` UInt64,
    `counted` UInt64,
    `calls` UInt64,
    `duplicate_records` UInt64,
    `duplicate_decisions` UInt64,
    `parked_records` UInt64,
    `parked_decisions` UInt64,
    `gaps` UInt64,
    `clamped` UInt64,
    `estimated_missing` UInt64,
    `generation` UInt64
)
ENGINE = {engine MergeTree}
PARTITION BY (intDiv(`time_us`, 2764800000000), `generation`)
ORDER BY (`organization`, `project`, `environment`, `time_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The chunks of the log as far as they are folded.
CREATE TABLE IF NOT EXISTS `chunks` {on_cluster}
(
    `time_us` Int64,
    `epoch` UInt64,
    `partition` UInt32,
    `chunk` UInt64,
    `records` SimpleAggregateFunction(max, UInt64),
    `next_offset` SimpleAggregateFunction(max, UInt64),
    `complete` SimpleAggregateFunction(max, UInt64)
)
ENGINE = {engine AggregatingMergeTree}
PARTITION BY intDiv(`time_us`, 2764800000000)
ORDER BY (`time_us`, `epoch`, `partition`, `chunk`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- How far each partition of the log is folded: written after all cells that it vouches for. `since_us` is when the epoch was first seen:
-- a partition's newest epoch is the one that is alive. `reached_us` is the watermark told before, so that it never goes backwards.
CREATE TABLE IF NOT EXISTS `positions` {on_cluster}
(
    `partition` UInt32,
    `epoch` UInt64,
    `chunk` SimpleAggregateFunction(max, UInt64),
    `next_offset` SimpleAggregateFunction(max, UInt64),
    `complete_through_us` SimpleAggregateFunction(max, Int64),
    `reached_us` SimpleAggregateFunction(max, Int64),
    `since_us` SimpleAggregateFunction(min, Int64) DEFAULT toUnixTimestamp64Micro(now64(6))
)
ENGINE = {engine AggregatingMergeTree}
ORDER BY (`partition`, `epoch`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What has been rewritten, as JSON: the newest version is in force. One row is one commit.
CREATE TABLE IF NOT EXISTS `rewrites` {on_cluster}
(
    `version` UInt64,
    `committed_us` Int64,
    `body` String
)
ENGINE = {engine MergeTree}
ORDER BY (`version`, `committed_us`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
