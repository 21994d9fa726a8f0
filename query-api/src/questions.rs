//! The questions that several endpoints ask the store.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::Range;

use flagmint_schemas::ids::{FlagId, OrganizationId};
use flagmint_schemas::rollup::{Table, counting};
use flagmint_store::{Filter, Period, RollupQuery};
use uuid::Uuid;

use crate::period::Span;

/// Whose cells are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The caller's organization.
    pub(crate) organization: OrganizationId,
    /// One project, or all.
    pub(crate) project: Option<Uuid>,
    /// One environment, or all.
    pub(crate) environment: Option<Uuid>,
}

impl Scope {
    /// All cells of `table` in the scope and time, in one row.
    pub(crate) fn question(self, table: Table, time_us: Range<i64>) -> RollupQuery {
        let one = |name, id: Option<Uuid>| id.map(|id| Filter::IdIn(name, vec![id]));
        RollupQuery {
            table,
            organization: Some(self.organization),
            time_us,
            filters: one("project", self.project).into_iter().chain(one("environment", self.environment)).collect(),
            group_by: Vec::new(),
            period: Period::Whole,
            values: None,
            having: None,
            page: None,
        }
    }

    /// Decisions that count in analytics.
    pub(crate) fn decisions(self, span: Span, group_by: &[&'static str]) -> RollupQuery {
        counted(self.question(Table::Decisions, span.range_us())).by(group_by)
    }

    /// Some numbers of each flag's decisions that count in analytics: from its few rows by the hour, unless the span ends between hours.
    pub(crate) fn by_flag(self, span: Span, numbers: &[&'static str]) -> RollupQuery {
        if span.range_us() == span.hours_us() {
            counted(self.question(Table::Flags, span.range_us())).by(&["flag"]).only(numbers)
        } else {
            self.decisions(span, &["flag", "measure", "reason"])
        }
    }

    /// What the decisions of all flags that count in analytics add up to.
    pub(crate) fn totals(self, span: Span) -> RollupQuery {
        counted(self.question(Table::Totals, span.range_us()))
    }

    /// Latencies of the decisions that count in analytics.
    pub(crate) fn latency(self, span: Span) -> RollupQuery {
        counted(self.question(Table::Latency, span.range_us()))
    }

    /// Distinct user keys of flags: of all variations together, unless `group_by` names `variation`.
    pub(crate) fn uniques(self, span: Span, flags: &[FlagId], group_by: &[&'static str]) -> RollupQuery {
        let mut question = self.question(Table::Uniques, span.days_us()).of_flags(flags).by(group_by);
        if !group_by.contains(&"variation") {
            question.filters.push(Filter::IdIn("variation", vec![Uuid::nil()]));
        }
        question
    }

    /// Distinct user keys of all flags together.
    pub(crate) fn users(self, span: Span) -> RollupQuery {
        self.question(Table::Users, span.days_us())
    }

    /// What the ledger has to say in [`crate::meta::Meta`]: whatever was late was so for an environment, not for a flag.
    pub(crate) fn ledger(self, span: Span) -> RollupQuery {
        self.question(Table::Ledger, span.hours_us()).only(&["clamped"])
    }
}

fn counted(mut question: RollupQuery) -> RollupQuery {
    question.filters.push(Filter::CodeIn("counting", vec![counting::COUNTED]));
    question
}

/// Refinements of a question.
pub(crate) trait Refine: Sized {
    /// Keeps dimensions apart.
    fn by(self, group_by: &[&'static str]) -> Self;

    /// Cuts by the span's granularity.
    fn per_point(self, span: Span) -> Self;

    /// About the period before as well: rows of both, of which `time_us` is where theirs begins.
    fn with_previous(self, span: Span) -> Self;

    /// Some flags alone.
    fn of_flags(self, flags: &[FlagId]) -> Self;

    /// Some values alone, in the table's order.
    fn only(self, values: &[&'static str]) -> Self;
}

impl Refine for RollupQuery {
    fn by(mut self, group_by: &[&'static str]) -> Self {
        self.group_by = group_by.to_vec();
        self
    }

    fn per_point(mut self, span: Span) -> Self {
        self.period = span.granularity.period();
        self
    }

    fn with_previous(mut self, span: Span) -> Self {
        let start_us = span.previous().from_us;
        self.time_us = start_us..span.to_us;
        self.period = Period::Spans([start_us, span.from_us]);
        self
    }

    fn of_flags(mut self, flags: &[FlagId]) -> Self {
        self.filters.push(Filter::IdIn("flag", flags.iter().map(|flag| flag.0).collect()));
        self
    }

    fn only(mut self, values: &[&'static str]) -> Self {
        self.values = Some(values.to_vec());
        self
    }
}
