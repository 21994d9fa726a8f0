//! One role in a process of its own: which pieces, on which servers. As many instances run as are needed.

mod aggregator;
mod control_plane;
mod evaluator;
mod query_api;

pub use aggregator::aggregator;
pub use control_plane::control_plane;
pub use evaluator::evaluator;
pub use query_api::query_api;

use crate::exit::Failure;
use crate::limits::DRAIN_MAX;
use crate::piece::maintenance;
use crate::piece::process::{Addresses, Assembly, Process, interrupted};
use crate::runtimes::Runtimes;

/// Starts a process with `pieces`, serves until SIGTERM or Ctrl-C, or until a piece ends by itself, and drains.
///
/// `pieces` returns a future that completes when the process can do its job no more.
fn run<E>(
    role: &str,
    addresses: Addresses,
    pieces: impl AsyncFnOnce(&mut Assembly) -> Result<E, Failure>,
) -> Result<(), Failure>
where
    E: Future<Output = Failure>,
{
    // A role has its machine to itself, as far as we know: nothing of it steps back.
    let runtimes = Runtimes::start(0)?;
    let ended = runtimes.block_on(async |requests| {
        let pieces = async |assembly: &mut Assembly| {
            maintenance::condense_metrics(assembly);
            pieces(assembly).await
        };
        let (process, failed) = Process::build(addresses, requests, pieces).await?;
        println!("flagmint {} {role} serves on {}", env!("CARGO_PKG_VERSION"), process.url());
        let failure = tokio::select! {
            () = interrupted() => None,
            failure = failed => Some(failure),
        };
        let drained = tokio::time::timeout(DRAIN_MAX, process.drain()).await;
        let drained = drained.unwrap_or_else(|_| {
            Err(Failure::Resource(format!("the drain took longer than {} s", DRAIN_MAX.as_secs())))
        });
        failure.map_or(drained, Err)
    });
    runtimes.shut_down();
    ended
}
