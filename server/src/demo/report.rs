//! The demo's report: one line of JSON for programs, a page for people.

use std::path::Path;

use serde_json::{Value, json};

use super::ledger::Difference;
use super::sample::Sample;
use super::visible::Visible;
use crate::load::latencies;
use crate::load::traffic::Measured;

/// Everything that the report is made of.
pub struct Findings<'a> {
    /// What the generator measured.
    pub measured: &'a Measured,
    /// Seconds of load.
    pub seconds: f64,
    /// Decisions in the replies.
    pub decisions_sent: u64,
    /// Decisions that the recorder took, in this run.
    pub decisions_produced: u64,
    /// Against the analytics endpoints.
    pub difference: Difference,
    /// Growth of BIL-1's API calls.
    pub api_calls_billed: u64,
    /// Different contexts sent.
    pub unique_contexts_sent: u64,
    /// What analytics estimates for them.
    pub unique_contexts_counted: u64,
    /// Time in the evaluator per decision, nanoseconds: p50, p99.
    pub evaluation_ns: [f64; 2],
    /// Delays from reply to analytics.
    pub visible: &'a Visible,
    /// The data directory.
    pub data_dir: &'a Path,
    /// The server.
    pub url: &'a str,
    /// The sample project.
    pub sample: &'a Sample,
    /// For the next steps.
    pub access_token: &'a str,
}

impl Findings<'_> {
    /// The report as JSON.
    pub fn to_json(&self) -> Value {
        let usage = process_usage();
        json!({
            "requests": self.measured.requests,
            "responses_ok": self.measured.ok,
            "responses_other": self.measured.other,
            "decisions_sent": self.decisions_sent,
            "decisions_produced": self.decisions_produced,
            "decisions_counted": self.difference.counted,
            "lost": self.difference.lost,
            "duplicated": self.difference.duplicated,
            "api_calls_billed": self.api_calls_billed,
            "unique_contexts_sent": self.unique_contexts_sent,
            "unique_contexts_counted": self.unique_contexts_counted,
            "http_latency_us": latencies(self.measured),
            "evaluation_ns": { "p50": self.evaluation_ns[0], "p99": self.evaluation_ns[1] },
            "visible_ms": {
                "p50": self.visible.quantile_ms(0.5), "p99": self.visible.quantile_ms(0.99), "max": self.visible.quantile_ms(1.0),
            },
            "rate_per_s": self.measured.ok as f64 / self.seconds,
            "cpu_seconds": usage.0,
            "rss_bytes_max": usage.1,
            "log_bytes": bytes_below(&self.data_dir.join("log")),
            "rollup_bytes": bytes_below(&self.data_dir.join("rollups")),
            "data_plane_url": self.url,
            "sdk_key": self.sample.live.sdk_key,
            "access_token": self.access_token,
            "project_id": self.sample.project_id,
        })
    }
}

/// CPU seconds of this process (server and generator), and its largest resident set in bytes.
fn process_usage() -> (f64, u64) {
    // SAFETY: getrusage only writes the structure it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss.unsigned_abs() * 1024)
}

/// Bytes that the files of a directory occupy on disk; preallocated but unwritten space counts as the disk counts it.
fn bytes_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// The report for a person, and what to try next.
pub fn print_page(report: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let row = |name: &str, text: String| println!("  {name:<26}{text}");
    println!();
    row(
        "requests answered",
        format!("{} of {}, {:.0} a second", report["responses_ok"], report["requests"], number(&report["rate_per_s"])),
    );
    row("decisions in the replies", report["decisions_sent"].to_string());
    row("decisions in analytics", report["decisions_counted"].to_string());
    row("lost / counted twice", format!("{} / {}", report["lost"], report["duplicated"]));
    row("API calls billed", report["api_calls_billed"].to_string());
    row(
        "different contexts",
        format!("{} sent, {} counted (± 1.6 %)", report["unique_contexts_sent"], report["unique_contexts_counted"]),
    );
    let http = &report["http_latency_us"];
    row(
        "HTTP latency",
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            number(&http["p50"]) / 1e3,
            number(&http["p99"]) / 1e3,
            number(&http["max"]) / 1e3
        ),
    );
    let visible = &report["visible_ms"];
    row("reply to analytics", format!("p50 {} ms, p99 {} ms", visible["p50"], visible["p99"]));
}

/// Commands to try next.
pub fn print_next(url: &str, sample: &Sample, token: &str) {
    let (key, project) = (&sample.live.sdk_key, &sample.project_id);
    println!("\nTry next:\n");
    println!(
        "  curl -s {url}/evaluator/evaluate -H 'x-api-key: {key}' -d '{{\"context\":{{\"kind\":\"user\",\"key\":\"you\",\"country\":\"IE\"}}}}'\n"
    );
    println!("  TOKEN={token}");
    for path in ["top-flags", "metrics", "response-time"] {
        println!("  curl -s {url}/projects/{project}/analytics/{path} -H \"Authorization: Bearer $TOKEN\"");
    }
    println!("  curl -s {url}/billing/usage -H \"Authorization: Bearer $TOKEN\"\n");
}
