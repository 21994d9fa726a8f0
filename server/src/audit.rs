//! `flagmint audit`: produced = counted + duplicates + parked + in flight, per hour and organization.

mod offline;
mod online;

pub use offline::fold_all;

use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::options::AuditOptions;

/// One hour of one organization.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hour {
    /// Start of the hour of append, ISO-8601.
    pub hour: String,
    /// The organization; empty for records that could not be attributed.
    pub organization_id: String,
    /// Decisions that the records announce.
    pub produced: u64,
    /// Decisions in the rollups.
    pub counted: u64,
    /// Decisions in records recognised as duplicates.
    pub duplicates: u64,
    /// Decisions in records that could not be decoded.
    pub parked: u64,
    /// Decisions not folded yet.
    pub in_flight: u64,
    /// Records that gaps prove lost.
    pub gaps: u64,
    /// Decisions counted in the minute of their append.
    pub clamped: u64,
    /// Decisions estimated lost with producers that ended without a goodbye.
    pub estimated_missing: u64,
    /// Whether it adds up and no gap is known.
    pub holds: bool,
}

/// Prints the reconciliation.
///
/// # Errors
/// If it does not hold, or the installation cannot be read.
pub fn audit(options: &AuditOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::resource("runtime", error))?;
    let hours = match &options.url {
        Some(url) => runtime.block_on(online::hours(url, options))?,
        None => runtime.block_on(offline::hours(options))?,
    };
    if options.json {
        println!("{}", serde_json::json!({ "hours": hours, "holds": hours.iter().all(|hour| hour.holds) }));
    } else {
        print_table(&hours);
    }
    match hours.iter().filter(|hour| !hour.holds).count() {
        0 => Ok(()),
        count => Err(Failure::DoesNotHold(format!("{count} of {} hours do not add up", hours.len()))),
    }
}

fn print_table(hours: &[Hour]) {
    if hours.is_empty() {
        println!("nothing was produced in this time");
        return;
    }
    println!(
        "{:<21}{:<38}{:>12}{:>12}{:>11}{:>8}{:>10}{:>6}{:>9}{:>9}  ",
        "hour", "organization", "produced", "counted", "duplicate", "parked", "in flight", "gaps", "clamped", "missing"
    );
    for hour in hours {
        println!(
            "{:<21}{:<38}{:>12}{:>12}{:>11}{:>8}{:>10}{:>6}{:>9}{:>9}  {}",
            hour.hour,
            hour.organization_id,
            hour.produced,
            hour.counted,
            hour.duplicates,
            hour.parked,
            hour.in_flight,
            hour.gaps,
            hour.clamped,
            hour.estimated_missing,
            if hour.holds { "holds" } else { "DOES NOT HOLD" }
        );
    }
}
