//! The data plane over HTTP: routes, CORS, the errors clients read.

mod admission;
mod call;
mod client_events;
mod config;
mod config_fetch;
mod config_stream;
mod context;
mod context_post;
mod cors;
pub mod error;
mod evaluate;
pub mod events;
mod forwarded;
mod handshake;
mod identity;
mod members;
pub mod message;
pub(crate) mod ofrep;
mod qa;
mod query;
pub mod quota;
mod rate;
mod received;
mod refusals;
mod settings;
mod socket;
mod stream;
mod websocket;

pub(crate) use call::Call;
pub use error::BadKey;
pub(crate) use error::DataPlaneError;
pub(crate) use identity::Identity;
pub use rate::{RateWindow, minute_of};
pub(crate) use received::Received;
pub use settings::Settings;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use metrics::Histogram;
use tokio::sync::Semaphore;
use tower::util::MapResponseLayer;
use utoipa::OpenApi;

use crate::config_sync::clock::Clock;
use crate::directory::Directory;
use crate::limits::LATE_CLOSES_MAX;
use crate::peers::{self, Peers};
use crate::session::Sessions;
use crate::session::used::UsedSessions;
use crate::streams::Streams;

/// What every data-plane handler needs.
#[derive(Clone)]
pub struct DataPlane {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<Directory>,
    bypass_token: Option<String>,
    calls: call::CallIds,
    sessions: Sessions,
    used_sessions: UsedSessions,
    streams: Arc<Streams>,
    peers: Peers,
    late_closes: Semaphore,
    heartbeat_interval: Duration,
    ping_interval: Duration,
    /// For leases.
    clock: Clock,
    lease_interval: Duration,
    has_qa_routes: bool,
    has_ofrep: bool,
    repeats: client_events::Repeats,
    request_us: Histogram,
    decision_ns: Histogram,
}

impl DataPlane {
    /// A data plane on this configuration.
    #[must_use]
    pub fn new(directory: Arc<Directory>, settings: Settings) -> Self {
        let Settings { secret, address, connections_per_key_max, .. } = &settings;
        let streams = Streams::new(Arc::clone(&directory), secret, address.clone(), *connections_per_key_max);
        Self {
            inner: Arc::new(Inner {
                directory,
                bypass_token: settings.bypass_token.filter(|token| !token.is_empty()),
                calls: call::CallIds::new(settings.call_seed),
                sessions: Sessions::new(&settings.secret),
                used_sessions: UsedSessions::new(settings.claims),
                streams: Arc::new(streams),
                peers: Peers::new(&settings.secret),
                late_closes: Semaphore::new(LATE_CLOSES_MAX),
                heartbeat_interval: settings.heartbeat_interval,
                ping_interval: settings.ping_interval,
                clock: Clock::default(),
                lease_interval: settings.lease_interval,
                has_qa_routes: settings.qa_routes,
                has_ofrep: settings.ofrep,
                repeats: client_events::Repeats::default(),
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

    /// Ends all streams and sockets, so that their clients go to other instances; no new ones are opened.
    pub async fn drain(&self) {
        self.inner.streams.drain().await;
    }

    /// How many streams and sockets are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.inner.streams.count()
    }

    /// Open streams and sockets.
    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.inner.streams
    }

    /// Seals and opens session ids.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// Which session ids were used.
    pub(crate) fn used_sessions(&self) -> &UsedSessions {
        &self.inner.used_sessions
    }

    fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        self.inner.heartbeat_interval
    }

    pub(crate) fn ping_interval(&self) -> Duration {
        self.inner.ping_interval
    }

    /// Places for sockets that are refused late.
    fn late_closes(&self) -> &Semaphore {
        &self.inner.late_closes
    }
}

/// The routes of the data plane.
pub fn router(plane: DataPlane) -> Router {
    let evaluate = post(evaluate::evaluate).options(cors::preflight);
    let qa_routes = if plane.inner.has_qa_routes { qa::router() } else { Router::new() };
    Router::new()
        .route("/evaluator/evaluate", evaluate.clone())
        // Go with default settings appends its path twice.
        .route("/evaluator/evaluate/evaluator/evaluate", evaluate)
        .route("/auth/asl-handshake", post(handshake::handshake).options(cors::preflight))
        .route("/ws/sdk", get(websocket::websocket).options(cors::preflight))
        .route("/evaluator/v2/flags/stream", get(stream::stream).options(cors::preflight))
        .route("/evaluator/v2/flags/context", post(context_post::post_context).options(cors::preflight))
        .route(peers::PATH, post(forwarded::forwarded))
        .route("/ofrep/v1/evaluate/flags", post(ofrep::all).options(cors::preflight))
        .route("/ofrep/v1/evaluate/flags/{key}", post(ofrep::one).options(cors::preflight))
        .route("/evaluator/config", get(config::config).options(cors::preflight))
        .route("/evaluator/events", post(client_events::client_events).options(cors::preflight))
        .route("/evaluator/v2/flags/config", get(config_fetch::config_fetch).options(cors::preflight))
        .merge(qa_routes)
        .layer(MapResponseLayer::new(|response| cors::allow(refusals::count(response))))
        .with_state(plane)
}

/// The OpenAPI description of the data plane.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(
    evaluate::evaluate,
    ofrep::all,
    ofrep::one,
    handshake::handshake,
    websocket::websocket,
    stream::stream,
    context_post::post_context,
    config::config,
    config_fetch::config_fetch,
    client_events::client_events
))]
struct Document;
