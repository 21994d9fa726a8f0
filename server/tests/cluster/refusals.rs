//! What cannot be started says what is wrong and what to do, and ends with the status that says whose turn it is: 2 to change what is
//! configured, 3 to bring a server back.

use std::process::{Command, Stdio};

use crate::cluster::{Place, flagmint};

/// Nobody listens on this port of this machine.
const NOWHERE: &str = "127.0.0.1:1";

fn end_of(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().expect("flagmint runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn check(command: &mut Command, status: i32, expected: &[&str]) {
    let (code, text) = end_of(command);
    assert_eq!(code, Some(status), "{command:?}: {text}");
    for part in expected {
        assert!(text.contains(part), "{command:?} should say {part:?}: {text}");
    }
    assert!(!text.contains("s3cret"), "{command:?} tells a secret: {text}");
}

#[test]
fn what_is_missing_or_unreadable_is_named() {
    let cases: [(&str, &[&str], &[&str]); 12] = [
        ("evaluator", &["--postgres", "postgres://h/d"], &["--kafka is needed", "FLAGMINT_KAFKA"]),
        ("evaluator", &["--kafka", "h:1"], &["--postgres is needed", "FLAGMINT_POSTGRES"]),
        ("aggregator", &["--kafka", "h:1"], &["--clickhouse is needed", "FLAGMINT_CLICKHOUSE"]),
        ("query-api", &["--clickhouse", "http://h"], &["--postgres is needed"]),
        ("control-plane", &["--postgres", "postgres://h/d"], &["--kafka is needed"]),
        ("up", &["--kafka", "h:1"], &["--kafka needs --clickhouse"]),
        ("migrate", &[], &["--postgres, --clickhouse, or both"]),
        ("aggregator", &["--kafka", "u:s3cret@h:1", "--clickhouse", "http://h"], &["--kafka", "host:port"]),
        ("aggregator", &["--kafka", "h:1", "--clickhouse", "tcp://h:9000"], &["--clickhouse", "http[s]://"]),
        ("aggregator", &["--kafka", "h:1", "--clickhouse", "http://h", "--kafka-property", "acks"], &["NAME=VALUE"]),
        ("query-api", &["--clickhouse", "http://h", "--postgres", "no url: s3cret"], &["--postgres"]),
        ("migrate-data", &["--data-dir", "/nowhere", "--clickhouse", "http://127.0.0.1:1"], &["/nowhere"]),
    ];
    for (role, arguments, expected) in cases {
        check(flagmint(role).args(arguments), 2, expected);
    }
    let failpoint = &mut flagmint("aggregator");
    failpoint.args(["--kafka", "h:1", "--clickhouse", "http://h"]).env("FLAGMINT_FAILPOINT", "somewhere:1");
    check(failpoint, 2, &["FLAGMINT_FAILPOINT", "after_insert"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_away_or_say_no_are_named() {
    let place = Place::new().await;
    let with = |role: &str, option: &str, value: &str| place.role_but(role, &[(option, value)]);
    let (base, _) = place.postgres.rsplit_once('/').expect("a database");
    let away = format!("postgres://postgres:s3cret@{NOWHERE}/d");
    check(&mut with("control-plane", "--postgres", &away), 3, &["--postgres"]);
    check(&mut with("control-plane", "--postgres", &format!("{base}/nowhere")), 2, &["create the database"]);
    check(&mut with("aggregator", "--clickhouse", &format!("http://{NOWHERE}")), 3, &[NOWHERE]);
    check(&mut with("query-api", "--clickhouse", &place.clickhouse), 2, &["flagmint migrate"]);
    place.migrate();
    let stranger = place.clickhouse.replacen("://", "://nobody:s3cret@", 1);
    check(&mut with("aggregator", "--clickhouse", &stranger), 2, &["--clickhouse"]);
    check(&mut with("query-api", "--postgres", &away), 3, &["--postgres"]);
    check(&mut with("aggregator", "--kafka", NOWHERE), 3, &[NOWHERE]);
    check(&mut with("aggregator", "--kafka-property", "acks=1"), 2, &["acks"]);
    check(&mut with("evaluator", "--postgres", &away), 3, &["Postgres", "no copy of the configuration"]);
}
