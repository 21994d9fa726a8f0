//! The ClickHouse store does what every rollup store must.

use flagmint_store::clickhouse::{ClickHouseStore, Options};
use flagmint_store::conformance::{Backend, run};

use crate::support;

struct Database(Options);

impl Backend for Database {
    type Store = ClickHouseStore;

    async fn open(&self) -> ClickHouseStore {
        support::store(&self.0).await
    }

    async fn settle(&self, store: &ClickHouseStore, now_us: i64) {
        store.maintain(now_us).await.expect("maintenance succeeds");
    }
}

#[tokio::test]
async fn clickhouse_store_conforms() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    run(|| Database(support::database()), seed.unwrap_or_else(rand::random)).await;
}
