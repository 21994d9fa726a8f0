//! ANA-4: `GET /projects/{projectId}/analytics/top-flags`, flags ranked by evaluations.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use axum::extract::State;
use flagmint_schemas::ids::FlagId;
use flagmint_store::{RollupStore, Rows};
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use crate::QueryApi;
use crate::caller::Viewer;
use crate::directory::Flag;
use crate::error::{ApiError, ErrorBody};
use crate::limits::{FLAGS_MAX, TOP_FLAGS_DEFAULT};
use crate::measures::{Timing, counts_by_row, error_rate, share};
use crate::members::{PathId, QueryMembers};
use crate::meta::Meta;
use crate::questions::Refine;
use crate::reply::{Envelope, Reply, ok};
use crate::rows::column;
use crate::users;
use flagmint_schemas::rollup::Tallies;

/// Flags ranked by evaluations.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TopFlags {
    /// Flags with at least one evaluation, most first, ties by key.
    flags: Vec<TopFlag>,
    meta: Meta,
}

/// One flag of the ranking.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TopFlag {
    /// From 1.
    rank: usize,
    #[schema(value_type = Uuid)]
    flag_id: FlagId,
    /// Null when the flag is purged and only its counts are left.
    key: Option<String>,
    /// Null likewise.
    name: Option<String>,
    /// `served + reported`.
    evaluations: u64,
    /// Of the evaluations of all flags of the project, 0 to 1.
    share: f64,
    /// Share of the served decisions that are errors.
    error_rate: f64,
    /// Null without served decisions.
    avg_response_time_ms: Option<f64>,
    /// Null likewise.
    p99_ms: Option<f64>,
    /// Distinct user keys, estimated.
    unique_users: u64,
}

/// A flag's place by evaluations.
pub(super) struct Ranked {
    pub(super) id: FlagId,
    pub(super) flag: Option<Flag>,
    pub(super) counts: Tallies,
}

/// Flags with at least one evaluation, most first, ties by key (purged flags, who have none, last), then id.
pub(super) fn rank(decisions: &Rows, flags: Vec<Flag>) -> Result<Vec<Ranked>, ApiError> {
    let mut counts: BTreeMap<FlagId, Tallies> = BTreeMap::new();
    for (flag, row) in column::<FlagId>(decisions, "flag")?.into_iter().zip(counts_by_row(decisions)?) {
        *counts.entry(flag).or_default() += row;
    }
    let mut flags: BTreeMap<FlagId, Flag> = flags.into_iter().map(|flag| (flag.id, flag)).collect();
    let active = counts.into_iter().filter(|(_, counts)| counts.evaluations() > 0);
    let mut ranked: Vec<Ranked> = active.map(|(id, counts)| Ranked { id, flag: flags.remove(&id), counts }).collect();
    let key = |ranked: &Ranked| {
        let key = ranked.flag.as_ref().map(|flag| flag.key.clone());
        (std::cmp::Reverse(ranked.counts.evaluations()), key.is_none(), key, ranked.id)
    };
    ranked.sort_by_cached_key(key);
    Ok(ranked)
}

/// Flags ranked by evaluations.
#[utoipa::path(get, path = "/projects/{projectId}/analytics/top-flags", tag = "Analytics", params(
    ("projectId" = Uuid, Path), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
    ("environment_id" = Option<Uuid>, Query), ("granularity" = Option<String>, Query),
    ("limit" = Option<usize>, Query),
), responses((status = 200, body = Envelope<TopFlags>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn top_flags<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Viewer(organization): Viewer,
    PathId(project): PathId,
    members: QueryMembers,
) -> Reply<TopFlags> {
    let limit = |problems: &mut _| members.number("limit", 1..=FLAGS_MAX, problems).unwrap_or(TOP_FLAGS_DEFAULT);
    let (Asked { scope, span }, limit) = Asked::parse(organization, Some(project), &members, api.now(), limit)?;
    let moment = api.moment();
    // What the ledger says is waited for by nothing else.
    let ranking = async {
        let ((), flags, decisions) = tokio::try_join!(
            api.directory().check_project(organization, project, scope.environment),
            api.directory().flags(organization, project),
            api.ask(scope.by_flag(span, &["served", "reported", "errors"])),
        )?;
        let ranked = rank(&decisions, flags)?;
        // Sketches and histograms are large: only those of the flags shown are fetched.
        let shown: Vec<FlagId> = ranked.iter().take(limit).map(|ranked| ranked.id).collect();
        let asks = (!shown.is_empty())
            .then(|| (scope.latency(span).by(&["flag"]).of_flags(&shown), scope.uniques(span, &shown, &["flag"])));
        let (latency, uniques) = asks.unzip();
        let (latency, uniques) = tokio::try_join!(api.ask_if(latency), api.ask_if(uniques))?;
        Ok((ranked, latency, uniques))
    };
    let ((ranked, latency, uniques), ledger) = tokio::try_join!(ranking, api.ask(scope.ledger(span)))?;
    let meta = moment.meta(span, &ledger)?.with_users(span);
    ok(TopFlags { flags: answer(ranked, limit, latency.as_ref(), uniques.as_ref())?, meta })
}

fn answer(
    ranked: Vec<Ranked>,
    limit: usize,
    latency: Option<&Rows>,
    uniques: Option<&Rows>,
) -> Result<Vec<TopFlag>, ApiError> {
    let mut timings: BTreeMap<FlagId, Timing> = BTreeMap::new();
    if let Some(rows) = latency {
        for (flag, timing) in column::<FlagId>(rows, "flag")?.into_iter().zip(Timing::by_row(rows)?) {
            timings.entry(flag).or_default().merge(&timing);
        }
    }
    let users = uniques.map(|rows| users::by::<FlagId>(rows, "flag")).transpose()?.unwrap_or_default();
    let users = users::estimates(&users);
    let total: u64 = ranked.iter().map(|ranked| ranked.counts.evaluations()).sum();
    let top_flag = |(rank, Ranked { id, flag, counts }): (usize, Ranked)| {
        let times = timings.get(&id).map(Timing::times);
        let (key, name) = flag.map(|flag| (flag.key, flag.name)).unzip();
        TopFlag {
            rank,
            flag_id: id,
            key,
            name,
            evaluations: counts.evaluations(),
            share: share(counts.evaluations(), total),
            error_rate: error_rate(&counts),
            avg_response_time_ms: times.and_then(|times| times.avg_response_time_ms),
            p99_ms: times.and_then(|times| times.p99_ms),
            unique_users: users.get(&id).copied().unwrap_or(0),
        }
    };
    Ok((1..).zip(ranked).take(limit).map(top_flag).collect())
}
