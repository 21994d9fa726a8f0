//! How soon a decision shows in analytics: marker requests, each timed from its reply to the first answer that counts it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

use super::ledger::{Tally, flag_metrics};
use super::management::Management;
use super::sample::Sample;
use crate::exit::Failure;
use crate::limits::COMPLETE_MAX;
use crate::load::client::{Client, Endpoint, Target};

/// Between markers; not a multiple of the flush interval, so that they meet it at all phases.
const BETWEEN_MARKERS: Duration = Duration::from_millis(270);

/// How often analytics is asked whether a marker shows.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Delays measured so far.
#[derive(Clone)]
pub struct Visible(Arc<Mutex<Histogram<u64>>>);

impl Visible {
    /// No delays yet.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Histogram::new_with_bounds(1, 600_000, 3).expect("the bounds are valid"))))
    }

    /// A delay in milliseconds by quantile.
    pub fn quantile_ms(&self, quantile: f64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value_at_quantile(quantile)
    }

    /// Sends markers to the staging environment, which gets no other load, until `stop`. They are requests like all
    /// others: their decisions go into `tally`. Returns how many were sent.
    ///
    /// # Errors
    /// If a marker is not answered or never shows.
    pub async fn measure(
        &self,
        mut api: Management,
        sample: &Sample,
        url: &str,
        tally: &Tally,
        stop: CancellationToken,
    ) -> Result<u64, Failure> {
        let Some((_, flag_id)) = sample.flags.first() else { return Ok(0) };
        let mut markers = 0;
        let target = Target::resolve(url, &sample.staging.sdk_key, Endpoint::Evaluate).await.map_err(Failure::Usage)?;
        let mut client = Client::new(Arc::new(target));
        let staging = &sample.staging.environment_id;
        let mut seen = evaluations(&mut api, flag_id, staging).await?;
        while !stop.is_cancelled() {
            let body = r#"{"context":{"kind":"user","key":"marker"}}"#;
            let answer = client.ask(body.into()).await.map_err(|error| Failure::resource("marker request", error))?;
            if answer.status != 200 {
                return Err(Failure::DoesNotHold(format!("a marker request was answered {}", answer.status)));
            }
            let answered = Instant::now();
            tally.add(&answer.body);
            markers += 1;
            let wanted = seen + 1;
            while seen < wanted {
                if answered.elapsed() > COMPLETE_MAX {
                    return Err(Failure::DoesNotHold("a marker request never showed in analytics".into()));
                }
                tokio::time::sleep(ASK_EVERY).await;
                seen = evaluations(&mut api, flag_id, staging).await?;
            }
            let delay_ms = u64::try_from(answered.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(delay_ms.max(1));
            tokio::select! {
                () = tokio::time::sleep(BETWEEN_MARKERS) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(markers)
    }
}

async fn evaluations(api: &mut Management, flag_id: &str, environment_id: &str) -> Result<u64, Failure> {
    let metrics = flag_metrics(api, flag_id, Some(environment_id)).await?;
    Ok(metrics["totals"]["evaluations"].as_u64().unwrap_or_default())
}
