//! Logs on standard error and metrics for Prometheus.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;
use crate::options::Options;

/// Starts logging as the options say.
///
/// # Errors
/// If the filter cannot be read.
pub fn logs(options: &Options) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&options.log_level)
        .map_err(|error| Failure::Usage(format!("--log-level {:?}: {error}", options.log_level)))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if options.log_format == "json" {
        logs.json().init();
    } else {
        logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}

/// Starts collecting metrics; the handle renders them.
///
/// # Errors
/// If metrics are collected already.
pub fn metrics() -> Result<PrometheusHandle, Failure> {
    PrometheusBuilder::new().install_recorder().map_err(|error| Failure::resource("metrics", error))
}
