//! `flagmint load`: open-loop or closed-loop load against any instance.

pub mod client;
pub mod contexts;
mod seconds;
pub mod traffic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::exit::Failure;
use crate::limits::OPEN_LOOP_CONNECTIONS;
use crate::options::LoadOptions;
use client::{Client, Endpoint, Target};
use traffic::{Measured, Pace, Traffic};

/// Contexts are the same in every run, so that runs compare.
const SEED: u64 = 2026;

/// Sends load and prints what came back.
///
/// # Errors
/// If the instance cannot be reached, refuses the key, or answers nothing with 200.
pub fn load(options: &LoadOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::resource("runtime", error))?.block_on(run(options))
}

async fn run(options: &LoadOptions) -> Result<(), Failure> {
    let (endpoint, bodies) = match (&options.ofrep, options.ofrep_all) {
        (Some(flag), _) => (Endpoint::OfrepOne(flag), contexts::ofrep_bodies(options.contexts, SEED)),
        (None, true) => (Endpoint::OfrepAll, contexts::ofrep_bodies(options.contexts, SEED)),
        (None, false) => (Endpoint::Evaluate, contexts::bodies(options.contexts, SEED)),
    };
    let target = Target::resolve(&options.url, &options.key, endpoint).await.map_err(Failure::Usage)?;
    probe(&target, &options.url).await?;
    let pace = match (options.rate, options.connections) {
        (Some(rate_per_s), _) => Pace::Open { rate_per_s, connections: OPEN_LOOP_CONNECTIONS },
        (None, connections) => Pace::Closed { connections: connections.unwrap_or(32) },
    };
    let started = Instant::now();
    let traffic = Traffic::start(target, pace, bodies.into(), Arc::new(|_| ()))
        .map_err(|error| Failure::resource("thread", error))?;
    tokio::select! {
        () = tokio::time::sleep(options.duration) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let measured = traffic.finish().await;
    let report = report(&measured, started.elapsed());
    if options.json {
        println!("{report}");
    } else {
        print_table(&report);
    }
    match measured.ok {
        0 => Err(Failure::DoesNotHold(format!(
            "no answer with status 200: {}",
            measured.last_failure.unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

/// One request first, so that a wrong URL or key is said at once.
async fn probe(target: &Target, url: &str) -> Result<(), Failure> {
    let answer = Client::new(Arc::new(target.clone())).ask("{}".into()).await;
    match answer {
        Err(error) => Err(Failure::resource(url, error)),
        Ok(answer) if answer.status == 401 => Err(Failure::Usage(format!("{url} does not know this key"))),
        Ok(_) => Ok(()),
    }
}

fn report(measured: &Measured, elapsed: Duration) -> Value {
    json!({
        "requests": measured.requests,
        "requests_unsent": measured.unsent,
        "responses_ok": measured.ok,
        "responses_other": measured.other,
        "last_failure": measured.last_failure,
        "seconds": elapsed.as_secs_f64(),
        "rate_per_s": measured.ok as f64 / elapsed.as_secs_f64(),
        "http_latency_us": latencies(measured),
        "p999_us_median_second": measured.seconds.median_p999_us(),
        "p999_us_by_second": measured.seconds.p999_us(),
    })
}

/// The percentiles that people ask for, microseconds.
pub fn latencies(measured: &Measured) -> Value {
    let at = |quantile| measured.latency_us.value_at_quantile(quantile);
    json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": measured.latency_us.max() })
}

fn print_table(report: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    println!("requests      {:>12}", report["requests"]);
    println!("due, not sent {:>12}", report["requests_unsent"]);
    println!("answered 200  {:>12}", report["responses_ok"]);
    println!("other         {:>12}", report["responses_other"]);
    println!("rate          {:>12.0} /s", number(&report["rate_per_s"]));
    for name in ["p50", "p99", "p999", "max"] {
        println!("{name:<13} {:>12.3} ms", number(&report["http_latency_us"][name]) / 1000.0);
    }
    let median = number(&report["p999_us_median_second"]) / 1000.0;
    println!("p999 by second {median:>11.3} ms (the median)");
    if let Some(failure) = report["last_failure"].as_str() {
        println!("last failure  {failure}");
    }
}
