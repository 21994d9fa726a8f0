//! `meta`, which says of every analytics reply what it covers and how far it can be trusted.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use chrono::{DateTime, Utc};
use flagmint_schemas::sketch::unique::STANDARD_ERROR;
use flagmint_store::Rows;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::period::{Span, iso, iso_date};
use crate::rows::sum;

/// What a reply covers.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AnalyticsMeta)]
pub(crate) struct Meta {
    /// Start of the period as used, included; times asked for are rounded outwards to minutes.
    from: String,
    /// End of the period as used, not included.
    to: String,
    /// `day` or `hour`.
    granularity: &'static str,
    /// When the question was answered.
    generated_at: String,
    /// The time up to which all decisions are known to be counted; null before the first.
    complete_through: Option<String>,
    /// Decisions appended in the period whose own time was out of range, so that they count in the minute they were
    /// appended; of the whole project or environment.
    late_events: u64,
    /// Standard error of `unique_users`, as a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_users_error: Option<f64>,
    /// The whole UTC days that `unique_users` cover: those that the period touches.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_users_days: Option<Days>,
}

/// Whole UTC days, both included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Days {
    from: String,
    to: String,
}

/// The state of things when a question began: whatever was complete then is in its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The clock.
    pub(crate) now: DateTime<Utc>,
    /// The store's watermark, microseconds.
    pub(crate) complete_through_us: Option<i64>,
}

impl Moment {
    /// The watermark as people read it.
    pub(crate) fn complete_through(self) -> Option<String> {
        self.complete_through_us.map(iso)
    }

    /// `meta` for a span and the sums of the ledger in it.
    pub(crate) fn meta(self, span: Span, ledger: &Rows) -> Result<Meta, ApiError> {
        Ok(Meta {
            from: iso(span.from_us),
            to: iso(span.to_us),
            granularity: span.granularity.as_str(),
            generated_at: iso(self.now.timestamp_micros()),
            complete_through: self.complete_through(),
            late_events: sum(ledger, "clamped")?,
            unique_users_error: None,
            unique_users_days: None,
        })
    }
}

impl Meta {
    /// With what there is to know about `unique_users`.
    pub(crate) fn with_users(mut self, span: Span) -> Self {
        let days = span.days_us();
        self.unique_users_error = Some(STANDARD_ERROR);
        self.unique_users_days = Some(Days { from: iso_date(days.start), to: iso_date(days.end - 1) });
        self
    }
}
