//! `flagmint up`: all roles in one process, until SIGTERM or Ctrl-C.

use crate::exit::Failure;
use crate::installation::{Installation, Place};
use crate::limits::{BACKGROUND_NICENESS, DRAIN_MAX};
use crate::options::UpOptions;
use crate::piece::first_user::FirstUser;
use crate::piece::process::interrupted;
use crate::postgres::Postgres;
use crate::runtimes::Runtimes;

/// Serves until told to stop.
///
/// # Errors
/// If a resource cannot be had.
pub fn up(options: UpOptions) -> Result<(), Failure> {
    let first_user = FirstUser::of(&options.first_user)?;
    with_installation(options, first_user, async |installation| {
        println!("flagmint {} serves on {}", env!("CARGO_PKG_VERSION"), installation.url());
        interrupted().await;
        Ok(())
    })
}

/// Starts an installation, does `work` with it, and drains it, whatever came of the work.
///
/// # Errors
/// If a resource cannot be had, or the work's.
pub fn with_installation<W>(options: UpOptions, first_user: FirstUser, work: W) -> Result<(), Failure>
where
    W: AsyncFnOnce(&Installation) -> Result<(), Failure>,
{
    let place = Place::take(&options)?;
    // Started from this thread, which lives as long as the process: Postgres ends with the thread that started it.
    let postgres = match &options.servers.postgres {
        Some(_) => None,
        None => Some(Postgres::start(&options.data_dir).map_err(|error| Failure::resource("Postgres", error))?),
    };
    let url = options.servers.postgres.clone().or_else(|| postgres.as_ref().map(|postgres| postgres.url().to_owned()));
    let runtimes = Runtimes::start(BACKGROUND_NICENESS)?;
    let worked = runtimes.block_on(async |requests| {
        let url = url.unwrap_or_default();
        let installation = Installation::start(&options, requests, place, &url, &first_user).await?;
        let worked = work(&installation).await;
        tokio::time::timeout(DRAIN_MAX, installation.drain()).await.unwrap_or_else(|_| {
            Err(Failure::Resource(format!("the drain took longer than {} s", DRAIN_MAX.as_secs())))
        })?;
        worked
    });
    runtimes.shut_down();
    if let Some(postgres) = postgres {
        postgres.stop().map_err(|error| Failure::resource("Postgres", error))?;
    }
    worked
}
