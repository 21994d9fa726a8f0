//! ANA-5: `GET /projects/{projectId}/analytics/distribution`, each flag's share of all evaluations.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use axum::extract::State;
use flagmint_schemas::ids::FlagId;
use flagmint_store::RollupStore;
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use super::top_flags::{Ranked, rank};
use crate::QueryApi;
use crate::caller::Viewer;
use crate::error::ErrorBody;
use crate::limits::FLAGS_MAX;
use crate::measures::share;
use crate::members::{PathId, QueryMembers};
use crate::meta::Meta;
use crate::reply::{Envelope, Reply, ok};

/// How evaluations spread over flags.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Distribution {
    /// Evaluations of all flags.
    total: u64,
    /// At most 100 flags, most evaluations first, ties by key.
    flags: Vec<FlagShare>,
    /// All other flags together.
    other: OtherShare,
    meta: Meta,
}

/// One flag's part.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct FlagShare {
    #[schema(value_type = Uuid)]
    flag_id: FlagId,
    /// Null when the flag is purged and only its counts are left.
    key: Option<String>,
    /// Null likewise.
    name: Option<String>,
    /// `served + reported`.
    evaluations: u64,
    /// Of `total`, 0 to 1.
    share: f64,
}

/// The part of the flags not listed.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct OtherShare {
    evaluations: u64,
    share: f64,
}

/// Each flag's share of all evaluations.
#[utoipa::path(get, path = "/projects/{projectId}/analytics/distribution", tag = "Analytics", params(
    ("projectId" = Uuid, Path), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("environment_id" = Option<Uuid>, Query), ("granularity" = Option<String>, Query),
), responses((status = 200, body = Envelope<Distribution>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn distribution<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    PathId(project): PathId,
    members: QueryMembers,
) -> Reply<Distribution> {
    let (Asked { scope, span }, ()) = Asked::parse(organization, Some(project), &members, api.now(), |_| ())?;
    let moment = api.moment();
    let ((), flags, decisions, ledger) = tokio::try_join!(
        api.directory().check_project(organization, project, scope.environment),
        api.directory().flags(organization, project),
        api.ask(scope.by_flag(span, &["served", "reported"])),
        api.ask(scope.ledger(span)),
    )?;
    ok(answer(rank(&decisions, flags)?, moment.meta(span, &ledger)?))
}

fn answer(mut ranked: Vec<Ranked>, meta: Meta) -> Distribution {
    let sum = |ranked: &[Ranked]| ranked.iter().map(|ranked| ranked.counts.evaluations()).sum::<u64>();
    let total = sum(&ranked);
    let others = sum(&ranked.split_off(ranked.len().min(FLAGS_MAX)));
    let flag_share = |Ranked { id, flag, counts }| {
        let (key, name) = flag.map(|flag| (flag.key, flag.name)).unzip();
        let evaluations = counts.evaluations();
        FlagShare { flag_id: id, key, name, evaluations, share: share(evaluations, total) }
    };
    let flags = ranked.into_iter().map(flag_share).collect();
    Distribution { total, flags, other: OtherShare { evaluations: others, share: share(others, total) }, meta }
}
