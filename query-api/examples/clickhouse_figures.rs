//! Figures of analytics over ClickHouse: 30 days of 1,000 flags in 20 environments, rewritten into hours and days, then the time of each
//! endpoint's questions. Two days are filled with cells and rewritten, earlier ones repeat the first of them; `figures check` shows on a few flags
//! that this is what rewriting cells of all days comes to.
//!
//! `dev/servers/with-postgres dev/servers/with-clickhouse sh -c 'figures fill 1000; figures ask 1000'`, with `figures` for
//! `cargo run --release -p flagmint-query-api --example clickhouse_figures --`: the second alone wants a quiet machine.

#![expect(clippy::unwrap_used, reason = "a benchmark that finds nothing to unwrap has failed")]

#[path = "../tests/answers/support/postgres.rs"]
mod postgres;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use chrono::{DateTime, Utc};
use flagmint_query_api::{Directory, QueryApi};
use flagmint_store::clickhouse::{ClickHouseStore, Options, migrate};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tower::ServiceExt;
use uuid::Uuid;

const DAYS: i64 = 30;
const ENVIRONMENTS: u64 = 20;
const NOW: &str = "2026-03-15T10:20:30Z";
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// Minute cells are kept this long.
const MINUTE_DAYS: i64 = 14;
/// Each question is asked this often, and a third as often of a query API that was just started, which has kept nothing.
const RUNS: usize = 60;

const ORGANIZATION: Uuid = Uuid::from_u128(0xA);
const PROJECT: Uuid = Uuid::from_u128(0x10);

fn now_us() -> i64 {
    NOW.parse::<DateTime<Utc>>().unwrap().timestamp_micros()
}

/// Runs a statement past the store.
fn sql(url: &str, statement: &str) -> String {
    let output = std::process::Command::new("curl").args(["-s", "--data-binary", statement, url]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(!text.contains("DB::Exception"), "{statement}: {text}");
    text
}

/// A flag's or variation's id, in SQL.
fn id(value: &str) -> String {
    format!("toFixedString(unhex(leftPad(hex(0x0100000000000000 + {value}), 32, '0')), 16)")
}

const PARTITION: &str = "toUInt64(1) AS epoch, toUInt32(n % 4) AS `partition`";

/// Whose row number `n` is, in SQL.
fn place() -> String {
    format!(
        "unhex('{}') AS organization, unhex('{}') AS project, \
         toFixedString(unhex(leftPad(hex(0x200 + n % {ENVIRONMENTS}), 32, '0')), 16) AS environment",
        ORGANIZATION.simple(),
        PROJECT.simple()
    )
}

/// Buckets of a gap and a count behind a weight, in SQL; which and how many in each depends on `n`. The first gap, above 200, takes two bytes.
fn buckets(n: &str, number: u32, step: u32) -> String {
    format!(
        "concat(reverse(reinterpretAsString(toUInt64({number} * (1 + {n} % 50)) + 0x0100000000000000)), \
         char(200 + {n} % 8, 1, 1 + {n} % 50), repeat(char({gap}, 1 + {n} % 50), {others}))",
        gap = step - 1,
        others = number - 1
    )
}

/// A hundred registers behind a weight, in SQL.
const REGISTERS: &str = "concat(repeat('\\0', 6), char(1, 44), '\\0', char(100, 0), arrayStringConcat(arrayMap(\
    i -> substring(reinterpretAsString(toUInt32(65536 + i * 40 + n % 40 + 4096 * (1 + cityHash64(n, i) % 8))), 1, 2), range(100))))";

/// All registers behind a weight, in SQL: the users of a thousand flags are many.
const ALL_REGISTERS: &str = "concat(repeat('\\0', 6), char(48, 0, 1), repeat(char(51), 2048))";

/// Cells of every flag, environment and hour of yesterday and today, and in the hour that is not over of every minute: as a fold would
/// emit them, in chunks that last an hour or, in that hour, five minutes.
fn fill(url: &str, flags: u64) {
    let start_us = (now_us().div_euclid(DAY_US) - 1) * DAY_US;
    let hours = (now_us() - start_us) / HOUR_US;
    let open_us = start_us + hours * HOUR_US;
    let per_hour = flags * ENVIRONMENTS;
    let keys = format!("{}, {} AS flag", place(), id(&format!("intDiv(n, {ENVIRONMENTS}) % {flags}")));
    for (rows, time, chunk) in [
        (
            per_hour * hours as u64,
            format!("{start_us} + intDiv(n, {per_hour}) * {HOUR_US} + cityHash64(n) % 60 * 60000000"),
            format!("intDiv(n, {per_hour}) * 100"),
        ),
        (
            per_hour * 20,
            format!("{open_us} + intDiv(n, {per_hour}) * 60000000"),
            format!("{} + intDiv(intDiv(n, {per_hour}), 5)", hours * 100),
        ),
    ] {
        let source = format!("(SELECT number AS n FROM numbers({rows}))");
        let chunk = format!("{time} AS time_us, {PARTITION}, toUInt64({chunk}) AS chunk");
        sql(
            url,
            &format!(
                "INSERT INTO decisions SELECT {keys}, {} AS variation, toUInt8(1 + v) AS reason, 0 AS error_code, \
             toFixedString('', 16) AS rule, 'SDK' AS source, 1 AS measure, 2 AS counting, {chunk}, \
             10 * (1 + n % 50) AS count FROM {source} ARRAY JOIN [0, 1] AS v",
                id("n % 2000 + v")
            ),
        );
        sql(
            url,
            &format!(
                "INSERT INTO latency SELECT {keys}, 2 AS counting, {chunk}, toUInt64(20 * (1 + n % 50)) AS count, \
             count * 400 AS latency_us, count * 5000 AS evaluation_ns, {} AS buckets FROM {source}",
                buckets("n", 20, 8)
            ),
        );
    }
    fill_sums(url);
    fill_days(url, flags, start_us, hours);
}

/// What the flags' cells add up to.
fn fill_sums(url: &str) {
    let of = |time_us: i64| {
        format!(
            "organization, project, environment, counting, intDiv(time_us, {time_us}) * {time_us} AS t, epoch, `partition`, chunk"
        )
    };
    let counts = "sum(count) AS served, 0 AS reported, 0 AS errors, 0 AS app_errors, 0 AS goals";
    let columns = "organization, project, environment, counting, time_us, epoch, `partition`, chunk, served, reported, errors, app_errors, goals";
    let into = |table, more: &str| format!("INSERT INTO {table} ({columns}{more})");
    let hour = of(HOUR_US);
    sql(url, &format!("{} SELECT {hour}, {counts}, flag FROM latency GROUP BY {hour}, flag", into("flags", ", flag")));
    let minute = of(60_000_000);
    sql(
        url,
        &format!(
            "{} SELECT {minute}, {counts}, sum(latency_us), sum(evaluation_ns), {} FROM latency GROUP BY {minute}",
            into("totals", ", latency_us, evaluation_ns, buckets"),
            buckets("intDiv(t, 60000000)", 192, 1)
        ),
    );
}

/// Distinct users of every flag, environment and day, and how far all is folded.
fn fill_days(url: &str, flags: u64, start_us: i64, hours: i64) {
    let per_day = flags * ENVIRONMENTS;
    let rows = |table: &str, columns: &str, registers: &str, per_day: u64| {
        let time = format!("{start_us} + intDiv(n, {per_day}) * {DAY_US} AS time_us, {PARTITION}");
        let chunk = format!("toUInt64(intDiv(n, {per_day}) * 2400) AS chunk");
        sql(
            url,
            &format!(
                "INSERT INTO {table} SELECT {}, {columns} {time}, {chunk}, {registers} AS registers \
                 FROM (SELECT number AS n FROM numbers({}))",
                place(),
                per_day * 2
            ),
        );
    };
    sql(
        url,
        &format!(
            "INSERT INTO ledger SELECT {}, {start_us} + intDiv(n, {ENVIRONMENTS}) * {HOUR_US} AS time_us, {PARTITION}, \
             toUInt64(intDiv(n, {ENVIRONMENTS}) * 100) AS chunk, 3600 AS records, 1000000 AS produced, 1000000 AS counted, 100000 AS calls, \
             0 AS duplicate_records, 0 AS duplicate_decisions, 0 AS parked_records, 0 AS parked_decisions, 0 AS gaps, 0 AS clamped, \
             0 AS estimated_missing FROM (SELECT number AS n FROM numbers({}))",
            place(),
            ENVIRONMENTS * (hours as u64 + 1)
        ),
    );
    let flag = id(&format!("intDiv(n, {ENVIRONMENTS}) % {flags}"));
    let none = "toFixedString('', 16) AS variation,";
    rows("uniques", &format!("{flag} AS flag, {none}"), REGISTERS, per_day);
    rows("uniques", &format!("toFixedString('', 16) AS flag, {none}"), ALL_REGISTERS, ENVIRONMENTS);
    rows("users", "", ALL_REGISTERS, ENVIRONMENTS);
    sql(
        url,
        &format!(
            "INSERT INTO positions (partition, epoch, chunk, next_offset, complete_through_us, reached_us) \
             SELECT number, 1, {0}, {0}, {1}, {1} FROM numbers(4)",
            hours * 100,
            now_us()
        ),
    );
}

/// Tables of the store, with what of yesterday they hold: cells, or coarse rows.
fn tables(url: &str, coarse: bool) -> Vec<String> {
    let with_time = "SELECT DISTINCT table FROM system.columns WHERE database = currentDatabase() AND name = 'time_us'";
    let names = sql(url, with_time);
    let is_wanted = |name: &&str| *name != "chunks" && (name.ends_with("_hour") || name.ends_with("_day")) == coarse;
    names.lines().filter(is_wanted).map(str::to_owned).collect()
}

/// Repeats yesterday's rows of a table on earlier days.
fn repeat(url: &str, table: &str, days: i64) {
    let yesterday_us = (now_us().div_euclid(DAY_US) - 1) * DAY_US;
    let url = format!(
        "{url}&min_insert_block_size_rows=100000000&min_insert_block_size_bytes=0&max_block_size=1000000&optimize_on_insert=0"
    );
    for day in 1..=days {
        let shift_us = day * DAY_US;
        sql(
            &url,
            &format!(
                "INSERT INTO {table} SELECT * REPLACE (time_us - {shift_us} AS time_us) \
                 FROM (SELECT * FROM {table} WHERE time_us >= {yesterday_us} AND time_us < {yesterday_us} + {DAY_US})"
            ),
        );
    }
}

/// Puts the coarse rows of earlier days in force: what rewriting their cells would have come to, as [`check`] shows.
fn repeat_rewritten(url: &str, days: i64) {
    let yesterday = now_us().div_euclid(DAY_US) - 1;
    for table in tables(url, true) {
        repeat(url, &table, days);
        // A generation of several days is written at once.
        sql(url, &format!("OPTIMIZE TABLE {table} FINAL"));
    }
    let body = sql(url, "SELECT body FROM rewrites ORDER BY version DESC LIMIT 1 FORMAT TSVRaw");
    let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
    for span in body["spans"].as_object_mut().unwrap().values_mut() {
        let generation = span[yesterday.to_string()].clone();
        for day in 1..=days {
            span[(yesterday - day).to_string()] = generation.clone();
        }
    }
    let body = body.to_string();
    sql(url, &format!("INSERT INTO rewrites SELECT max(version) + 1, max(committed_us) + 1, '{body}' FROM rewrites"));
}

/// Names of the project, its environments and flags.
async fn names(database: &str, flags: u64) {
    let mut connection = PgConnection::connect(database).await.unwrap();
    let sql = format!(
        "DELETE FROM environment_snapshots; DELETE FROM variations; DELETE FROM flags; DELETE FROM environments;
         INSERT INTO environments (id, project_id, organization_id, name, slug)
         SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(512 + n), 12, '0'))::uuid, '{PROJECT}', '{ORGANIZATION}', 'e' || n, 'e' || n
         FROM generate_series(0, {}) n;
         INSERT INTO flags (id, project_id, organization_id, key, name, type, analytics_enabled)
         SELECT ('00000000-0000-0000-0100-' || lpad(to_hex(n), 12, '0'))::uuid, '{PROJECT}', '{ORGANIZATION}', 'f' || n, 'F' || n, 'boolean', true
         FROM generate_series(0, {}) n;",
        ENVIRONMENTS - 1,
        flags - 1
    );
    connection.execute(sql.as_str()).await.unwrap();
}

async fn ask(api: &Router, path: &str) -> (Duration, usize) {
    let exp = now_us() / 1_000_000 + 900;
    let claims =
        json!({"sub": Uuid::nil(), "org": ORGANIZATION, "role": "admin", "sid": Uuid::nil(), "exp": exp, "iat": 0});
    let key = EncodingKey::from_secret(&postgres::SECRET);
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    let start = Instant::now();
    let response = api.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(status.is_success(), "{path}: {}", String::from_utf8_lossy(&body));
    (start.elapsed(), body.len())
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let flags = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let server = std::env::var("FLAGMINT_TEST_CLICKHOUSE").expect("run this under dev/servers/with-clickhouse");
    let options = Options::from_url(&server).unwrap().with_database("figures");
    match mode.as_str() {
        "fill" => fill_and_rewrite(&server, &options, flags).await,
        "ask" => ask_all(&options, flags).await,
        "check" => check(&server).await,
        _ => eprintln!("usage: figures fill|ask [FLAGS], figures check"),
    }
}

async fn fill_and_rewrite(server: &str, options: &Options, flags: u64) {
    let url = format!("{server}/?database=figures");
    let start = Instant::now();
    two_days(&url, options, flags).await;
    println!("two days filled and rewritten in {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    tables(&url, false).iter().for_each(|table| repeat(&url, table, MINUTE_DAYS - 2));
    repeat_rewritten(&url, DAYS - 2);
    println!("repeated {} days in {:.1} s", DAYS - 2, start.elapsed().as_secs_f64());
    let sizes = "SELECT table, sum(rows), formatReadableSize(sum(bytes_on_disk)), count() FROM system.parts \
        WHERE active AND database = 'figures' GROUP BY table ORDER BY table FORMAT TSV";
    println!("{}", sql(&url, sizes));
}

async fn two_days(url: &str, options: &Options, flags: u64) {
    migrate(options).await.unwrap();
    fill(url, flags);
    ClickHouseStore::open(options).await.unwrap().maintain(now_us()).await.unwrap();
}

/// Shows that repeating coarse rows is the same as rewriting repeated cells.
async fn check(server: &str) {
    const EARLIER: i64 = 3;
    let at =
        |name: &str| (format!("{server}/?database={name}"), Options::from_url(server).unwrap().with_database(name));
    let ((rewritten, real), (repeated, short)) = (at("figures_rewritten"), at("figures_repeated"));
    for name in ["figures_rewritten", "figures_repeated"] {
        sql(&format!("{server}/"), &format!("DROP DATABASE IF EXISTS {name}"));
    }
    migrate(&real).await.unwrap();
    fill(&rewritten, 3);
    tables(&rewritten, false).iter().for_each(|table| repeat(&rewritten, table, EARLIER));
    ClickHouseStore::open(&real).await.unwrap().maintain(now_us()).await.unwrap();
    two_days(&repeated, &short, 3).await;
    repeat_rewritten(&repeated, EARLIER);
    let spans = "SELECT mapSort(mapApply((k, v) -> (k, length(v)), JSONExtract(body, 'spans', 'Map(String, Map(String, UInt64))'))) \
        FROM rewrites ORDER BY version DESC LIMIT 1";
    assert_eq!(sql(&repeated, spans), sql(&rewritten, spans), "the days in force");
    for table in tables(&repeated, true) {
        let rows = |url| {
            let in_force = format!(
                "SELECT arrayDistinct(mapValues(JSONExtract(body, 'spans', '{table}', 'Map(String, UInt64)'))) \
                 FROM rewrites ORDER BY version DESC LIMIT 1"
            );
            let rows = format!("SELECT count(), sum(cityHash64(* EXCEPT generation)) FROM {table}");
            sql(url, &format!("{rows} WHERE has(({in_force}), generation)"))
        };
        let (a, b) = (rows(&repeated), rows(&rewritten));
        assert_eq!(a, b, "{table}");
        assert!(
            !a.starts_with("0\t") || table.starts_with("contexts") || table.starts_with("usage"),
            "{table} is empty"
        );
        println!("{table}: {a}");
    }
}

async fn ask_all(options: &Options, flags: u64) {
    let database = postgres::database().await;
    assert_eq!(postgres::pseudonym_key().len(), 32, "the environments' key");
    names(&database, flags).await;
    let open = async || {
        let now: DateTime<Utc> = NOW.parse().unwrap();
        let store = Arc::new(ClickHouseStore::open(options).await.unwrap());
        let api = QueryApi::new(store, Directory::connect(&database).unwrap()).with_clock(move || now);
        let api = flagmint_query_api::router(api);
        // Connects, about another time.
        ask(&api, &format!("/projects/{PROJECT}/analytics/metrics?from=2026-03-14")).await;
        api
    };
    let api = open().await;
    println!("| endpoint | by | scope | p50 ms | p99 ms | first time, p50 | p99 | bytes |");
    println!("|---|---|---|--:|--:|--:|--:|--:|");
    let environment = "&environment_id=00000000-0000-0000-0000-000000000205";
    for granularity in ["day", "hour"] {
        for (scope, members) in [("project", ""), ("one environment", environment)] {
            for name in ["metrics", "evaluations", "response-time", "top-flags", "distribution"] {
                let path = format!("/projects/{PROJECT}/analytics/{name}?granularity={granularity}{members}");
                let (mut again, mut first, mut bytes) = (Vec::new(), Vec::new(), 0);
                ask(&api, &path).await;
                for run in 0..RUNS {
                    let (time, length) = ask(&api, &path).await;
                    again.push(time);
                    bytes = length;
                    if run % 3 == 0 {
                        first.push(ask(&open().await, &path).await.0);
                    }
                }
                let ((p50, p99), (first_p50, first_p99)) = (quantiles(again), quantiles(first));
                println!(
                    "| {name} | {granularity} | {scope} | {p50:.1} | {p99:.1} | {first_p50:.1} | {first_p99:.1} | {bytes} |"
                );
            }
        }
    }
}

/// Median and 99th percentile, milliseconds.
fn quantiles(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    (ms(took.len() / 2), ms(took.len() * 99 / 100))
}
