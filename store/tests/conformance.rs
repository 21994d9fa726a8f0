//! The Parquet store does what every rollup store must.

use std::path::Path;

use flagmint_store::conformance::{Backend, run};
use flagmint_store::parquet::{Options, ParquetStore};
use tempfile::TempDir;

struct Directory(TempDir);

impl Backend for Directory {
    type Store = ParquetStore;

    async fn open(&self) -> ParquetStore {
        let path: &Path = self.0.path();
        ParquetStore::open(path, &Options::default()).expect("the directory can be opened")
    }

    async fn settle(&self, store: &ParquetStore, now_us: i64) {
        store.maintain(now_us).await.expect("maintenance succeeds");
    }
}

#[tokio::test]
async fn parquet_store_conforms() {
    let fresh = || Directory(TempDir::new().expect("a temporary directory"));
    // The last one once found that no rows gave an empty sketch instead of no row.
    for seed in [0, 1, 2, 5_238_447_350_926_254_132] {
        run(fresh, seed).await;
    }
    run(fresh, rand::random()).await;
}
