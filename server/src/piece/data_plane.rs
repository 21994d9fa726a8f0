//! The evaluation tier: flags decided over HTTP, each decision recorded in the log, configuration followed from Postgres.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use flagmint_evaluator::configuration::{ConfigurationSource, CopyError, LastGood};
use flagmint_evaluator::directory::Directory;
use flagmint_evaluator::http::{self, DataPlane};
use flagmint_evaluator::limits::CLAIMS_MAX;
use flagmint_ingest::{Health as RecorderHealth, Recorder};
use flagmint_log::DecisionLog;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::health::check_now;
use super::process::Assembly;
use crate::exit::Failure;
use crate::limits::DRAIN_RECORDER_MAX;
use crate::options::roles::DataPlaneOptions;

/// What the data plane is started with.
pub struct Settings {
    /// Where batches wait that the log does not take.
    pub spool_directory: PathBuf,
    /// Where the configuration is kept for a start with Postgres away; `None` if such a start is none.
    pub last_good: Option<PathBuf>,
    /// URL of Postgres.
    pub postgres: String,
    /// How applications are answered.
    pub options: DataPlaneOptions,
}

/// A running data plane.
pub struct Piece {
    /// The configuration in force.
    pub directory: Arc<Directory>,
    /// Takes decisions.
    pub recorder: Recorder,
}

/// Starts the recorder alone: for processes that record without deciding.
///
/// # Errors
/// If its spool cannot be used.
pub fn record<L: DecisionLog>(assembly: &mut Assembly, log: Arc<L>, spool: PathBuf) -> Result<Recorder, Failure> {
    let settings = flagmint_ingest::Settings {
        spool_directory: spool,
        drain_timeout: DRAIN_RECORDER_MAX,
        ..flagmint_ingest::Settings::default()
    };
    let recorder = Recorder::start(log, settings).map_err(|error| Failure::resource("recorder", error))?;
    let draining = recorder.clone();
    assembly.on_drain(async move || draining.drain().await.map_err(|error| Failure::resource("recorder", error)));
    let checked = recorder.clone();
    assembly.report(check_now("log", move || log_state(&checked)));
    Ok(recorder)
}

/// Starts deciding and recording.
///
/// # Errors
/// If configuration can be had neither from Postgres nor from its copy on disk.
pub async fn start<L: DecisionLog>(assembly: &mut Assembly, log: Arc<L>, settings: Settings) -> Result<Piece, Failure> {
    let recorder = record(assembly, log, settings.spool_directory)?;
    let directory = Arc::new(Directory::new(recorder.clone()));
    let source = load(&directory, &settings.postgres, settings.last_good).await?;
    let stop = CancellationToken::new();
    let options = settings.options;
    let address = options.advertise.map_or_else(|| assembly.address().map(reached_at), Ok)?;
    let own = http::Settings {
        bypass_token: options.rate_limit_bypass_token,
        address: Some(address),
        qa_routes: options.qa_routes,
        ofrep: !options.no_ofrep,
        ..http::Settings::default()
    };
    let plane = plane(&source, &directory, own, &stop).await?;
    let following = tokio::spawn(source.follow(Arc::clone(&directory), stop.clone()));
    assembly.on_drain(async move || {
        stop.cancel();
        following.await.map_err(|error| Failure::resource("configuration", error))
    });
    let draining = plane.clone();
    assembly.before_drain(async move || {
        draining.drain().await;
        Ok(())
    });
    assembly.serve(http::router(plane), http::openapi());
    let checked = Arc::clone(&directory);
    assembly.need(check_now("configuration", move || configuration_state(&checked)));
    Ok(Piece { directory, recorder })
}

/// The routes' state, whose used sessions are shared through the database until `stop`.
async fn plane(
    source: &ConfigurationSource,
    directory: &Arc<Directory>,
    settings: http::Settings,
    stop: &CancellationToken,
) -> Result<DataPlane, Failure> {
    let secret = source.secret().await.map_err(|error| Failure::resource("Postgres", error))?;
    let (claims, claimed) = tokio::sync::mpsc::channel(CLAIMS_MAX);
    tokio::spawn(source.clone().share_sessions(claimed, stop.clone()));
    tokio::spawn(source.shared_rates().follow(Arc::clone(directory), stop.clone()));
    Ok(DataPlane::new(Arc::clone(directory), http::Settings { secret, claims: Some(claims), ..settings }))
}

/// Where others reach a listener: one on all addresses by the name of this host.
fn reached_at(listening: SocketAddr) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    match name.as_deref().map(str::trim).filter(|name| !name.is_empty() && listening.ip().is_unspecified()) {
        Some(name) => format!("{name}:{}", listening.port()),
        None => listening.to_string(),
    }
}

/// Configuration from Postgres or, with Postgres away, from its copy on disk.
async fn load(
    directory: &Directory,
    postgres: &str,
    last_good: Option<PathBuf>,
) -> Result<ConfigurationSource, Failure> {
    let mut source =
        ConfigurationSource::new(postgres).map_err(|error| Failure::Usage(format!("--postgres: {error}")))?;
    let copy = last_good.map(|path| LastGood::open(&path)).transpose();
    let copy = copy.map_err(|error| Failure::resource("configuration's copy", error))?.map(Arc::new);
    if let Some(copy) = &copy {
        source = source.with_last_good(Arc::clone(copy));
    }
    if let Err(error) = source.load(directory).await {
        let Some(copy) = copy else { return Err(Failure::resource("Postgres", error)) };
        let loaded = copy.load(directory).map_err(|why| match why {
            CopyError::None(_) => Failure::resource("Postgres", format!("{error}; and {why} to start from")),
            _ => Failure::resource("Postgres", format!("{error}; and its copy cannot be used: {why}")),
        })?;
        let (environments, damaged, keys) = (loaded.environments, loaded.damaged, loaded.keys);
        let written = time(loaded.written_us);
        warn!(%error, environments, damaged, keys, written, "Postgres is away: started from the copy on disk");
    }
    Ok(source)
}

fn time(us: i64) -> String {
    DateTime::from_timestamp_micros(us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn configuration_state(directory: &Directory) -> (bool, Value) {
    let state = match (directory.is_loaded(), directory.copy_written_us(), directory.is_source_away()) {
        (false, ..) => "not loaded".to_owned(),
        (true, Some(us), _) => format!("from the copy on disk of {}; Postgres is away, changes wait", time(us)),
        (true, None, true) => "loaded; Postgres is away, changes wait".to_owned(),
        (true, None, false) => "in step".to_owned(),
    };
    (directory.is_loaded(), json!({ "state": state }))
}

fn log_state(recorder: &Recorder) -> (bool, Value) {
    let (health, stats) = (recorder.health(), recorder.stats());
    let state = match &health {
        RecorderHealth::Appending => "appending".to_owned(),
        RecorderHealth::LogBehind { reason: None } => "behind; batches wait".to_owned(),
        RecorderHealth::LogBehind { reason: Some(reason) } => format!("behind; batches wait: {reason}"),
        RecorderHealth::LogFailed { reason } => format!("failed: {reason}"),
    };
    let report = json!({
        "state": state, "refused_decisions": stats.refused_decisions,
        "in_flight_decisions": stats.in_flight_decisions, "spool_bytes": stats.spool_bytes,
    });
    (health == RecorderHealth::Appending, report)
}
