//! The schema: whether a server has it in this program's version, and bringing it there.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::Client;
use super::ddl::{Layout, MIGRATIONS, Migration};
use super::question::literal;
use crate::StoreError;
use crate::limits::{MIGRATION_LOCK_STALE_S, MIGRATION_WAIT};

/// The oldest ClickHouse that these statements were tried on has 26.7; what they use is in all since this one.
const OLDEST: (u32, u32) = (25, 8);

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    age_s: u64,
}

/// Refuses a server that is too old.
pub(super) async fn check_server(client: &Client) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let rows: Vec<Version> = client.records("SELECT version() AS `version`").await?;
    rows.iter().try_for_each(|row| check_version(&row.version))
}

fn check_version(version: &str) -> Result<(), StoreError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= OLDEST {
        return Ok(());
    }
    let (year, month) = OLDEST;
    Err(StoreError::Fatal(format!("ClickHouse {version} is too old: upgrade it to {year}.{month} or later")))
}

/// Refuses a database whose schema is not this program's.
pub(super) async fn check_schema(client: &Client, database: &str) -> Result<(), StoreError> {
    let newest = MIGRATIONS.len() as u64;
    match version(client, database).await? {
        Some(found) if found == newest => Ok(()),
        Some(found) if found > newest => Err(newer(found, newest)),
        Some(found) => Err(StoreError::Fatal(format!(
            "the schema of ClickHouse database {database} is of version {found}, this program needs {newest}: run `flagmint migrate`"
        ))),
        None => Err(StoreError::Fatal(format!(
            "ClickHouse has no database {database} with tables of ours: run `flagmint migrate`"
        ))),
    }
}

fn newer(found: u64, newest: u64) -> StoreError {
    StoreError::Fatal(format!(
        "the schema in ClickHouse is of version {found}, this program knows those up to {newest}: run the program that \
         migrated it, or a later one"
    ))
}

/// The number of the last migration; `None` if there never was one.
async fn version(client: &Client, database: &str) -> Result<Option<u64>, StoreError> {
    let exists = format!(
        "SELECT count() AS `count` FROM system.tables WHERE database = {} AND name = 'migrations'",
        literal(database.as_bytes())
    );
    if client.records::<Count>(&exists).await?.iter().all(|row| row.count == 0) {
        return Ok(None);
    }
    let sql = "SELECT toUInt64(max(`version`)) AS `count` FROM `migrations`";
    let rows = client.in_database(database).records::<Count>(sql).await?;
    Ok(rows.first().map(|row| row.count).filter(|version| *version > 0))
}

/// Creates the database and applies what is missing, one program at a time.
pub(super) async fn migrate(client: &Client, layout: &Layout) -> Result<(), StoreError> {
    check_server(client).await?;
    let (database, newest) = (layout.database(), MIGRATIONS.len() as u64);
    match version(client, database).await? {
        Some(found) if found > newest => return Err(newer(found, newest)),
        Some(found) if found == newest => return Ok(()),
        _ => {}
    }
    client.execute(&format!("CREATE DATABASE IF NOT EXISTS `{database}` {}", layout.on_cluster())).await?;
    let own = client.in_database(database);
    let lock = Lock::take(&own, database).await?;
    let applied = apply(&own, layout).await;
    lock.release(&own).await;
    applied
}

async fn apply(client: &Client, layout: &Layout) -> Result<(), StoreError> {
    let journal = Migration::journal();
    for statement in layout.statements(&journal) {
        client.execute(&statement).await?;
    }
    let found = version(client, layout.database()).await?.unwrap_or(0);
    for migration in MIGRATIONS.iter().filter(|migration| u64::from(migration.version) > found) {
        tracing::info!(migration = migration.name, "applying a migration to ClickHouse");
        // Each statement can be repeated: a program that dies in between leaves nothing that the next one stumbles over.
        for statement in layout.statements(migration) {
            client.execute(&statement).await?;
        }
        let (version, name) = (migration.version, literal(migration.name.as_bytes()));
        client.execute(&format!("INSERT INTO `migrations` (`version`, `name`) SELECT {version}, {name}")).await?;
    }
    Ok(())
}

/// A table that only one can create: the one with the highest number is held.
struct Lock {
    name: String,
}

const LOCK: &str = "migration_lock_";

/// How ClickHouse says that somebody was quicker.
const TABLE_EXISTS: &str = "Code: 57.";

impl Lock {
    async fn take(client: &Client, database: &str) -> Result<Self, StoreError> {
        let deadline = Instant::now() + MIGRATION_WAIT;
        loop {
            let held = Self::held(client, database).await?;
            let free = held.iter().all(|lock| lock.age_s > MIGRATION_LOCK_STALE_S);
            if free {
                let number = |lock: &Named| lock.name.strip_prefix(LOCK).and_then(|n| n.parse::<u64>().ok());
                let next = held.iter().filter_map(number).max().unwrap_or(0) + 1;
                let name = format!("{LOCK}{next}");
                // Without IF NOT EXISTS: of several that try, one succeeds.
                let created = client.execute(&format!("CREATE TABLE `{name}` (`held` UInt8) ENGINE = Memory")).await;
                if let Err(error) = created {
                    if !error.to_string().contains(TABLE_EXISTS) {
                        return Err(error);
                    }
                } else {
                    for old in held {
                        tracing::warn!(lock = old.name, "a program that migrated ClickHouse never finished; going on");
                        client.execute(&format!("DROP TABLE IF EXISTS `{}`", old.name)).await?;
                    }
                    return Ok(Self { name });
                }
            }
            if Instant::now() > deadline {
                return Err(StoreError::Retry(format!(
                    "another program is migrating ClickHouse database {database}; if none is, drop its tables {LOCK}*"
                )));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn held(client: &Client, database: &str) -> Result<Vec<Named>, StoreError> {
        let sql = format!(
            "SELECT name, toUInt64(dateDiff('second', metadata_modification_time, now())) AS age_s FROM system.tables \
             WHERE database = {} AND startsWith(name, '{LOCK}')",
            literal(database.as_bytes())
        );
        client.records(&sql).await
    }

    async fn release(self, client: &Client) {
        if let Err(error) = client.execute(&format!("DROP TABLE IF EXISTS `{}`", self.name)).await {
            tracing::warn!(%error, "the lock of a migration stays for some minutes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused() {
        for good in ["25.8.1.1", "26.7.2.1", "100.1"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["25.7.9", "24.12.1.1", "nonsense", ""] {
            let error = check_version(bad).expect_err(bad).to_string();
            assert!(error.contains("too old: upgrade it to 25.8 or later"), "{error}");
        }
    }
}
