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
    for seed in 0..3 {
        run(fresh, seed).await;
    }
    run(fresh, rand::random()).await;
}
