//! A process under construction, to which pieces add what they serve, and the running process it becomes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use flagmint_evaluator::serve::{Limits, listen, serve};
use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use utoipa::openapi::OpenApi;

use super::descriptors;
use super::health::{Check, Health};
use super::http::{self, Own};
use super::openapi;
use crate::exit::Failure;
use crate::limits::DRAIN_REQUESTS_MAX;
use crate::runtimes::answered_by;
use crate::telemetry;

/// Where a process serves.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Everything.
    pub listen: SocketAddr,
    /// What it says about itself, besides.
    pub admin_listen: Option<SocketAddr>,
    /// What each of the two bears.
    pub limits: Limits,
}

/// How a piece ends.
type Drain = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), Failure>> + Send>;

/// A process that does not serve yet. Its ports are taken already, so that it fails early if it cannot have them.
pub struct Assembly {
    requests: Handle,
    listener: TcpListener,
    admin: Option<TcpListener>,
    limits: Limits,
    metrics: PrometheusHandle,
    router: Router,
    openapi: Option<OpenApi>,
    health: Health,
    ends: Vec<Drain>,
    drains: Vec<Drain>,
}

impl Assembly {
    /// Takes the ports and starts collecting metrics; what it serves is read and, unless said otherwise, answered by `requests`.
    ///
    /// # Errors
    /// If a port cannot be had.
    pub fn new(addresses: Addresses, requests: Handle) -> Result<Self, Failure> {
        let metrics = telemetry::metrics()?;
        // Listeners belong to the runtime that was entered when they were made.
        let entered = requests.enter();
        let listener = bind(addresses.listen, "--listen")?;
        let admin = match addresses.admin_listen {
            Some(address) => Some(bind(address, "--admin-listen")?),
            None => None,
        };
        drop(entered);
        let connections_max = addresses.limits.connections_max.min(descriptors::connections_max());
        let health = Health::default();
        Ok(Self {
            requests,
            listener,
            admin,
            limits: Limits { connections_max, ..addresses.limits },
            metrics,
            router: Router::new(),
            openapi: None,
            health,
            ends: Vec::new(),
            drains: Vec::new(),
        })
    }

    /// Where it will serve.
    ///
    /// # Errors
    /// If the address taken cannot be read.
    pub fn address(&self) -> Result<SocketAddr, Failure> {
        self.listener.local_addr().map_err(|error| Failure::resource("--listen", error))
    }

    /// The metrics, for who condenses or reads them.
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Serves these routes, too.
    pub fn serve(&mut self, router: Router, openapi: OpenApi) {
        self.router = std::mem::take(&mut self.router).merge(router);
        match &mut self.openapi {
            Some(document) => document.merge(openapi),
            None => self.openapi = Some(openapi),
        }
    }

    /// Serves these routes, too, but answers them in the background: they may take a processor's time.
    pub fn serve_in_background(&mut self, router: Router, openapi: OpenApi) {
        self.serve(answered_by(Handle::current(), router), openapi);
    }

    /// Without this dependency the process cannot do its job: it is not ready then.
    pub fn need(&mut self, check: Check) {
        self.health.needed.push(check);
    }

    /// The state of this dependency is told, but does not make the process unready.
    pub fn report(&mut self, check: Check) {
        self.health.reported.push(check);
    }

    /// Does this first of all when the process ends, before requests are waited for: ends what would otherwise not end by itself.
    pub fn before_drain<F>(&mut self, end: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.ends.push(Box::new(move || Box::pin(end())));
    }

    /// Does this when the process ends, before what was said here earlier: what was started last ends first.
    pub fn on_drain<F>(&mut self, drain: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.drains.push(Box::new(move || Box::pin(drain())));
    }

    /// Ends the pieces started so far, as after a drain: for a start that fails later on.
    async fn abandon(self) {
        if let Err(error) = drain_all(self.drains).await {
            warn!(%error, "what was started already could not be ended in order");
        }
    }

    /// Starts serving.
    ///
    /// # Errors
    /// If the address taken cannot be read.
    pub fn start(self) -> Result<Process, Failure> {
        let address = self.address()?;
        let openapi = openapi::document(self.openapi.unwrap_or_default());
        let own = Own { metrics: self.metrics.clone(), health: Arc::new(self.health), openapi: Arc::new(openapi) };
        let requests = CancellationToken::new();
        let router = http::own_routes(own.clone()).merge(self.router);
        let reader = &self.requests;
        let serve =
            |listener, router| reader.spawn(serve(listener, http::finish(router), self.limits, requests.clone()));
        let mut servers = vec![serve(self.listener, router)];
        if let Some(listener) = self.admin {
            servers.push(serve(listener, http::own_routes(own)));
        }
        info!(%address, connections_max = self.limits.connections_max, "serving");
        Ok(Process { address, metrics: self.metrics, requests, servers, ends: self.ends, drains: self.drains })
    }
}

/// A process that serves.
pub struct Process {
    address: SocketAddr,
    metrics: PrometheusHandle,
    requests: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    ends: Vec<Drain>,
    drains: Vec<Drain>,
}

impl Process {
    /// Builds a process with `pieces`; those started before one that fails are ended in order.
    ///
    /// # Errors
    /// If a resource cannot be had.
    pub async fn build<T>(
        addresses: Addresses,
        requests: Handle,
        pieces: impl AsyncFnOnce(&mut Assembly) -> Result<T, Failure>,
    ) -> Result<(Self, T), Failure> {
        let mut assembly = Assembly::new(addresses, requests)?;
        match pieces(&mut assembly).await {
            Ok(built) => Ok((assembly.start()?, built)),
            Err(failure) => {
                assembly.abandon().await;
                Err(failure)
            }
        }
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The metrics.
    pub fn metrics(&self) -> &PrometheusHandle {
        &self.metrics
    }

    /// Stops accepting, then ends each piece.
    ///
    /// # Errors
    /// If something could not be stored.
    pub async fn drain(self) -> Result<(), Failure> {
        drain_all(self.ends).await?;
        self.requests.cancel();
        for server in self.servers {
            if tokio::time::timeout(DRAIN_REQUESTS_MAX, server).await.is_err() {
                warn!("open requests were cut off by the drain");
            }
        }
        drain_all(self.drains).await?;
        info!("drained");
        Ok(())
    }
}

/// All of them, the last first, whatever comes of each; the first failure is told.
async fn drain_all(drains: Vec<Drain>) -> Result<(), Failure> {
    let mut failed = Ok(());
    for drain in drains.into_iter().rev() {
        let drained = drain().await;
        if let (Err(failure), Err(_)) = (&drained, &failed) {
            warn!(%failure, "this could not be drained either");
        }
        failed = failed.and(drained);
    }
    failed
}

/// Returns on SIGTERM or Ctrl-C.
pub async fn interrupted() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        warn!("SIGTERM cannot be caught; only Ctrl-C drains");
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| Failure::resource(format!("{option} {address}"), error))
}
