//! All roles in one process: what is started, in which order, and how it is drained.
//!
//! Order: the directory's lock, Postgres, migrations and first user, rollups, aggregator, recorder, configuration,
//! listener. The drain goes the other way round for what carries decisions: no more requests, then the recorder
//! appends what it holds, then the aggregator folds what the log holds, then the rollups are written.

mod descriptors;
mod first_user;
mod health;
mod http;
mod maintenance;
mod metering;
mod openapi;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use flagmint_aggregator::{self as aggregator, Failpoint};
use flagmint_control_plane::{self as control_plane, ControlPlane};
use flagmint_evaluator::configuration::ConfigurationSource;
use flagmint_evaluator::directory::Directory;
use flagmint_evaluator::http::{DataPlane, Settings as PlaneSettings};
use flagmint_evaluator::limits::CLAIMS_MAX as SESSION_CLAIMS_MAX;
use flagmint_evaluator::serve::Limits;
use flagmint_ingest::Recorder;
use flagmint_log::{DecisionLog as _, LocalLog, LogError, Options as LogOptions};
use flagmint_query_api::{self as query_api, QueryApi};
use flagmint_schemas::ids::EnvironmentId;
use flagmint_store::parquet::ParquetStore;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit::Failure;
use crate::limits::DRAIN_REQUESTS_MAX;
use crate::options::UpOptions;
use crate::telemetry;
pub use first_user::FirstUser;
use health::Health;
use http::Own;

/// A running server.
pub struct Installation {
    address: SocketAddr,
    directory: Arc<Directory>,
    recorder: Recorder,
    store: Arc<ParquetStore>,
    metrics: PrometheusHandle,
    plane: DataPlane,
    requests: CancellationToken,
    followers: CancellationToken,
    folding: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    fold: JoinHandle<Result<(), aggregator::RunError>>,
    maintenance: JoinHandle<()>,
}

/// Opens the decision log, and with it takes the data directory.
///
/// # Errors
/// If another process holds it, naming that process, or it is damaged.
pub fn lock(options: &UpOptions) -> Result<LocalLog, Failure> {
    let log_directory = options.data_dir.join("log");
    LocalLog::open(LogOptions::new(&log_directory, options.log_partitions))
        .map_err(|error: LogError| Failure::resource(format!("data directory {}", options.data_dir.display()), error))
}

/// Whether a server could be started with these options.
///
/// # Errors
/// Naming the option that is wrong.
pub fn check(options: &UpOptions) -> Result<(), Failure> {
    if let Some(url) = &options.postgres {
        control_plane::connect(url).map_err(|error| Failure::Usage(format!("--postgres: {error}")))?;
    }
    FirstUser::of(options).map(|_| ())
}

impl Installation {
    /// Starts everything on the log and Postgres given.
    ///
    /// # Errors
    /// If a resource cannot be had.
    pub async fn start(
        options: &UpOptions,
        log: LocalLog,
        postgres: &str,
        first_user: &FirstUser,
    ) -> Result<Self, Failure> {
        let metrics = telemetry::metrics()?;
        let listener = bind(options.listen, "--listen")?;
        let address = listener.local_addr().map_err(|error| Failure::resource("--listen", error))?;
        let pool = prepare_postgres(postgres, first_user).await?;
        let log = Arc::new(log);
        let store = ParquetStore::open(&options.data_dir.join("rollups"), &flagmint_store::parquet::Options::default())
            .map_err(|error| Failure::resource("rollups", error))?;
        let store = Arc::new(store);

        let folding = CancellationToken::new();
        let (status, statuses) = watch::channel(aggregator::Status::default());
        let dead_letters = maintenance::write_dead_letters(options.data_dir.join("dead-letters.jsonl"));
        let settings =
            aggregator::Settings { failpoint: failpoint()?, ..aggregator::Settings::new(dead_letters, status) };
        let stop = folding.clone().cancelled_owned();
        let fold = tokio::spawn(aggregator::run(Arc::clone(&log), Arc::clone(&store), settings, stop));
        catch_up(&log, statuses.clone()).await?;
        let recorder = Recorder::start(Arc::clone(&log), recorder_settings(&options.data_dir))
            .map_err(|error| Failure::resource("recorder", error))?;
        let directory = Arc::new(Directory::new(recorder.clone()));
        let followers = CancellationToken::new();
        let source = ConfigurationSource::new(postgres).map_err(|error| Failure::resource("Postgres", error))?;
        source.load(&directory).await.map_err(|error| Failure::resource("Postgres", error))?;
        let plane = data_plane(options, &source, &directory, address, &followers).await?;
        tokio::spawn(source.follow(Arc::clone(&directory), followers.clone()));

        let (metered, writes) = tokio::sync::mpsc::channel(crate::limits::METERED_WRITES_MAX);
        tokio::spawn(metering::record(writes, recorder.clone()));
        let health =
            Arc::new(Health { directory: Arc::clone(&directory), recorder: recorder.clone(), aggregator: statuses });
        let own = Own { metrics: metrics.clone(), health, openapi: Arc::new(openapi::document()) };
        let names = query_api::Directory::connect(postgres).map_err(|error| Failure::resource("Postgres", error))?;
        let query = QueryApi::new(Arc::clone(&store), names);
        let control = ControlPlane::new(pool, control_plane::Settings::default(), Some(metered));
        let router = http::own_routes(own.clone())
            .merge(flagmint_evaluator::http::router(plane.clone()))
            .merge(control_plane::router(control))
            .merge(query_api::router(query));

        let requests = CancellationToken::new();
        let mut servers = vec![serve(listener, http::finish(router), requests.clone())];
        if let Some(admin) = options.admin_listen {
            let listener = bind(admin, "--admin-listen")?;
            servers.push(serve(listener, http::finish(http::own_routes(own)), requests.clone()));
        }
        let maintenance = tokio::spawn(maintenance::maintain(
            maintenance::Kept {
                log,
                store: Arc::clone(&store),
                metrics: metrics.clone(),
                retention: options.log_retention,
            },
            followers.clone(),
        ));
        info!(%address, "serving");
        Ok(Self {
            address,
            directory,
            recorder,
            store,
            metrics,
            plane,
            requests,
            followers,
            folding,
            servers,
            fold,
            maintenance,
        })
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Decisions that the recorder took since the start.
    pub fn recorded_decisions(&self) -> u64 {
        self.recorder.stats().recorded_decisions
    }

    /// Whether an environment's configuration with so many flags is in force.
    pub fn serves(&self, environment_id: &str, flags: usize) -> bool {
        let id: Option<EnvironmentId> = environment_id.parse().ok();
        id.and_then(|id| self.directory.flag_count(id)).is_some_and(|count| count >= flags)
    }

    /// Time in the evaluator per decision, nanoseconds: p50 and p99 of the last minutes.
    pub fn evaluation_ns(&self) -> [f64; 2] {
        let text = self.metrics.render();
        ["0.5", "0.99"].map(|quantile| {
            let name = format!("flagmint_evaluator_decision_ns{{quantile=\"{quantile}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
        })
    }

    /// Returns on SIGTERM or Ctrl-C.
    pub async fn interrupted(&self) {
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

    /// Stops accepting, then brings every recorded decision into the rollups.
    ///
    /// # Errors
    /// If something could not be stored.
    pub async fn drain(self) -> Result<(), Failure> {
        self.plane.drain().await;
        self.requests.cancel();
        for server in self.servers {
            if tokio::time::timeout(DRAIN_REQUESTS_MAX, server).await.is_err() {
                warn!("open requests were cut off by the drain");
            }
        }
        self.recorder.drain().await.map_err(|error| Failure::resource("recorder", error))?;
        self.folding.cancel();
        self.fold
            .await
            .map_err(|error| Failure::resource("aggregator", error))?
            .map_err(|error| Failure::resource("aggregator", error))?;
        self.followers.cancel();
        self.maintenance.await.map_err(|error| Failure::resource("maintenance", error))?;
        self.store.flush().await.map_err(|error| Failure::resource("rollups", error))?;
        info!("drained");
        Ok(())
    }
}

/// Waits until what the log held at the start is folded: before that, answers would lack what they had before the restart.
async fn catch_up(log: &LocalLog, mut statuses: watch::Receiver<aggregator::Status>) -> Result<(), Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::resource("aggregator", error);
    for partition in 0..log.partitions() {
        let end = log.bounds(partition).await.map_err(|error| refuse(&error))?.end;
        let is_there = |status: &aggregator::Status| {
            status.partition(partition).is_some_and(|found| found.emitted_offset >= end || found.is_stopped)
        };
        statuses.wait_for(is_there).await.map_err(|_| refuse(&"the fold ended at its start; its log line says why"))?;
    }
    Ok(())
}

/// Where tests have the fold end the process, if they do.
fn failpoint() -> Result<Failpoint, Failure> {
    let Ok(text) = std::env::var("FLAGMINT_FAILPOINT") else { return Ok(Failpoint::default()) };
    text.parse().map_err(|error| Failure::Usage(format!("FLAGMINT_FAILPOINT: {error}")))
}

fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    flagmint_evaluator::serve::listen(address).map_err(|error| Failure::resource(format!("{option} {address}"), error))
}

async fn prepare_postgres(url: &str, first_user: &FirstUser) -> Result<control_plane::Pool, Failure> {
    let refuse = |error: control_plane::DbError| Failure::resource("Postgres", error);
    let pool = control_plane::connect(url).map_err(refuse)?;
    control_plane::migrate(&pool).await.map_err(refuse)?;
    first_user.create(&pool).await?;
    Ok(pool)
}

/// The data plane, whose used sessions are shared through the database until `shutdown`.
async fn data_plane(
    options: &UpOptions,
    source: &ConfigurationSource,
    directory: &Arc<Directory>,
    address: SocketAddr,
    shutdown: &CancellationToken,
) -> Result<DataPlane, Failure> {
    let secret = source.secret().await.map_err(|error| Failure::resource("Postgres", error))?;
    let (claims, claimed) = tokio::sync::mpsc::channel(SESSION_CLAIMS_MAX);
    tokio::spawn(source.clone().share_sessions(claimed, shutdown.clone()));
    tokio::spawn(source.shared_rates().follow(Arc::clone(directory), shutdown.clone()));
    let settings = PlaneSettings {
        bypass_token: options.rate_limit_bypass_token.clone(),
        secret,
        claims: Some(claims),
        address: options.advertise.clone().or_else(|| (!address.ip().is_unspecified()).then(|| address.to_string())),
        qa_routes: options.qa_routes,
        ..PlaneSettings::default()
    };
    Ok(DataPlane::new(Arc::clone(directory), settings))
}

fn recorder_settings(data_dir: &Path) -> flagmint_ingest::Settings {
    flagmint_ingest::Settings { spool_directory: data_dir.join("spool"), ..flagmint_ingest::Settings::default() }
}

fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> JoinHandle<()> {
    let limits = Limits { connections_max: descriptors::connections_max(), ..Limits::default() };
    tokio::spawn(flagmint_evaluator::serve::serve(listener, router, limits, shutdown))
}
