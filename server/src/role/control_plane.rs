//! `flagmint control-plane`: the management API over Postgres; its writes are recorded in Kafka as calls.

use std::future::{Pending, pending};
use std::sync::Arc;

use crate::exit::Failure;
use crate::options::roles::ControlPlaneOptions;
use crate::piece::first_user::FirstUser;
use crate::piece::{data_plane, health, management, servers};

/// Serves until told to stop.
///
/// # Errors
/// If a resource cannot be had.
pub fn control_plane(options: ControlPlaneOptions) -> Result<(), Failure> {
    let postgres = options.servers.postgres()?.to_owned();
    let kafka = servers::kafka_options(&options.servers.kafka, None)?;
    let first_user = FirstUser::of(&options.first_user)?;
    let _lock = servers::lock_directory(&options.kept.data_dir)?;
    super::run("control-plane", options.listen.addresses(), async |assembly| {
        let pool = management::prepare(&postgres, &first_user).await?;
        let log = Arc::new(servers::kafka_to_append(kafka).await?);
        let recorder = data_plane::record(assembly, log, options.kept.data_dir.join("spool"))?;
        let checked = pool.clone();
        assembly.need(health::check("postgres", move || management::answers(checked.clone())));
        management::start(assembly, pool, recorder);
        Ok::<Pending<Failure>, _>(pending())
    })
}
