//! The control plane: the management API over Postgres. Its writes are recorded as API calls.

use flagmint_control_plane::{self as control_plane, ControlPlane, Pool};
use flagmint_ingest::Recorder;

use super::first_user::FirstUser;
use super::metering;
use super::process::Assembly;
use crate::exit::Failure;
use crate::limits::METERED_WRITES_MAX;

/// Connects, brings the database to this version and makes the first user of an empty one.
///
/// # Errors
/// If the URL cannot be read, Postgres cannot be had, or it is of a newer version.
pub async fn prepare(url: &str, first_user: &FirstUser) -> Result<Pool, Failure> {
    let pool = connect(url)?;
    control_plane::migrate(&pool).await.map_err(refused)?;
    first_user.create(&pool).await?;
    Ok(pool)
}

/// Whether the URL of Postgres can be read.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), Failure> {
    control_plane::check_url(url).map_err(|error| Failure::Usage(format!("--postgres: {error}")))
}

/// Connections to the database of this URL; none is made yet.
///
/// # Errors
/// If the URL cannot be read.
pub fn connect(url: &str) -> Result<Pool, Failure> {
    control_plane::connect(url).map_err(|error| Failure::Usage(format!("--postgres: {error}")))
}

/// What it means that Postgres failed: without an answer it may be back later, and what it answers no to has to be changed.
pub fn refused(error: control_plane::DbError) -> Failure {
    match control_plane::refusal(&error) {
        Some(hint) => Failure::Usage(format!("--postgres: {error}: {hint}")),
        None => Failure::resource("--postgres", format!("{error}: is it running, and are host and port right?")),
    }
}

/// Whether Postgres answers.
///
/// # Errors
/// What it says, or why it says nothing.
pub async fn answers(pool: Pool) -> Result<(), String> {
    control_plane::answers(&pool).await.map_err(|error| error.to_string())
}

/// Starts serving the management API on a database that is prepared.
pub fn start(assembly: &mut Assembly, pool: Pool, recorder: Recorder) {
    let (metered, writes) = tokio::sync::mpsc::channel(METERED_WRITES_MAX);
    tokio::spawn(metering::record(writes, recorder));
    let control = ControlPlane::new(pool, control_plane::Settings::default(), Some(metered));
    assembly.serve_in_background(control_plane::router(control), control_plane::openapi());
}
