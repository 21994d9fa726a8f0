//! The data plane over HTTP: routes, CORS, the errors clients read.

mod admission;
mod call;
mod context;
mod cors;
pub mod error;
mod evaluate;
mod identity;
mod rate;
mod received;

pub use rate::RateWindow;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use metrics::Histogram;
use tower::util::MapResponseLayer;
use utoipa::OpenApi;

use crate::directory::Directory;

/// What every data-plane handler needs.
#[derive(Clone)]
pub struct DataPlane {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<Directory>,
    bypass_token: Option<String>,
    calls: call::CallIds,
    request_us: Histogram,
    decision_ns: Histogram,
}

impl DataPlane {
    /// `bypass_token`: requests that carry it in `x-bypass-rate-limit` skip the rate limit. `call_seed`: random, so that
    /// call ids of two processes differ.
    #[must_use]
    pub fn new(directory: Arc<Directory>, bypass_token: Option<String>, call_seed: u64) -> Self {
        let bypass_token = bypass_token.filter(|token| !token.is_empty());
        Self {
            inner: Arc::new(Inner {
                directory,
                bypass_token,
                calls: call::CallIds::new(call_seed),
                request_us: metrics::histogram!("flagmint_evaluator_request_us"),
                decision_ns: metrics::histogram!("flagmint_evaluator_decision_ns"),
            }),
        }
    }

    /// Shows an answered call in the process metrics.
    fn observe(&self, latency_us: u32, evaluation_ns: u32, decisions: usize) {
        self.inner.request_us.record(f64::from(latency_us));
        self.inner.decision_ns.record(f64::from(evaluation_ns) / decisions.max(1) as f64);
    }

    /// The configuration in force.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.inner.directory
    }
}

/// The routes of the data plane.
pub fn router(plane: DataPlane) -> Router {
    let evaluate = post(evaluate::evaluate).options(cors::preflight);
    Router::new()
        .route("/evaluator/evaluate", evaluate.clone())
        // Go with default settings appends its path twice.
        .route("/evaluator/evaluate/evaluator/evaluate", evaluate)
        .layer(MapResponseLayer::new(cors::allow))
        .with_state(plane)
}

/// The OpenAPI description of the data plane.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(evaluate::evaluate))]
struct Document;
