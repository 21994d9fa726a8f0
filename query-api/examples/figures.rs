//! Figures of analytics over ClickHouse: 30 days of 1,000 flags in 20 environments, rewritten into hours and days, then the time of each
//! endpoint's questions.
//!
//! `dev/servers/with-postgres dev/servers/with-clickhouse sh -c 'figures fill 1000; figures ask 1000'`, with `figures` for
//! `cargo run --release -p flagmint-query-api --example figures --`: the second alone wants a quiet machine.

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
const DAY_US: i64 = 86_400_000_000;
/// Each question is asked this often.
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
    let bytes = format!("reverse(reinterpretAsString(toUInt64({value}) + 0x0100000000000000))");
    format!("toFixedString(concat(repeat('\\0', 8), {bytes}), 16)")
}

/// Twenty buckets of 10 bytes behind a weight, in SQL.
const BUCKETS: &str = "concat(reverse(reinterpretAsString(toUInt64(20 * (1 + n % 50)) + 0x0100000000000000)), \
    arrayStringConcat(arrayMap(i -> concat(substring(reinterpretAsString(toUInt32(65536 + 200 + n % 40 + i * 8)), 1, 2), \
    substring(reinterpretAsString(toUInt128(0x010000000000000000) + 1 + n % 50), 1, 8)), range(20))))";

/// A hundred registers behind a weight, in SQL.
const REGISTERS: &str = "concat(repeat('\\0', 6), char(1, 44), '\\0', arrayStringConcat(arrayMap(\
    i -> concat(substring(reinterpretAsString(toUInt32(65536 + i * 40 + n % 40)), 1, 2), char(1 + cityHash64(n, i) % 8)), range(100))))";

/// Cells of every flag, environment and hour, and in the hour that is not over of every minute.
fn fill(url: &str, flags: u64) {
    let start_us = (now_us().div_euclid(DAY_US) - DAYS + 1) * DAY_US;
    let hours = (now_us() - start_us) / 3_600_000_000;
    let open_us = start_us + hours * 3_600_000_000;
    let tenant =
        format!("unhex('{}') AS organization, unhex('{}') AS project", ORGANIZATION.simple(), PROJECT.simple());
    let per_hour = flags * ENVIRONMENTS;
    let keys = format!(
        "{tenant}, toFixedString(reverse(reinterpretAsString(toUInt128(0x200 + n % {ENVIRONMENTS}))), 16) AS environment, \
         {} AS flag",
        id(&format!("intDiv(n, {ENVIRONMENTS}) % {flags}"))
    );
    let chunk = format!("toUInt64(1) AS epoch, toUInt32(n % {ENVIRONMENTS} % 4) AS `partition`");
    for (rows, time, at) in [
        (
            per_hour * hours as u64,
            format!("{start_us} + intDiv(n, {per_hour}) * 3600000000 + cityHash64(n) % 60 * 60000000"),
            format!("intDiv(n, {per_hour}) * 100"),
        ),
        (per_hour * 20, format!("{open_us} + intDiv(n, {per_hour}) * 60000000"), format!("{}", hours * 100)),
    ] {
        let source = format!("(SELECT number AS n FROM numbers({rows}))");
        sql(
            url,
            &format!(
                "INSERT INTO decisions SELECT {keys}, {} AS variation, toUInt8(1 + v) AS reason, 0 AS error_code, \
             toFixedString('', 16) AS rule, 'SDK' AS source, 1 AS measure, 2 AS counting, {time} AS time_us, {chunk}, \
             toUInt64({at}) AS chunk, 10 + cityHash64(n, v) % 90 AS count FROM {source} ARRAY JOIN [0, 1] AS v",
                id("n % 2000 + v")
            ),
        );
        sql(
            url,
            &format!(
                "INSERT INTO latency SELECT {keys}, 2 AS counting, {time} AS time_us, {chunk}, toUInt64({at}) AS chunk, \
             toUInt64(20 * (1 + n % 50)) AS count, count * 400 AS latency_us, count * 5000 AS evaluation_ns, {BUCKETS} AS buckets FROM {source}"
            ),
        );
    }
    fill_days(url, (flags, hours as u64), (&tenant, &chunk), start_us);
}

/// Distinct users of every flag, environment and day, and how far all is folded.
fn fill_days(url: &str, (flags, hours): (u64, u64), (tenant, chunk): (&str, &str), start_us: i64) {
    let per_hour = flags * ENVIRONMENTS;
    let one_in = |flag: &str| {
        format!(
            "INSERT INTO uniques SELECT {tenant}, toFixedString(reverse(reinterpretAsString(toUInt128(0x200 + n % {ENVIRONMENTS}))), 16) AS environment, \
         {flag} AS flag, toFixedString('', 16) AS variation, {start_us} + intDiv(n, {per_hour}) * {DAY_US} AS time_us, {chunk}, \
         toUInt64(intDiv(n, {per_hour}) * 2400) AS chunk, {REGISTERS} AS registers FROM (SELECT number AS n FROM numbers({}))",
            per_hour * DAYS as u64
        )
    };
    sql(url, &one_in(&id(&format!("intDiv(n, {ENVIRONMENTS}) % {flags}"))));
    sql(url, &one_in("toFixedString('', 16)"));
    sql(
        url,
        &format!(
            "INSERT INTO positions (partition, epoch, chunk, next_offset, complete_through_us, reached_us) \
         SELECT number, 1, {}, {}, {}, {} FROM numbers(4)",
            hours * 100,
            hours * 100,
            now_us(),
            now_us()
        ),
    );
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
        _ => eprintln!("usage: figures fill|ask [FLAGS]"),
    }
}

async fn fill_and_rewrite(server: &str, options: &Options, flags: u64) {
    migrate(options).await.unwrap();
    let url = format!("{server}/?database=figures");
    let start = Instant::now();
    fill(&url, flags);
    println!("filled in {:.1} s", start.elapsed().as_secs_f64());
    let store = ClickHouseStore::open(options).await.unwrap();
    let start = Instant::now();
    store.maintain(now_us()).await.unwrap();
    println!("rewrote {DAYS} days in {:.1} s", start.elapsed().as_secs_f64());
    let sizes = "SELECT table, sum(rows), formatReadableSize(sum(bytes_on_disk)), count() FROM system.parts \
        WHERE active AND database = 'figures' GROUP BY table ORDER BY table FORMAT TSV";
    println!("{}", sql(&url, sizes));
}

async fn ask_all(options: &Options, flags: u64) {
    let database = postgres::database().await;
    assert_eq!(postgres::pseudonym_key().len(), 32, "the environments' key");
    names(&database, flags).await;
    let now: DateTime<Utc> = NOW.parse().unwrap();
    let store = Arc::new(ClickHouseStore::open(options).await.unwrap());
    let api = QueryApi::new(store, Directory::connect(&database).unwrap()).with_clock(move || now);
    let api = flagmint_query_api::router(api);
    println!("| endpoint | by | scope | p50 ms | p99 ms | bytes |\n|---|---|---|--:|--:|--:|");
    let environment = "&environment_id=00000000-0000-0000-0000-000000000205";
    for granularity in ["day", "hour"] {
        for (scope, members) in [("project", ""), ("one environment", environment)] {
            for name in ["metrics", "evaluations", "response-time", "top-flags", "distribution"] {
                let path = format!("/projects/{PROJECT}/analytics/{name}?granularity={granularity}{members}");
                let (p50, p99, bytes) = measure(&api, &path).await;
                println!("| {name} | {granularity} | {scope} | {p50:.1} | {p99:.1} | {bytes} |");
            }
        }
    }
}

/// Milliseconds, and the length of the answer.
async fn measure(api: &Router, path: &str) -> (f64, f64, usize) {
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..RUNS {
        let (time, length) = ask(api, path).await;
        took.push(time);
        bytes = length;
    }
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    (ms(RUNS / 2), ms(RUNS * 99 / 100), bytes)
}
