//! What a client is told whose organization has reached its monthly limit (data-plane.md 10.3).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat};
use serde_json::value::RawValue;

use crate::engine::{Context, Scratch};
use crate::limits::QUOTA_RETRY_MAX_S;
use crate::quota::{Limit, Meter};
use crate::snapshot::Snapshot;

/// The message: a reply's body, or the data of a stream's event. `values` is a JSON object; one without members is left out, as a
/// client that is given none carries on with what it has.
#[must_use]
pub fn message(limit: &Limit, values: Option<&str>, now_us: i64) -> String {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Message<'a> {
        status_code: u16,
        error: &'static str,
        message: String,
        retry_after: i64,
        upgrade_url: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    let what = match limit.meter {
        Meter::ApiCalls => "API call",
        Meter::Connections => "connection",
        Meter::ObservedContexts => "observed context",
        Meter::TrackEvents => "event",
    };
    let message = Message {
        status_code: StatusCode::TOO_MANY_REQUESTS.as_u16(),
        error: "QUOTA_EXCEEDED",
        message: format!("Monthly {what} limit reached for the \"{}\" plan.", limit.plan.to_lowercase()),
        retry_after: retry_after_s(limit, now_us),
        upgrade_url: "/settings/subscription",
        data: values.filter(|values| *values != "{}").and_then(|values| serde_json::from_str(values).ok()),
    };
    serde_json::to_string(&message).unwrap_or_default()
}

/// Whole seconds until the month ends, an hour at most.
fn retry_after_s(limit: &Limit, now_us: i64) -> i64 {
    let left_us = limit.until_us.saturating_sub(now_us);
    (left_us.saturating_add(999_999) / 1_000_000).clamp(1, QUOTA_RETRY_MAX_S)
}

/// 429 with the message.
#[must_use]
pub fn refusal(limit: &Limit, values: Option<&str>, now_us: i64) -> Response {
    metrics::counter!("flagmint_evaluator_over_quota_total").increment(1);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::RETRY_AFTER, HeaderValue::from(retry_after_s(limit, now_us))),
    ];
    (StatusCode::TOO_MANY_REQUESTS, headers, message(limit, values, now_us)).into_response()
}

/// The reason with which a socket is closed: clients take what follows `after ` for the time the limit ends.
#[must_use]
pub fn close_reason(limit: &Limit) -> String {
    let end = DateTime::from_timestamp_micros(limit.until_us).unwrap_or_default();
    format!("Rate limit exceeded, retry after {}", end.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The values of an environment for the context without members, as a JSON object: what a client over its limit is given.
#[must_use]
pub fn values_for_nobody(snapshot: &Snapshot, now_us: i64) -> String {
    let mut scratch = Scratch::default();
    let decisions = snapshot.compiled.decide_all(&Context::empty(), now_us, &mut scratch);
    let mut values = Vec::new();
    snapshot.write_values(decisions, &mut values);
    String::from_utf8(values).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// 2026-12-01T00:00:00Z.
    const DECEMBER_US: i64 = 1_796_083_200_000_000;

    fn limit() -> Limit {
        Limit { meter: Meter::ApiCalls, until_us: DECEMBER_US, plan: "Free".into() }
    }

    #[test]
    fn the_message_is_as_clients_know_it() {
        let text = message(&limit(), Some(r#"{"new-checkout":false}"#), DECEMBER_US - 90_000_000_000);
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({ "statusCode": 429, "error": "QUOTA_EXCEEDED", "retryAfter": 3600,
            "message": "Monthly API call limit reached for the \"free\" plan.",
            "upgradeUrl": "/settings/subscription", "data": { "new-checkout": false } });
        assert_eq!(found, expected);
        for values in [None, Some("{}")] {
            let found: Value = serde_json::from_str(&message(&limit(), values, 0)).expect("JSON");
            assert!(found.get("data").is_none(), "{found}");
        }
    }

    #[test]
    fn clients_are_told_when_to_ask_again() {
        for (left_us, seconds) in [(1, 1), (1_000_000, 1), (1_000_001, 2), (4_000_000_000, 3600), (-5, 1)] {
            assert_eq!(retry_after_s(&limit(), DECEMBER_US - left_us), seconds, "{left_us} us");
        }
    }

    #[test]
    fn the_close_reason_fits_a_close_frame() {
        let reason = close_reason(&limit());
        assert_eq!(reason, "Rate limit exceeded, retry after 2026-12-01T00:00:00.000Z");
        assert!(reason.len() <= 123 && reason.matches("after ").count() == 1);
    }
}
