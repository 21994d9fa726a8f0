//! The audit of a running instance, over its API.

use serde_json::Value;

use super::Hour;
use crate::exit::Failure;
use crate::options::AuditOptions;

/// The hours that the instance's reconciliation answers for the caller's organization.
///
/// # Errors
/// If it cannot be reached or refuses.
pub async fn hours(url: &str, options: &AuditOptions) -> Result<Vec<Hour>, Failure> {
    let range = super::offline::range(options)?;
    let iso = |time_us: i64| {
        chrono::DateTime::from_timestamp_micros(time_us)
            .unwrap_or_default()
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    };
    let path = format!("{}/audit/reconciliation", url.trim_end_matches('/'));
    let answer = reqwest::Client::new()
        .get(&path)
        .query(&[("from", iso(range.start)), ("to", iso(range.end))])
        .bearer_auth(options.access_token.as_deref().unwrap_or_default())
        .send()
        .await
        .map_err(|error| Failure::resource(url, error))?;
    let status = answer.status();
    let mut body: Value = answer.json().await.map_err(|error| Failure::resource(url, error))?;
    if !status.is_success() {
        return Err(Failure::resource(url, format!("{status}: {}", body["message"].as_str().unwrap_or_default())));
    }
    serde_json::from_value(body["data"]["hours"].take()).map_err(|error| Failure::resource(url, error))
}
