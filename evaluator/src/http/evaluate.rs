//! `POST /evaluator/evaluate`: every flag of the key's environment for one context (data-plane.md section 3).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::{CallFacts, CallerName};
use flagmint_schemas::batch::DecisionRow;
use flagmint_schemas::decision::{Transport, Trigger};
use http_body_util::LengthLimitError;
use subtle::ConstantTimeEq;

use super::DataPlane;
use super::context::{CONTEXT, context_of};
use super::error::DataPlaneError;
use super::identity::{Identity, cut};
use super::rate::RateVerdict;
use crate::contexts::Seen;
use crate::directory::Key;
use crate::engine::{Context, Decision, Scratch};
use crate::limits::BODY_BYTES_MAX;
use crate::snapshot::Snapshot;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const BYPASS: HeaderName = HeaderName::from_static("x-bypass-rate-limit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Ids of calls: a random half per process, then a count.
pub struct CallIds {
    seed: u64,
    next: AtomicU64,
}

impl CallIds {
    pub const fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    fn next(&self) -> u128 {
        u128::from(self.seed) << 64 | u128::from(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// When a request came, by the wall clock and by the steady one.
struct Received {
    at: Instant,
    time_us: i64,
}

impl Received {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at: Instant::now(), time_us: i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX) }
    }

    fn seconds(&self) -> u64 {
        self.time_us.unsigned_abs() / 1_000_000
    }
}

/// Every flag of the key's environment for one context. Flat, or in an envelope for contexts whose `custom.source` is `SDK` or `API`.
#[utoipa::path(post, path = "/evaluator/evaluate", tag = "Evaluation",
    params(("x-api-key" = String, Header, description = "An SDK key")),
    request_body(content = serde_json::Value, description = "{\"context\": {…}}; an absent context is an empty one"),
    responses((status = 200, body = serde_json::Value, description = "Flag keys and values"),
        (status = 400, description = "parse_error, invalid_context"), (status = 401, description = "invalid_api_key"),
        (status = 403, description = "subscription_inactive"), (status = 413, description = "payload_too_large"),
        (status = 429, description = "RATE_LIMITED, with Retry-After"), (status = 500, description = "internal_error")))]
pub async fn evaluate(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let key = match authenticate(&plane, &headers, &received) {
        Ok(key) => key,
        Err(error) => return error.into_response(),
    };
    let verdict = admit(&plane, &headers, &key, &received);
    let mut response = if verdict.admitted {
        let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(unreadable);
        Call { plane: &plane, headers: &headers, key: &key, received: &received }.answer(body)
    } else {
        let retry_after_s = verdict.reset_s.saturating_sub(received.seconds()).max(1);
        DataPlaneError::RateLimited { retry_after_s }.into_response()
    };
    rate_headers(response.headers_mut(), &verdict);
    response
}

fn authenticate(plane: &DataPlane, headers: &HeaderMap, received: &Received) -> Result<Arc<Key>, DataPlaneError> {
    let text = headers.get(API_KEY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = plane.directory().authenticate(text, received.time_us).ok_or(DataPlaneError::InvalidApiKey)?;
    key.touch(received.time_us);
    Ok(key)
}

fn admit(plane: &DataPlane, headers: &HeaderMap, key: &Key, received: &Received) -> RateVerdict {
    let bypassed = match (&plane.inner.bypass_token, headers.get(BYPASS)) {
        (Some(token), Some(sent)) => bool::from(token.as_bytes().ct_eq(sent.as_bytes())),
        _ => false,
    };
    let limit = if bypassed { 0 } else { key.facts.rate_limit_per_minute };
    key.rate.admit(received.seconds(), limit)
}

fn rate_headers(headers: &mut HeaderMap, verdict: &RateVerdict) {
    headers.insert(LIMIT, HeaderValue::from(verdict.limit));
    headers.insert(REMAINING, HeaderValue::from(verdict.remaining));
    headers.insert(RESET, HeaderValue::from(verdict.reset_s));
}

/// A body that ended early is undecodable; one that is too long is refused as such.
fn unreadable(error: axum::Error) -> DataPlaneError {
    let too_long = std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
    if too_long {
        DataPlaneError::PayloadTooLarge
    } else {
        DataPlaneError::Parse(format!("body is not readable: {error}"))
    }
}

/// One admitted request whose body has been read.
struct Call<'a> {
    plane: &'a DataPlane,
    headers: &'a HeaderMap,
    key: &'a Key,
    received: &'a Received,
}

impl Call<'_> {
    /// Answers the call and records what was decided, or why nothing was.
    fn answer(&self, body: Result<Bytes, DataPlaneError>) -> Response {
        let guard = self.key.environment.snapshot();
        let Some(snapshot) = guard.as_ref() else { return DataPlaneError::Internal.into_response() };
        if !snapshot.subscription_active {
            return DataPlaneError::SubscriptionInactive.into_response();
        }
        // From here on the call holds the watermark back; before, a slow body could have held it for long.
        let in_flight = self.plane.directory().begin();
        match body.and_then(|body| self.seen(snapshot, &body)) {
            Ok(seen) => self.decide(snapshot, &seen, in_flight.received_us()).into_response(),
            Err(error) => {
                let event_time_us = in_flight.received_us();
                let outcome = CallFacts { error_code: error.recorded_as(), event_time_us, ..CallFacts::default() };
                self.record(snapshot, outcome, None, &[]);
                error.into_response()
            }
        }
    }

    /// The context asked for. One in a header is read each time: only Go sends it so, and rarely.
    fn seen(&self, snapshot: &Snapshot, body: &Bytes) -> Result<Arc<Seen>, DataPlaneError> {
        let read = || {
            let context = context_of(self.headers, body)?;
            let observed = snapshot.recorder.as_ref().map(|recorder| Arc::new(recorder.observe(context.members())));
            Ok(Seen { context, observed })
        };
        let is_in_body = !self.headers.contains_key(CONTEXT);
        if is_in_body { snapshot.contexts.get_or_read(body, read) } else { read().map(Arc::new) }
    }

    /// Decides every flag; the reply's body.
    fn decide(&self, snapshot: &Snapshot, seen: &Seen, now_us: i64) -> impl IntoResponse + use<> {
        let context = &seen.context;
        SCRATCH.with_borrow_mut(|scratch| {
            let started = Instant::now();
            let decisions = snapshot.compiled.decide_all(context, now_us, scratch);
            let evaluation_ns = saturate(started.elapsed().as_nanos());
            let body = self.body(snapshot, context, decisions);
            let outcome = CallFacts { evaluation_ns, api_calls: 1, event_time_us: now_us, ..CallFacts::default() };
            let latency_us = self.record(snapshot, outcome, Some(seen), decisions);
            self.plane.observe(latency_us, evaluation_ns, decisions.len());
            ([(header::CONTENT_TYPE, JSON)], body)
        })
    }

    /// Flat, or in the envelope that JS clients want (data-plane.md 3.2).
    fn body(&self, snapshot: &Snapshot, context: &Context, decisions: &[Decision]) -> Vec<u8> {
        let enveloped = !self.headers.contains_key(CONTEXT) && matches!(context.source(), Some("SDK" | "API"));
        let mut out = Vec::new();
        if enveloped {
            out.extend_from_slice(br#"{"statusCode":200,"message":"OK","data":"#);
        }
        snapshot.write_values(decisions, &mut out);
        if enveloped {
            out.push(b'}');
        }
        out
    }

    fn caller<'a>(&'a self, context: Option<&'a Context>) -> CallerName<'a> {
        let Identity { sdk_name, sdk_version, platform, wrapper } = Identity::of(self.headers);
        CallerName {
            key: self.key.facts.id,
            transport: Transport::Rest,
            trigger: Trigger::Evaluate,
            source: cut(context.and_then(Context::source).unwrap_or_default()),
            sdk_name,
            sdk_version,
            platform,
            wrapper,
        }
    }

    /// Records the call with its decisions; returns its latency up to here, microseconds.
    fn record(&self, snapshot: &Snapshot, outcome: CallFacts, seen: Option<&Seen>, decisions: &[Decision]) -> u32 {
        let latency_us = saturate(self.received.at.elapsed().as_micros());
        let Some(recorder) = &snapshot.recorder else { return latency_us };
        let facts = CallFacts {
            call_id: self.plane.inner.calls.next(),
            latency_us,
            config_version: snapshot.version,
            caller: recorder.caller(self.caller(seen.map(|seen| &seen.context))),
            context: seen.and_then(|seen| seen.observed.clone()),
            ..outcome
        };
        let row = |decision: &Decision| DecisionRow {
            outcome: decision.outcome.0,
            bucket: decision.bucket.unwrap_or(DecisionRow::NO_BUCKET),
            count: 1,
        };
        // A refusal is counted by the recorder; the reply does not wait for anything it could do about it.
        let _ = recorder.record_rows(&facts, decisions.iter().map(row));
        latency_us
    }
}

thread_local! {
    /// The working memory of evaluations, so that deciding allocates nothing.
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

fn saturate(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
