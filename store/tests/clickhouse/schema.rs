//! The schema is made once by whoever comes first, refused if it is another, and usable with the rights that the documentation grants.

use flagmint_schemas::rollup::Table;
use flagmint_store::clickhouse::{ClickHouseStore, Options, migrate};
use flagmint_store::{Period, RollupStore, StoreError};
use futures::future::join_all;

use crate::support::{self, START_US, counts, emission, position, question, sql};

fn fatal(result: Result<impl std::fmt::Debug, StoreError>, expected: &[&str]) {
    match result {
        Err(StoreError::Fatal(reason)) => {
            assert!(expected.iter().all(|part| reason.contains(part)), "{reason} says not all of {expected:?}");
        }
        other => panic!("{other:?} instead of {expected:?}"),
    }
}

#[tokio::test]
async fn many_migrate_at_once_and_one_does() {
    let options = support::database();
    fatal(ClickHouseStore::open(&options).await, &["no database test_", "flagmint migrate"]);
    for result in join_all((0..6).map(|_| migrate(&options))).await {
        result.expect("each finds or makes the schema");
    }
    assert_eq!(sql(&options, "SELECT count(), max(version) FROM migrations").await, "2\t2");
    let locks = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE 'migration_lock%'";
    assert_eq!(sql(&options, locks).await, "0");
    ClickHouseStore::open(&options).await.expect("the schema is there");
}

#[tokio::test]
async fn a_migration_that_died_is_finished() {
    let options = support::database();
    migrate(&options).await.expect("a schema");
    for statement in ["DROP TABLE usage_day SYNC", "TRUNCATE TABLE migrations"] {
        assert_eq!(sql(&options, statement).await, "");
    }
    fatal(ClickHouseStore::open(&options).await, &["flagmint migrate"]);
    migrate(&options).await.expect("what is missing is made");
    assert_eq!(sql(&options, "SELECT count() FROM usage_day").await, "0");
}

#[tokio::test]
async fn other_versions_are_refused() {
    let options = support::database();
    migrate(&options).await.expect("a schema");
    sql(&options, "INSERT INTO migrations (version, name) VALUES (7, 'later')").await;
    for result in [ClickHouseStore::open(&options).await.map(|_| ()), migrate(&options).await] {
        fatal(result, &["version 7", "up to 2", "a later one"]);
    }
}

#[tokio::test]
async fn wrong_servers_are_told() {
    let (_, host) = support::url().rsplit_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a user");
    let options = |url: &str| Options::from_url(url).expect("a URL");
    let nobody = options(&format!("http://nobody:secret@{host}/x"));
    fatal(migrate(&nobody).await, &["Authentication failed", "Check user and password"]);
    // A port where nothing listens: one that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let away = migrate(&options(&format!("http://{free}"))).await;
    assert!(matches!(&away, Err(StoreError::Retry(reason)) if reason.contains("Is it running there")), "{away:?}");
    // Something that speaks, but no HTTP.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = other.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in other.incoming().flatten() {
            std::io::Write::write_all(&mut &stream, b"220 smtp\r\n").unwrap_or_default();
        }
    });
    let wrong = migrate(&options(&format!("http://{place}"))).await;
    assert!(matches!(&wrong, Err(StoreError::Retry(reason)) if reason.contains("HTTP port")), "{wrong:?}");
}

/// The users of schemas/clickhouse/users.sql, as dev/servers/clickhouse-users sets them up: of the database `flagmint`.
#[tokio::test]
async fn documented_rights_are_enough_and_no_more() {
    let (_, host) = support::url().rsplit_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a user");
    let user = |name: &str| Options::from_url(&format!("http://{name}:{name}@{host}/flagmint")).expect("a URL");
    migrate(&user("flagmint_owner")).await.expect("the owner creates tables");
    fatal(
        migrate(&user("flagmint_reader").with_database("flagmint_other")).await,
        &["Not enough privileges", "users.sql"],
    );
    let writer = ClickHouseStore::open(&user("flagmint_writer")).await.expect("the writer opens");
    let cells = [(1, START_US, 5)];
    writer.upsert(emission(0, &cells, Some(position(100, START_US + 3 * support::DAY_US)))).await.expect("it writes");
    writer.maintain(START_US).await.expect("it rewrites and drops");
    let reader = ClickHouseStore::open(&user("flagmint_reader")).await.expect("the reader opens");
    assert_eq!(counts(&reader, Period::Whole).await.into_values().sum::<u64>(), 5);
    fatal(reader.upsert(emission(0, &cells, None)).await, &["Not enough privileges", "users.sql"]);
    let foreign = support::database();
    migrate(&foreign).await.expect("a schema of others");
    let peek = user("flagmint_reader").with_database(&support::name_of(&foreign));
    assert!(ClickHouseStore::open(&peek).await.is_err(), "another database can be read");
}

#[tokio::test]
async fn a_table_that_is_gone_is_told() {
    let options = support::database();
    let store = support::store(&options).await;
    sql(&options, "DROP TABLE latency SYNC").await;
    fatal(store.query(&question(Table::Latency, Period::Whole)).await, &["flagmint migrate"]);
}
