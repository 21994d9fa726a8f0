//! The rows of a scenario as a table for people and as JSON for whoever compares runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::measure::Row;
use crate::scenario::Scenario;

/// Prints a Markdown table. "times ours" is a row's median over that of our first row.
pub fn print(scenario: &Scenario, rows: &[Row]) {
    println!("### {} {}\n", scenario.name, scenario.title);
    println!("| engine | entry point | ns median | p10 | p90 | times ours | allocations | bytes | result carries |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|---|");
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {:.0} | {} |",
            row.engine,
            row.entry,
            ns(row.ns_median),
            ns(row.ns_p10),
            ns(row.ns_p90),
            times_ours(row, rows),
            row.allocations,
            row.allocated_bytes,
            row.carries,
        );
    }
    println!();
}

/// The same as an object, `{scenario, title, rows}`; times in nanoseconds per decision.
pub fn json(scenario: &Scenario, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "engine": row.engine,
            "entry": row.entry,
            "median_ns": row.ns_median,
            "p10_ns": row.ns_p10,
            "p90_ns": row.ns_p90,
            "times_ours": times_ours(row, rows),
            "allocations": row.allocations,
            "allocated_bytes": row.allocated_bytes,
        })
    };
    json!({"scenario": scenario.name, "title": scenario.title, "rows": rows.iter().map(row).collect::<Vec<_>>()})
}

/// Writes all scenarios to `benches/results/engines.json`.
pub fn write(scenarios: Vec<Value>) -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
    std::fs::create_dir_all(&directory)?;
    let results = json!({"bench": "engines", "cpu": cpu(), "date": date(), "scenarios": scenarios});
    std::fs::write(directory.join("engines.json"), format!("{results:#}\n"))
}

fn times_ours(row: &Row, rows: &[Row]) -> f64 {
    row.ns_median / rows[0].ns_median
}

fn date() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The processor's name, where the system tells it.
fn cpu() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Tenths below 100 ns, where they mean something.
fn ns(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
