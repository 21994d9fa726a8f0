//! `flagmint demo`: everything embedded, a sample organization, real HTTP traffic, and the proof that nothing was lost.

mod flags;
mod ledger;
mod management;
mod report;
mod sample;
mod table;
mod visible;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::installation::Installation;
use crate::limits::{COMPLETE_MAX, OPEN_LOOP_CONNECTIONS};
use crate::load::client::{Endpoint, Target};
use crate::load::contexts;
use crate::load::traffic::{Measured, Pace, Traffic};
use crate::options::DemoOptions;
use crate::piece::first_user::FirstUser;
use crate::piece::process::interrupted;
use crate::up;
use ledger::{Tally, answered, compare, flag_metrics};
use management::Management;
use report::Findings;
use sample::Sample;
use table::Table;
use visible::Visible;

/// Users that the generator sends requests for; the marker is one more.
const CONTEXTS: u32 = 10_000;

/// Runs the demo until its duration is over or Ctrl-C.
///
/// # Errors
/// If something could not be had, or anything was lost or counted twice.
pub fn demo(options: DemoOptions) -> Result<(), Failure> {
    let place = Place::of(options.up.data_dir.as_deref())?;
    let first_user = FirstUser::demo(place.path())?;
    let email = first_user.email.clone();
    let password = first_user.password.clone();
    let up_options = options.up.clone().into_up(place.path().to_owned());
    up::with_installation(up_options, first_user, async |installation| {
        let api = Management::sign_in(&installation.url(), &email, &password).await?;
        Run { options: &options, installation, data_dir: place.path() }.run(api).await
    })
}

/// The data directory: given and kept, or temporary.
enum Place {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Place {
    fn of(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Ok(Self::Given(path.to_owned()));
        }
        // Postgres runs as another user when we are root, and must be able to pass.
        let directory = tempfile::Builder::new()
            .prefix("flagmint-demo-")
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir();
        directory.map(Self::Temporary).map_err(|error| Failure::resource("temporary directory", error))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

struct Run<'a> {
    options: &'a DemoOptions,
    installation: &'a Installation,
    data_dir: &'a Path,
}

/// What the ledger said before the load.
struct Before {
    counts: ledger::Counts,
    api_calls: u64,
    produced: u64,
}

impl Run<'_> {
    async fn run(&self, mut api: Management) -> Result<(), Failure> {
        let sample = sample::prepare(&mut api, self.options.flags).await?;
        self.wait_until_served(&sample).await?;
        self.wait_until_complete(&mut api, &sample, Utc::now()).await?;
        let before = Before {
            counts: answered(&mut api, &sample).await?,
            api_calls: api_calls(&mut api).await?,
            produced: self.installation.recorded_decisions(),
        };
        eprintln!(
            "flagmint demo: serving on {}, {} requests/s of {} flags",
            self.installation.url(),
            self.options.rate,
            sample.flags.len()
        );
        if !self.options.json {
            report::print_next(&self.installation.url(), &sample, api.token());
        }
        let tally = Tally::default();
        let visible = Visible::new();
        let started = Instant::now();
        let measured = self.send(&api, &sample, &tally, &visible, &before).await?;
        let seconds = started.elapsed().as_secs_f64();
        self.wait_until_complete(&mut api, &sample, Utc::now()).await?;
        let findings = Findings {
            measured: &measured,
            seconds,
            decisions_sent: tally.total(),
            decisions_produced: self.installation.recorded_decisions() - before.produced,
            difference: compare(&tally.counts()?, &before.counts, &answered(&mut api, &sample).await?),
            api_calls_billed: api_calls(&mut api).await? - before.api_calls,
            unique_contexts_sent: measured.requests.min(u64::from(CONTEXTS) + 1),
            unique_contexts_counted: self.unique_users(&mut api, &sample).await?,
            evaluation_ns: self.installation.evaluation_ns(),
            visible: &visible,
            data_dir: self.data_dir,
            url: &self.installation.url(),
            sample: &sample,
            access_token: api.token(),
        };
        let report = findings.to_json();
        if self.options.json {
            println!("{report}");
        } else {
            report::print_page(&report);
        }
        let (lost, duplicated) = (findings.difference.lost, findings.difference.duplicated);
        if lost + duplicated > 0 {
            return Err(Failure::DoesNotHold(format!("{lost} decisions were lost and {duplicated} counted twice")));
        }
        Ok(())
    }

    /// Sends load until the duration is over, with the live table and the markers beside it.
    async fn send(
        &self,
        api: &Management,
        sample: &Sample,
        tally: &Tally,
        visible: &Visible,
        before: &Before,
    ) -> Result<Measured, Failure> {
        let url = self.installation.url();
        let target = Target::resolve(&url, &sample.live.sdk_key, Endpoint::Evaluate).await.map_err(Failure::Usage)?;
        let pace = Pace::Open { rate_per_s: self.options.rate, connections: OPEN_LOOP_CONNECTIONS };
        let counting = tally.clone();
        let bodies = contexts::bodies(CONTEXTS, u64::from(CONTEXTS)).into();
        let traffic = Traffic::start(target, pace, bodies, Arc::new(move |reply| counting.add(reply)))
            .map_err(|error| Failure::resource("generator", error))?;
        let stop = CancellationToken::new();
        let table = Table {
            traffic: &traffic,
            tally,
            visible,
            project_id: &sample.project_id,
            counted_before: before.counts.values().flat_map(std::collections::HashMap::values).sum(),
        };
        let ended = async {
            tokio::select! {
                () = wait(self.options.duration) => {}
                () = interrupted() => {}
            }
            stop.cancel();
        };
        let (markers, (), ()) = tokio::join!(
            visible.measure(api.clone(), sample, &url, tally, stop.clone()),
            table.draw(api.clone(), stop.clone()),
            ended
        );
        let mut measured = traffic.finish().await;
        measured.requests += markers.as_ref().map_or(0, |markers| *markers);
        measured.ok += markers?;
        Ok(measured)
    }

    /// The sample's configuration must be in force before the load counts.
    async fn wait_until_served(&self, sample: &Sample) -> Result<(), Failure> {
        let deadline = Instant::now() + COMPLETE_MAX;
        for place in [&sample.live, &sample.staging] {
            let target = Target::resolve(&self.installation.url(), &place.sdk_key, Endpoint::Evaluate)
                .await
                .map_err(Failure::Usage)?;
            let mut client = crate::load::client::Client::new(Arc::new(target));
            loop {
                // A body that is refused, so that waiting is neither counted nor billed.
                let answer = client.ask("[]".into()).await.map_err(|error| Failure::resource("data plane", error))?;
                if answer.status == 400 && self.installation.serves(&place.environment_id, sample.flags.len()) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(Failure::Resource("the sample configuration did not come into force".into()));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Waits until `complete_through` has passed `time`.
    async fn wait_until_complete(
        &self,
        api: &mut Management,
        sample: &Sample,
        time: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let Some((_, flag_id)) = sample.flags.first() else { return Ok(()) };
        let deadline = Instant::now() + COMPLETE_MAX;
        while Instant::now() < deadline {
            let metrics = flag_metrics(api, flag_id, None).await?;
            let complete_through = metrics["meta"]["complete_through"].as_str().unwrap_or_default();
            if DateTime::parse_from_rfc3339(complete_through).is_ok_and(|through| through > time) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Failure::DoesNotHold(format!(
            "the ledger was not complete {} s after the last request",
            COMPLETE_MAX.as_secs()
        )))
    }

    async fn unique_users(&self, api: &mut Management, sample: &Sample) -> Result<u64, Failure> {
        let Some((_, flag_id)) = sample.flags.first() else { return Ok(0) };
        let metrics = flag_metrics(api, flag_id, None).await?;
        Ok(metrics["totals"]["unique_users"].as_u64().unwrap_or_default())
    }
}

async fn api_calls(api: &mut Management) -> Result<u64, Failure> {
    Ok(api.get("/billing/usage").await?["apiCalls"]["used"].as_u64().unwrap_or_default())
}

async fn wait(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
