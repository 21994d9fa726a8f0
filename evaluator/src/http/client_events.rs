//! `POST /evaluator/events`: what clients report of their own evaluations, goals and application errors (data-plane.md section 8).
//!
//! A batch is accepted as a whole or not at all (401, 403, 413, 429, 400 for what is no list of events); within it each event
//! is accepted or dropped by itself, and every drop is counted under its cause.

mod event;
mod repeats;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::{CallFacts, CallerName, EnvironmentRecorder, KnownContext};
use flagmint_schemas::batch::{DecisionRow, ObservedContext};
use flagmint_schemas::decision::{Transport, Trigger};
use serde_json::{Map, Value, json};

use super::DataPlane;
use super::admission::{enter, read_body};
use super::error::DataPlaneError;
use super::identity::Identity;
use super::received::Received;
use crate::directory::Key;
use crate::limits::{EVENTS_BODY_BYTES_MAX, EVENTS_MAX};
use crate::quota::Meter;
use crate::snapshot::Snapshot;

use event::{Dropped, Event};
pub use repeats::Repeats;

/// Takes a batch of events: evaluations that the client made itself, goals, application errors.
#[utoipa::path(post, path = "/evaluator/events", tag = "Evaluation",
    params(("x-api-key" = String, Header, description = "An SDK key")),
    request_body(content = serde_json::Value, description = "{\"events\": […]}, at most 500 and 256 KiB"),
    responses((status = 202, body = serde_json::Value, description = "How many were accepted and dropped"),
        (status = 400, description = "parse_error"), (status = 401, description = "invalid_api_key"),
        (status = 403, description = "subscription_inactive"), (status = 413, description = "payload_too_large"),
        (status = 429, description = "RATE_LIMITED, with Retry-After"), (status = 500, description = "internal_error")))]
pub async fn client_events(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, body) = request.into_parts();
    enter(&plane, &parts.headers, &received, async |key: Arc<Key>| {
        let body = read_body(body, EVENTS_BODY_BYTES_MAX).await?;
        take(&plane, &parts.headers, &key, &received, &body).map(Taken::into_response)
    })
    .await
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    accepted: usize,
    dropped: usize,
}

impl Taken {
    fn drop(&mut self, events: usize, cause: Dropped) {
        self.dropped += events;
        metrics::counter!("flagmint_evaluator_events_dropped_total", "cause" => cause.as_str())
            .increment(events as u64);
    }

    fn into_response(self) -> Response {
        metrics::counter!("flagmint_evaluator_events_accepted_total").increment(self.accepted as u64);
        let data = json!({ "accepted": self.accepted, "dropped": self.dropped });
        let body = json!({ "statusCode": 202, "message": "Accepted", "data": data });
        (StatusCode::ACCEPTED, axum::Json(body)).into_response()
    }
}

fn take(
    plane: &DataPlane,
    headers: &HeaderMap,
    key: &Key,
    received: &Received,
    body: &[u8],
) -> Result<Taken, DataPlaneError> {
    let guard = key.environment.snapshot();
    let snapshot = guard.as_ref().ok_or(DataPlaneError::Internal)?;
    if !snapshot.subscription_active {
        return Err(DataPlaneError::SubscriptionInactive);
    }
    let list = list_of(body)?;
    let mut taken = Taken::default();
    if !plane.inner.repeats.is_new(key.facts.id, body, received.at) {
        taken.drop(list.len(), Dropped::Repeated);
        return Ok(taken);
    }
    let in_flight = plane.directory().begin();
    let organization = snapshot.identity.organization;
    let is_over_limit = plane.directory().limit_reached(organization, Meter::TrackEvents, received.time_us).is_some();
    let (identity, call_id) = (Identity::of(headers), plane.inner.calls.next());
    let batch = Batch { snapshot, key, received, identity, call_id, is_over_limit };
    let mut user = User::default();
    for event in list.iter().take(EVENTS_MAX) {
        let read = Event::read(event, in_flight.received_us());
        match read.and_then(|event| batch.record(&event, &mut user)) {
            Ok(()) => taken.accepted += 1,
            Err(cause) => taken.drop(1, cause),
        }
    }
    taken.drop(list.len().saturating_sub(EVENTS_MAX), Dropped::Excess);
    Ok(taken)
}

fn list_of(body: &[u8]) -> Result<Vec<Value>, DataPlaneError> {
    let refuse = |why: String| DataPlaneError::Parse(format!("body is not {{\"events\":[…]}}: {why}"));
    let body: Value = serde_json::from_slice(body).map_err(|error| refuse(error.to_string()))?;
    let Value::Object(mut members) = body else { return Err(refuse("it is no object".into())) };
    match members.swap_remove("events") {
        Some(Value::Array(events)) => Ok(events),
        Some(_) => Err(refuse("`events` is no list".into())),
        None => Err(refuse("`events` is missing".into())),
    }
}

/// What all events of a batch share.
struct Batch<'a> {
    snapshot: &'a Snapshot,
    key: &'a Key,
    received: &'a Received,
    identity: Identity<'a>,
    call_id: u128,
    /// No more goals and application errors this month. Never 429 for that: PHP would keep them without end.
    is_over_limit: bool,
}

/// The user of the event before: those of one batch are mostly the same.
#[derive(Default)]
struct User {
    key: String,
    context: Option<KnownContext>,
}

impl Batch<'_> {
    fn record(&self, event: &Event<'_>, user: &mut User) -> Result<(), Dropped> {
        let compiled = &self.snapshot.compiled;
        let flag = compiled.flag_index(event.flag_key).ok_or(Dropped::UnknownFlag)?;
        if !compiled.flags()[flag].analytics_enabled() {
            return Err(Dropped::NoAnalytics);
        }
        let is_tracked = event.trigger != Trigger::Report;
        if is_tracked && self.is_over_limit {
            return Err(Dropped::OverLimit);
        }
        let Some(recorder) = &self.snapshot.recorder else { return Ok(()) };
        let facts = CallFacts {
            call_id: self.call_id,
            event_time_us: event.time_us,
            latency_us: self.received.latency_us(),
            config_version: self.snapshot.version,
            caller: recorder.caller(self.caller(event.trigger)),
            context: event.user_key.map(|key| user.known(recorder, key)),
            track_events: u32::from(is_tracked),
            ..CallFacts::default()
        };
        let outcome = self.snapshot.reported_outcome(flag, event.variation_value);
        let row = DecisionRow { outcome, bucket: DecisionRow::NO_BUCKET, count: event.count };
        if recorder.record_rows(facts, std::iter::once(row)) { Ok(()) } else { Err(Dropped::Refused) }
    }

    fn caller(&self, trigger: Trigger) -> CallerName<'_> {
        let Identity { sdk_name, sdk_version, platform, wrapper } = self.identity;
        let silent = CallerName::silent(self.key.facts.id, Transport::Events, trigger);
        CallerName { sdk_name, sdk_version, platform, wrapper, ..silent }
    }
}

impl User {
    /// What may be logged of a user: the key, as the pseudonym that contexts of the same user have, and no attributes.
    fn known(&mut self, recorder: &EnvironmentRecorder, key: &str) -> &KnownContext {
        if self.key != key {
            self.context = None;
            key.clone_into(&mut self.key);
        }
        self.context.get_or_insert_with(|| {
            let context = Map::from_iter([("kind".into(), "user".into()), ("key".into(), key.into())]);
            let observed = recorder.observe(&context).observed().clone();
            ObservedContext { attributes: None, ..observed }.into()
        })
    }
}
