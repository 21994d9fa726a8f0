//! `flagmint evaluator`: decides flags and appends what it decided to Kafka. Configuration comes from Postgres.

use std::future::{Pending, pending};
use std::sync::Arc;

use crate::exit::Failure;
use crate::options::roles::EvaluatorOptions;
use crate::piece::data_plane::{self, Settings};
use crate::piece::servers;

/// Serves until told to stop.
///
/// # Errors
/// If a resource cannot be had.
pub fn evaluator(options: EvaluatorOptions) -> Result<(), Failure> {
    let postgres = options.servers.postgres()?.to_owned();
    let kafka = servers::kafka_options(&options.servers.kafka, None)?;
    let data_dir = options.kept.data_dir;
    let _lock = servers::lock_directory(&data_dir)?;
    super::run("evaluator", options.listen.addresses(), async |assembly| {
        let log = Arc::new(servers::kafka_to_append(kafka).await?);
        let settings = Settings {
            spool_directory: data_dir.join("spool"),
            last_good: Some(data_dir.join("configuration")),
            postgres,
            options: options.data_plane,
        };
        data_plane::start(assembly, log, settings).await?;
        Ok::<Pending<Failure>, _>(pending())
    })
}
