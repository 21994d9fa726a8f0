//! All roles in one process: which pieces, on what, and in which order.
//!
//! Order: the directory's lock, Postgres, migrations and first user, rollups, aggregator, recorder, configuration, routes. The drain
//! goes the other way round: no more requests, then the recorder appends what it holds, then the aggregator folds what the
//! log holds, then the rollups are written.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use flagmint_aggregator as aggregator;
use flagmint_control_plane::Pool;
use flagmint_log::kafka::KafkaOptions;
use flagmint_log::{DecisionLog, LocalLog, LogError, Options as LogOptions};
use flagmint_schemas::ids::EnvironmentId;
use flagmint_store::RollupStore;
use flagmint_store::clickhouse::ClickHouseStore;
use flagmint_store::parquet::ParquetStore;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::exit::Failure;
use crate::limits::{DRAIN_FOLD_MAX, EMIT_INTERVAL_CLICKHOUSE, WHOLE_INTERVAL_CLICKHOUSE};
use crate::options::UpOptions;
use crate::piece::first_user::FirstUser;
use crate::piece::folding::Reopen;
use crate::piece::process::{Assembly, Process};
use crate::piece::{data_plane, dead_letters, folding, maintenance, management, querying, servers};

/// A running server.
pub struct Installation {
    process: Process,
    plane: data_plane::Piece,
}

/// The data directory, taken for this process, and the log: in it, or in Kafka.
pub enum Place {
    /// The log is in the directory.
    Local(LocalLog),
    /// The log is in Kafka; the directory holds the spool.
    Kafka(File, KafkaOptions),
}

impl Place {
    /// Takes the data directory.
    ///
    /// # Errors
    /// If another process holds it, naming that process, or it is damaged, or the options make no sense.
    pub fn take(options: &UpOptions) -> Result<Self, Failure> {
        check(options)?;
        if options.servers.kafka.kafka.is_some() {
            let kafka = servers::kafka_options(&options.servers.kafka, None)?;
            return Ok(Self::Kafka(servers::lock_directory(&options.data_dir)?, kafka));
        }
        let refuse =
            |error: LogError| Failure::resource(format!("data directory {}", options.data_dir.display()), error);
        LocalLog::open(LogOptions::new(options.data_dir.join("log"), options.log_partitions))
            .map(Self::Local)
            .map_err(refuse)
    }
}

/// Whether a server could be started with these options.
///
/// # Errors
/// Naming the option that is wrong.
pub fn check(options: &UpOptions) -> Result<(), Failure> {
    let servers = &options.servers;
    if let Some(url) = &servers.postgres {
        management::check_url(url)?;
    }
    if servers.kafka.kafka.is_some() {
        servers::kafka_options(&servers.kafka, None)?;
        if servers.clickhouse.clickhouse.is_none() {
            let why =
                "processes that share the partitions of Kafka need one store, which rollups on a local disk are not";
            return Err(Failure::Usage(format!("--kafka needs --clickhouse: {why}")));
        }
    }
    if servers.clickhouse.clickhouse.is_some() {
        servers::clickhouse_options(&servers.clickhouse)?;
    }
    FirstUser::of(&options.first_user).map(|_| ())
}

impl Installation {
    /// Starts everything on the log and Postgres given; requests are read by the runtime given.
    ///
    /// # Errors
    /// If a resource cannot be had.
    pub async fn start(
        options: &UpOptions,
        requests: Handle,
        place: Place,
        postgres: &str,
        first_user: &FirstUser,
    ) -> Result<Self, Failure> {
        let pieces = async |assembly: &mut Assembly| {
            let pool = management::prepare(postgres, first_user).await?;
            maintenance::condense_metrics(assembly);
            let parts = Parts { options, postgres, pool };
            match (place, &options.servers.clickhouse.clickhouse) {
                (Place::Local(log), None) => embedded(assembly, parts, Arc::new(log)).await,
                (Place::Local(log), Some(_)) => {
                    let log = Arc::new(log);
                    let store = Arc::new(open_clickhouse(options).await?);
                    maintenance::start_trimming(assembly, Arc::clone(&log), Arc::clone(&store), options.log_retention);
                    on_clickhouse(assembly, parts, log, store, None).await
                }
                (Place::Kafka(lock, kafka), _) => {
                    // Held until the process ends.
                    assembly.on_drain(async move || {
                        drop(lock);
                        Ok(())
                    });
                    let log = Arc::new(servers::kafka(kafka.clone()).await?);
                    let store = Arc::new(open_clickhouse(options).await?);
                    on_clickhouse(assembly, parts, log, store, Some(servers::reopen_kafka(kafka))).await
                }
            }
        };
        let (process, plane) = Process::build(options.listen.addresses(), requests, pieces).await?;
        Ok(Self { process, plane })
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        self.process.url()
    }

    /// Decisions that the recorder took since the start.
    pub fn recorded_decisions(&self) -> u64 {
        self.plane.recorder.stats().recorded_decisions
    }

    /// Whether an environment's configuration with so many flags is in force.
    pub fn serves(&self, environment_id: &str, flags: usize) -> bool {
        let id: Option<EnvironmentId> = environment_id.parse().ok();
        id.and_then(|id| self.plane.directory.flag_count(id)).is_some_and(|count| count >= flags)
    }

    /// Time in the evaluator per decision, nanoseconds: p50 and p99 of the last minutes.
    pub fn evaluation_ns(&self) -> [f64; 2] {
        let text = self.process.metrics().render();
        ["0.5", "0.99"].map(|quantile| {
            let name = format!("flagmint_evaluator_decision_ns{{quantile=\"{quantile}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
        })
    }

    /// Stops accepting, then brings every recorded decision into the rollups.
    ///
    /// # Errors
    /// If something could not be stored.
    pub async fn drain(self) -> Result<(), Failure> {
        self.process.drain().await
    }
}

/// What all roles are started with, whatever log and store they work on.
struct Parts<'a> {
    options: &'a UpOptions,
    postgres: &'a str,
    pool: Pool,
}

/// Log and rollups on the local disk.
async fn embedded(assembly: &mut Assembly, parts: Parts<'_>, log: Arc<LocalLog>) -> Result<data_plane::Piece, Failure> {
    let options = parts.options;
    let directory = options.data_dir.join("rollups");
    let open = move || ParquetStore::open(&directory, &flagmint_store::parquet::Options::default());
    // By a thread of the background, since the store's own step back as the one does that starts them.
    let store = tokio::task::spawn_blocking(open).await.map_err(|error| Failure::resource("rollups", error))?;
    let store = Arc::new(store.map_err(|error| Failure::resource("rollups", error))?);
    maintenance::start_trimming(assembly, Arc::clone(&log), Arc::clone(&store), options.log_retention);
    maintenance::start_parquet(assembly, Arc::clone(&store));
    let settings = fold_settings(options, aggregator::limits::EMIT_INTERVAL_MIN)?;
    let fold = folding::start(assembly, Arc::clone(&log), Arc::clone(&store), settings, None);
    folding::catch_up(&*log, fold.statuses.clone()).await?;
    all_roles(assembly, parts, log, store, &fold).await
}

/// Rollups in ClickHouse, which has what was folded before.
async fn on_clickhouse<L: DecisionLog>(
    assembly: &mut Assembly,
    parts: Parts<'_>,
    log: Arc<L>,
    store: Arc<ClickHouseStore>,
    reopen: Option<Reopen<L>>,
) -> Result<data_plane::Piece, Failure> {
    let settings = fold_settings(parts.options, EMIT_INTERVAL_CLICKHOUSE)?;
    let settings = aggregator::Settings {
        whole_interval: WHOLE_INTERVAL_CLICKHOUSE,
        fold: folding::limits_clickhouse(),
        ..settings
    };
    maintenance::start_clickhouse(assembly, Arc::clone(&store), settings.status.subscribe());
    let fold = folding::start(assembly, Arc::clone(&log), Arc::clone(&store), settings, reopen);
    all_roles(assembly, parts, log, store, &fold).await
}

async fn open_clickhouse(options: &UpOptions) -> Result<ClickHouseStore, Failure> {
    servers::clickhouse_migrated(&servers::clickhouse_options(&options.servers.clickhouse)?).await
}

fn fold_settings(options: &UpOptions, emit_interval: Duration) -> Result<aggregator::Settings, Failure> {
    let letters = dead_letters::write_dead_letters(options.data_dir.join("dead-letters.jsonl"));
    let settings = aggregator::Settings::new(letters, watch::Sender::new(aggregator::Status::default()));
    let emit_interval_min = options.emit_interval.unwrap_or(emit_interval);
    Ok(aggregator::Settings {
        emit_interval_min,
        emit_interval: settings.emit_interval.max(emit_interval_min),
        drain_fold_max: DRAIN_FOLD_MAX,
        failpoint: folding::failpoint()?,
        ..settings
    })
}

/// Starts every role that serves, on the same log, store and Postgres.
async fn all_roles<L: DecisionLog, S: RollupStore>(
    assembly: &mut Assembly,
    parts: Parts<'_>,
    log: Arc<L>,
    store: Arc<S>,
    fold: &folding::Fold,
) -> Result<data_plane::Piece, Failure> {
    let Parts { options, postgres, pool } = parts;
    let settings = data_plane::Settings {
        spool_directory: options.data_dir.join("spool"),
        last_good: None,
        postgres: postgres.to_owned(),
        options: options.data_plane.clone(),
    };
    let plane = data_plane::start(assembly, log, settings).await?;
    assembly.report(folding::check(fold.statuses.clone()));
    management::start(assembly, pool, plane.recorder.clone());
    querying::start(assembly, store, postgres)?;
    Ok(plane)
}
