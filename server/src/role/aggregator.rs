//! `flagmint aggregator`: folds its share of Kafka's partitions into ClickHouse.

use std::sync::Arc;

use flagmint_aggregator::{Settings, Status};
use tokio::sync::watch;

use crate::allocator;
use crate::exit::Failure;
use crate::limits::{DRAIN_FOLD_MAX, EMIT_INTERVAL_CLICKHOUSE, WHOLE_INTERVAL_CLICKHOUSE};
use crate::options::roles::AggregatorOptions;
use crate::piece::{dead_letters, folding, maintenance, servers, usage_totals};

/// Folds until told to stop.
///
/// # Errors
/// If a resource cannot be had, or the fold ends: a start then begins where the store says.
pub fn aggregator(options: AggregatorOptions) -> Result<(), Failure> {
    allocator::expect_emissions();
    let kafka = servers::kafka_options(&options.servers.kafka, options.instance)?;
    let clickhouse = servers::clickhouse_options(&options.servers.clickhouse)?;
    let failpoint = folding::failpoint()?;
    let emit_interval = options.emit_interval.unwrap_or(EMIT_INTERVAL_CLICKHOUSE);
    super::run("aggregator", options.listen.addresses(), async |assembly| {
        let store = Arc::new(servers::clickhouse_migrated(&clickhouse).await?);
        let topics = servers::side_topics(kafka.clone()).await?;
        let log = Arc::new(servers::kafka(kafka.clone()).await?);
        let settings = Settings {
            emit_interval_min: emit_interval,
            emit_interval,
            whole_interval: WHOLE_INTERVAL_CLICKHOUSE,
            fold: folding::limits_clickhouse(),
            drain_fold_max: DRAIN_FOLD_MAX,
            failpoint,
            ..Settings::new(
                dead_letters::publish(topics.clone(), Arc::clone(&store)),
                watch::Sender::new(Status::default()),
            )
        };
        let statuses = settings.status.subscribe();
        usage_totals::start(assembly, Arc::clone(&store), topics, statuses.clone());
        maintenance::start_clickhouse(assembly, Arc::clone(&store), statuses);
        let fold = folding::start(assembly, log, store, settings, Some(servers::reopen_kafka(kafka)));
        assembly.need(folding::check(fold.statuses.clone()));
        Ok(fold.ended())
    })
}
