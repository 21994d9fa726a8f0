//! `GET /audit/reconciliation`: whether every decision produced is accounted for, by hour of append, and whether the
//! ledger, the decision cells and the latency cells agree. Source: pipeline design, "Audit, watermark".
//!
//! In an hour, produced = counted + duplicates + parked + in flight. `clamped` decisions are among the counted ones;
//! gaps and `estimated_missing` were never read, so they are no part of what was produced.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use axum::extract::State;
use chrono::{DateTime, Utc};
use flagmint_schemas::ids::{FlagId, OrganizationId};
use flagmint_schemas::rollup::{Table, measure};
use flagmint_store::{Period, RollupQuery, RollupStore, Rows};
use serde::Serialize;
use utoipa::ToSchema;

use crate::QueryApi;
use crate::caller::Admin;
use crate::error::{ApiError, ErrorBody, Problems};
use crate::limits::PERIOD_DAYS_MAX;
use crate::members::QueryMembers;
use crate::meta::Moment;
use crate::period::{HOUR_US, Span, iso};
use crate::questions::{Refine, Scope};
use crate::reply::{Envelope, Reply, ok};
use crate::rows::{column, sum};

/// Where every decision went.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Reconciliation {
    /// Hours of append with any record, oldest first.
    hours: Vec<ReconciledHour>,
    /// Sums of all hours.
    totals: Account,
    cross_checks: CrossChecks,
    /// Whether everything above holds.
    holds: bool,
    meta: ReconciliationMeta,
}

/// One hour of append.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ReconciledHour {
    /// Its start.
    hour: String,
    #[serde(flatten)]
    account: Account,
    /// Whether produced = counted + duplicates + parked + in flight, with nothing in flight once the hour is complete.
    holds: bool,
}

/// Decisions of some time, but `gaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Account {
    /// Announced by the headers of all records read.
    produced: u64,
    /// Folded into cells.
    counted: u64,
    /// In records recognised as duplicates.
    duplicates: u64,
    /// In records that could not be decoded.
    parked: u64,
    /// Records that a gap in a producer's sequence proves lost.
    gaps: u64,
    /// Among the counted ones, in the minute of their append because their own time was out of range.
    clamped: u64,
    /// Estimated lost with producers that ended without a goodbye; never appended, so not among the produced ones.
    estimated_missing: u64,
    /// Produced but not yet accounted for.
    in_flight: u64,
}

impl Account {
    fn add(&mut self, other: &Self) {
        self.produced += other.produced;
        self.counted += other.counted;
        self.duplicates += other.duplicates;
        self.parked += other.parked;
        self.gaps += other.gaps;
        self.clamped += other.clamped;
        self.estimated_missing += other.estimated_missing;
        self.in_flight += other.in_flight;
    }
}

/// The same decisions, summed from different tables. Exact when no decision's own time lies on the other side of `from` or `to`
/// than its append, as over all time.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CrossChecks {
    /// Counted, by the ledger.
    ledger_counted: u64,
    /// Counted, by the decision cells: served, reported, goals and application errors.
    decision_cells: u64,
    /// Of them served by the server.
    served_decision_cells: u64,
    /// Served by the server, by the latency cells.
    latency_cells: u64,
    /// Counted, by the cells of each flag's hours.
    flag_cells: u64,
    /// Counted, by the cells of all flags together.
    total_cells: u64,
    /// Billable API calls, by the usage cells.
    api_calls: u64,
    /// Whether ledger and decision cells, decision cells and those of flags and of all flags, and decision and latency cells agree.
    holds: bool,
}

/// What the reconciliation covers.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ReconciliationMeta {
    /// Start of the first hour.
    from: String,
    /// End of the last hour, not included.
    to: String,
    generated_at: String,
    /// The time up to which all decisions are known to be counted; null before the first.
    complete_through: Option<String>,
}

/// Whether every decision is accounted for, by hour of append; without `from` over all time that is kept.
#[utoipa::path(get, path = "/audit/reconciliation", tag = "Audit", params(
    ("from" = Option<String>, Query), ("to" = Option<String>, Query),
), responses((status = 200, body = Envelope<Reconciliation>), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 503, body = ErrorBody),
), security(("access_token" = [])))]
pub(crate) async fn reconciliation<S: RollupStore>(
    State(api): State<QueryApi<S>>,
    Admin(organization): Admin,
    members: QueryMembers,
) -> Reply<Reconciliation> {
    let span = span(&members, api.now())?;
    let moment = api.moment();
    let [ledger, decisions, latency, flags, totals, usage] = plan(organization, span);
    let (ledger, decisions, latency, flags, totals, usage) = tokio::try_join!(
        api.ask(ledger),
        api.ask(decisions),
        api.ask(latency),
        api.ask(flags),
        api.ask(totals),
        api.ask(usage)
    )?;
    ok(answer(span, moment, [&ledger, &decisions, &latency, &flags, &totals, &usage])?)
}

/// Whole hours, as the ledger is kept.
fn span(members: &QueryMembers, now: DateTime<Utc>) -> Result<Span, ApiError> {
    let mut problems = Problems::default();
    let asked = Span::bounds(members, now, PERIOD_DAYS_MAX, &mut problems);
    problems.finish()?;
    let hours = asked.hours_us();
    Ok(Span { from_us: hours.start, to_us: hours.end, ..asked })
}

/// Every decision is in one of these, of the tables that count what decisions are side by side.
const DECIDED: [&str; 4] = ["served", "reported", "app_errors", "goals"];

/// Questions for ledger, decisions, latencies, flags, totals and usage.
fn plan(organization: OrganizationId, span: Span) -> [RollupQuery; 6] {
    let scope = Scope { organization, project: None, environment: None };
    let question = |table| scope.question(table, span.range_us());
    [
        RollupQuery { period: Period::Hour, ..question(Table::Ledger) },
        question(Table::Decisions).by(&["flag", "measure"]),
        question(Table::Latency).only(&["count"]),
        question(Table::Flags).only(&DECIDED),
        question(Table::Totals).only(&DECIDED),
        question(Table::Usage).only(&["api_calls"]),
    ]
}

fn answer(
    span: Span,
    moment: Moment,
    [ledger, decisions, latency, flags, totals_of_flags, usage]: [&Rows; 6],
) -> Result<Reconciliation, ApiError> {
    let hours = hours(ledger, moment.complete_through_us.unwrap_or(i64::MIN))?;
    let mut totals = Account::default();
    hours.iter().for_each(|hour| totals.add(&hour.account));
    let (decision_cells, served_decision_cells) = decision_sums(decisions)?;
    let latency_cells = sum(latency, "count")?;
    let decided = |rows| DECIDED.iter().try_fold(0, |all, name| Ok::<_, ApiError>(all + sum(rows, name)?));
    let (flag_cells, total_cells) = (decided(flags)?, decided(totals_of_flags)?);
    let cross_checks = CrossChecks {
        ledger_counted: totals.counted,
        decision_cells,
        served_decision_cells,
        latency_cells,
        flag_cells,
        total_cells,
        api_calls: sum(usage, "api_calls")?,
        holds: [totals.counted, flag_cells, total_cells] == [decision_cells; 3]
            && served_decision_cells == latency_cells,
    };
    Ok(Reconciliation {
        holds: cross_checks.holds && hours.iter().all(|hour| hour.holds),
        hours,
        totals,
        cross_checks,
        meta: ReconciliationMeta {
            from: iso(span.from_us),
            to: iso(span.to_us),
            generated_at: iso(moment.now.timestamp_micros()),
            complete_through: moment.complete_through(),
        },
    })
}

fn hours(ledger: &Rows, complete_through_us: i64) -> Result<Vec<ReconciledHour>, ApiError> {
    let count = |name| column::<u64>(ledger, name);
    let (produced, counted, duplicates) = (count("produced")?, count("counted")?, count("duplicate_decisions")?);
    let (parked, gaps, clamped) = (count("parked_decisions")?, count("gaps")?, count("clamped")?);
    let missing = count("estimated_missing")?;
    let mut times: Vec<(i64, usize)> = column::<i64>(ledger, "time_us")?.into_iter().zip(0..).collect();
    times.sort_unstable();
    let hour = |(hour_us, row): (i64, usize)| {
        let accounted = counted[row] + duplicates[row] + parked[row];
        let account = Account {
            produced: produced[row],
            counted: counted[row],
            duplicates: duplicates[row],
            parked: parked[row],
            gaps: gaps[row],
            clamped: clamped[row],
            estimated_missing: missing[row],
            in_flight: produced[row].saturating_sub(accounted),
        };
        let is_complete = complete_through_us >= hour_us + HOUR_US;
        let holds = account.produced == accounted + account.in_flight && (account.in_flight == 0 || !is_complete);
        ReconciledHour { hour: iso(hour_us), account, holds }
    };
    Ok(times.into_iter().map(hour).collect())
}

/// Decisions in all cells, and those of them that the server made. Calls that failed before evaluation are cells without
/// a flag and no decisions.
fn decision_sums(decisions: &Rows) -> Result<(u64, u64), ApiError> {
    let flags = column::<FlagId>(decisions, "flag")?;
    let measures = column::<u8>(decisions, "measure")?;
    let rows = flags.into_iter().zip(measures).zip(column::<u64>(decisions, "count")?);
    let decided = rows.filter(|((flag, _), _)| !flag.is_none());
    Ok(decided.fold((0, 0), |(all, served), ((_, measure), count)| {
        (all + count, served + if measure == measure::SERVED { count } else { 0 })
    }))
}
