//! A database per test, with the control plane's migrations and the names of the world.

use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection};

/// What access tokens are signed with.
pub const SECRET: [u8; 32] = [9; 32];

/// The environments' pseudonym key: bytes 0 to 31.
pub fn pseudonym_key() -> Vec<u8> {
    (0..32).collect()
}

const NAMES: &str = "
INSERT INTO organizations (id, name, plan_id)
SELECT id::uuid, name, (SELECT id FROM plans WHERE plans.name = plan) FROM (VALUES
    ('00000000-0000-0000-0000-00000000000a', 'Ours', 'Pro'),
    ('00000000-0000-0000-0000-00000000000b', 'Theirs', 'Custom')) o (id, name, plan);
INSERT INTO projects (id, organization_id, name, project_key) VALUES
    ('00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'Shop', 'shop'),
    ('00000000-0000-0000-0000-000000000011', '00000000-0000-0000-0000-00000000000a', 'Empty', 'empty'),
    ('00000000-0000-0000-0000-00000000001b', '00000000-0000-0000-0000-00000000000b', 'Theirs', 'theirs');
INSERT INTO environments (id, project_id, organization_id, name, slug, created_at) VALUES
    ('00000000-0000-0000-0000-000000000020', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'Live', 'live', '2026-01-01Z'),
    ('00000000-0000-0000-0000-000000000021', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'Staging', 'staging', '2026-01-02Z'),
    ('00000000-0000-0000-0000-000000000022', '00000000-0000-0000-0000-000000000011', '00000000-0000-0000-0000-00000000000a', 'Live', 'live', '2026-01-01Z'),
    ('00000000-0000-0000-0000-00000000002b', '00000000-0000-0000-0000-00000000001b', '00000000-0000-0000-0000-00000000000b', 'Live', 'live', '2026-01-01Z');
INSERT INTO flags (id, project_id, organization_id, key, name, type, analytics_enabled, archived_at, deleted_at) VALUES
    ('00000000-0000-0000-0000-000000000030', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'checkout', 'Checkout', 'boolean', true, NULL, NULL),
    ('00000000-0000-0000-0000-000000000031', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'banner', 'Banner', 'string', true, now(), NULL),
    ('00000000-0000-0000-0000-000000000032', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'old', 'Old', 'boolean', true, NULL, now()),
    ('00000000-0000-0000-0000-000000000033', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'hidden', 'Hidden', 'boolean', false, NULL, NULL),
    ('00000000-0000-0000-0000-00000000003b', '00000000-0000-0000-0000-00000000001b', '00000000-0000-0000-0000-00000000000b', 'theirs', 'Theirs', 'boolean', true, NULL, NULL);
INSERT INTO variations (id, flag_id, project_id, organization_id, key, name, value, is_default, order_index) VALUES
    ('00000000-0000-0000-0000-000000000040', '00000000-0000-0000-0000-000000000030', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'on', 'On', 'true', false, 1),
    ('00000000-0000-0000-0000-000000000041', '00000000-0000-0000-0000-000000000030', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'off', 'Off', 'false', true, 2),
    ('00000000-0000-0000-0000-000000000042', '00000000-0000-0000-0000-000000000030', '00000000-0000-0000-0000-000000000010', '00000000-0000-0000-0000-00000000000a', 'never', 'Never', 'false', false, 3);
INSERT INTO environment_snapshots (environment_id, project_id, organization_id, compiled, pseudonym_key_id, pseudonym_key)
SELECT id, project_id, organization_id, '{}', gen_random_uuid(), decode('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'hex')
FROM environments;
";

/// A new database; its URL.
pub async fn database() -> String {
    let server = std::env::var("FLAGMINT_TEST_POSTGRES")
        .expect("FLAGMINT_TEST_POSTGRES names no server: run the tests under dev/servers/with-postgres");
    let name = format!("query_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&server).await.unwrap();
    connection.execute(format!("CREATE DATABASE {name}").as_str()).await.unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    let url = format!("{base}/{name}");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/migrations");
    Migrator::new(migrations).await.unwrap().run(&mut connection).await.unwrap();
    let secret = sqlx::query("INSERT INTO installation (access_token_secret) VALUES ($1)").bind(SECRET.as_slice());
    connection.execute(secret).await.unwrap();
    connection.execute(NAMES).await.unwrap();
    url
}
