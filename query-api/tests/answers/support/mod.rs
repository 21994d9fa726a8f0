//! An installation for tests: a database and a store of its own each, filled with the same world.

pub mod events;
pub mod naive;
pub mod postgres;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use chrono::{DateTime, Utc};
use flagmint_query_api::{Directory, QueryApi};
use flagmint_store::parquet::{Options, ParquetStore};
use flagmint_store::{Emission, Position, RollupStore};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;

use events::Event;

/// The clock of all tests.
pub const NOW: &str = "2026-03-15T10:20:30.500Z";

/// Ids of the world, the same in every test.
pub mod ids {
    use uuid::Uuid;

    pub const ORGANIZATION: Uuid = Uuid::from_u128(0xA);
    pub const OTHER_ORGANIZATION: Uuid = Uuid::from_u128(0xB);
    pub const PROJECT: Uuid = Uuid::from_u128(0x10);
    pub const EMPTY_PROJECT: Uuid = Uuid::from_u128(0x11);
    pub const OTHER_PROJECT: Uuid = Uuid::from_u128(0x1B);
    pub const LIVE: Uuid = Uuid::from_u128(0x20);
    pub const STAGING: Uuid = Uuid::from_u128(0x21);
    pub const EMPTY_LIVE: Uuid = Uuid::from_u128(0x22);
    pub const OTHER_LIVE: Uuid = Uuid::from_u128(0x2B);
    /// Boolean, with analytics.
    pub const CHECKOUT: Uuid = Uuid::from_u128(0x30);
    /// String, archived.
    pub const BANNER: Uuid = Uuid::from_u128(0x31);
    /// Deleted; its history stays.
    pub const OLD: Uuid = Uuid::from_u128(0x32);
    /// Without analytics.
    pub const HIDDEN: Uuid = Uuid::from_u128(0x33);
    pub const OTHER_FLAG: Uuid = Uuid::from_u128(0x3B);
    pub const ON: Uuid = Uuid::from_u128(0x40);
    pub const OFF: Uuid = Uuid::from_u128(0x41);
}

/// A running API and what it was filled with.
pub struct World {
    pub events: Vec<Event>,
    pub store: Arc<ParquetStore>,
    router: Router,
    _dir: TempDir,
}

impl World {
    /// A world whose events are made from `seed`.
    pub async fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let url = postgres::database().await;
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(ParquetStore::open(dir.path(), &Options::default()).unwrap());
        let events = events::generate(seed);
        emit(&store, events::cells(&events)).await;
        let now: DateTime<Utc> = NOW.parse().unwrap();
        let api = QueryApi::new(Arc::clone(&store), Directory::connect(&url).unwrap()).with_clock(move || now);
        Self { events, store, router: flagmint_query_api::router(api), _dir: dir }
    }

    /// GET as a user of an organization; status and body.
    pub async fn get_as(&self, organization: Uuid, role: &str, path: &str) -> (StatusCode, Value) {
        let token = token(organization, role, NOW.parse::<DateTime<Utc>>().unwrap().timestamp() + 900);
        self.get_with(&format!("Bearer {token}"), path).await
    }

    /// GET with any authorization.
    pub async fn get_with(&self, authorization: &str, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).header("authorization", authorization).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// `data` of a 200 that a viewer gets.
    pub async fn data(&self, path: &str) -> Value {
        let (status, mut body) = self.get_as(ids::ORGANIZATION, "viewer", path).await;
        assert_eq!(
            (status, &body["statusCode"], &body["message"]),
            (StatusCode::OK, &json!(200), &json!("OK")),
            "{path} {body}"
        );
        body["data"].take()
    }
}

/// Puts cells into a store as one tick of the aggregator.
pub async fn emit(store: &ParquetStore, cells: Vec<(flagmint_schemas::rollup::Table, arrow::array::RecordBatch)>) {
    let now_us = NOW.parse::<DateTime<Utc>>().unwrap().timestamp_micros();
    let position =
        Position { epoch: 1, partition: 0, chunk: 0, next_offset: 2_000, complete_through_us: now_us - 300_000 };
    store.upsert(Emission { cells, positions: vec![position] }).await.unwrap();
}

/// An access token as the control plane signs it.
pub fn token(organization: Uuid, role: &str, exp: i64) -> String {
    let claims =
        json!({"sub": Uuid::nil(), "org": organization, "role": role, "sid": Uuid::nil(), "exp": exp, "iat": 0});
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&postgres::SECRET)).unwrap()
}
