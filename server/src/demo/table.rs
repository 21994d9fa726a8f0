//! The live table: what a person watches while the demo runs.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::ledger::Tally;
use super::management::Management;
use super::visible::Visible;
use crate::load::traffic::{Measured, Traffic};

const REFRESH: Duration = Duration::from_secs(1);
const TOP_FLAGS: usize = 5;

/// What the table shows.
pub struct Table<'a> {
    /// The generator.
    pub traffic: &'a Traffic,
    /// Its counts.
    pub tally: &'a Tally,
    /// Delays of markers.
    pub visible: &'a Visible,
    /// The sample project.
    pub project_id: &'a str,
    /// Flags' evaluations before this run.
    pub counted_before: u64,
}

impl Table<'_> {
    /// Draws once a second on standard error until `stop`: over itself on a terminal, a line a time elsewhere.
    pub async fn draw(&self, mut api: Management, stop: CancellationToken) {
        let on_terminal = std::io::stderr().is_terminal();
        let (mut at, mut answered) = (Instant::now(), 0);
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(REFRESH) => {}
                () = stop.cancelled() => break,
            }
            let measured = self.traffic.measured();
            let top = api.get(&format!("/projects/{}/analytics/top-flags?limit=100", self.project_id)).await;
            let flags = top.map(|mut top| top["data"]["flags"].take()).unwrap_or_default();
            let rate = (measured.ok - answered) as f64 / at.elapsed().as_secs_f64();
            (at, answered) = (Instant::now(), measured.ok);
            let lines = self.lines(&measured, rate, &flags);
            let text = if on_terminal {
                let rows: String = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
                // Back to the first row, where the next table begins.
                format!("{rows}\x1b[{}A", lines.len())
            } else {
                format!("{}\n", lines[0])
            };
            if std::io::stderr().lock().write_all(text.as_bytes()).is_err() {
                // Nobody watches any more.
                break;
            }
        }
        if on_terminal {
            eprint!("{}", "\n".repeat(TOP_FLAGS + 2));
        }
    }

    fn lines(&self, measured: &Measured, rate: f64, flags: &Value) -> Vec<String> {
        let ms = |quantile| measured.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        let flags = flags.as_array().map_or(&[][..], Vec::as_slice);
        let counted: u64 = flags.iter().filter_map(|flag| flag["evaluations"].as_u64()).sum();
        let mut lines = vec![format!(
            "{rate:>7.0} requests/s   p50 {:.2} ms   p99 {:.2} ms   decisions: {} sent, {} counted   visible after {} ms (p99)",
            ms(0.5),
            ms(0.99),
            self.tally.total(),
            counted.saturating_sub(self.counted_before),
            self.visible.quantile_ms(0.99),
        )];
        lines.push(format!("  {:<20}{:>14}{:>9}{:>12}", "top flags", "evaluations", "share", "p99 ms"));
        lines.extend(flags.iter().take(TOP_FLAGS).map(|flag| {
            format!(
                "  {:<20}{:>14}{:>8.1}%{:>12.2}",
                flag["key"].as_str().unwrap_or_default(),
                flag["evaluations"].as_u64().unwrap_or_default(),
                flag["share"].as_f64().unwrap_or_default() * 100.0,
                flag["p99_ms"].as_f64().unwrap_or_default(),
            )
        }));
        lines
    }
}
