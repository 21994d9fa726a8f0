//! `GET /evaluator/v2/flags/stream`: server-sent events (data-plane.md section 6). The session is the credential, and the reply is
//! always 200: browsers cannot read the body of a stream that failed.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};

use super::DataPlane;
use super::call::Call;
use super::config_stream;
use super::events::{EventStream, error, quota_exceeded};
use super::identity::{Identity, cut};
use super::message::code_of;
use super::query::{lenient_base64, member};
use super::quota;
use super::received::Received;
use crate::config_sync::feed;
use crate::directory::Key;
use crate::engine::Context;
use crate::limits::CONTEXT_BYTES_MAX;
use crate::quota::Meter;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::streams::{Client, Refusal};

/// No proxy on the way may hold events back, change or keep them.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
];

/// The context of a client that names none.
const NO_CONTEXT: &str = "{}";

/// Why there is no stream: an event's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// What the query asks for.
pub struct Ask<'q> {
    query: &'q str,
    /// Empty if there is none.
    pub session_id: Cow<'q, str>,
}

impl<'q> Ask<'q> {
    fn of(query: &'q str) -> Self {
        Self { query, session_id: member(query, "sessionId").unwrap_or_default() }
    }

    /// What a client that evaluates by itself asks for.
    fn configuration(&self) -> Option<feed::Ask> {
        feed::Ask::of(self.member("fullConfig").as_deref(), self.member("sinceVersion").as_deref())
    }

    /// Any member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Cow<'q, str>> {
        member(self.query, name)
    }

    /// Who the client says it is. The library's name is what its platform and headers tell.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap) -> Client {
        let text = |name: &str, default: &'static str| {
            self.member(name).filter(|text| !text.is_empty()).unwrap_or(Cow::Borrowed(default))
        };
        let (version, platform) = (text("sdkVersion", ""), text("platform", ""));
        let (wrapper, wrapper_version) = (text("wrapperName", "native-js"), text("wrapperVersion", "none"));
        let wrapper = if wrapper_version == "none" { wrapper } else { format!("{wrapper}/{wrapper_version}").into() };
        Client::new(Identity {
            sdk_name: Identity::of(headers).sdk_name,
            sdk_version: cut(&version),
            platform: cut(&platform),
            wrapper: cut(&wrapper),
        })
    }
}

/// A stream of the environment's flags for one context. Events: `connected`, `flags`, `quota_exceeded`, `error`; with `fullConfig` or
/// `sinceVersion`, `connected` and signed configuration.
#[utoipa::path(get, path = "/evaluator/v2/flags/stream", tag = "Evaluation",
    params(("sessionId" = String, Query, description = "From the handshake; good once"),
        ("context" = Option<String>, Query, description = "Base64 of the JSON context"),
        ("sdkVersion" = Option<String>, Query), ("platform" = Option<String>, Query),
        ("wrapperName" = Option<String>, Query), ("wrapperVersion" = Option<String>, Query),
        ("fullConfig" = Option<String>, Query, description = "true: the whole configuration, to evaluate by oneself"),
        ("sinceVersion" = Option<String>, Query, description = "The configuration version that the client has")),
    responses((status = 200, content_type = "text/event-stream", body = serde_json::Value,
        description = "Failures are `error` events: session_id_missing, invalid_api_key, subscription_inactive, invalid_context, config_mac_required, internal_error")))]
pub async fn stream(State(plane): State<DataPlane>, request: Request) -> Response {
    let received = Received::now();
    let (parts, _) = request.into_parts();
    let ask = Ask::of(parts.uri.query().unwrap_or_default());
    let body = match admit(&plane, &ask, &received).await {
        Ok((session, key)) => match ask.configuration() {
            None => open(&plane, &ask, &parts.headers, &key, &received),
            Some(wanted) => config_stream::open(&plane, &ask, &parts.headers, (session, key), &received, wanted).await,
        },
        Err(refused) => Err(refused),
    };
    let body = body.unwrap_or_else(|Refused(code)| {
        metrics::counter!("flagmint_evaluator_streams_refused_total", "reason" => code).increment(1);
        Body::from(error(code))
    });
    (HEADERS, body).into_response()
}

/// The session, used up with this, and its key.
async fn admit(plane: &DataPlane, ask: &Ask<'_>, received: &Received) -> Result<(Session, Arc<Key>), Refused> {
    let now_us = received.time_us;
    let unknown = Refused("session_id_missing");
    let session = plane.sessions().open(&ask.session_id, now_us).ok_or(unknown)?;
    if !plane.used_sessions().claim(&ask.session_id, session.expires_us, now_us).await {
        return Err(unknown);
    }
    let key = plane.directory().usable_key(&session.key, now_us);
    let key = key.filter(|key| key.environment.id == session.environment).ok_or(Refused("invalid_api_key"))?;
    key.touch(now_us);
    Ok((session, key))
}

fn open(
    plane: &DataPlane,
    ask: &Ask<'_>,
    headers: &HeaderMap,
    key: &Arc<Key>,
    received: &Received,
) -> Result<Body, Refused> {
    let guard = key.environment.snapshot();
    let snapshot = guard.as_ref().ok_or(Refused("internal_error"))?;
    if !snapshot.subscription_active {
        return Err(Refused("subscription_inactive"));
    }
    let client = ask.client(headers);
    let context = context(ask).map_err(|error_code| {
        let call = Call::new(plane, received, key.facts.id, (Transport::Sse, Trigger::Context), client.identity());
        call.fail(snapshot, Some(error_code), plane.directory().begin().received_us());
        Refused("invalid_context")
    })?;
    let trigger = if context.is_some() { Trigger::Context } else { Trigger::Connect };
    let context = context.as_deref().unwrap_or(NO_CONTEXT);
    let refused = |refusal| match refusal {
        Refusal::TooManyOfKey | Refusal::GoingAway => Refused("internal_error"),
    };
    let opened = plane.streams().open(plane, key, Transport::Sse, client, Some(context)).map_err(refused)?;
    if let Some(refusal) = over_limit(plane, snapshot, received.time_us) {
        return Ok(Body::from(super::events::connected(&opened.id()) + &refusal));
    }
    let facts = CallFacts { connections: 1, ..CallFacts::default() };
    let map = opened.connection.evaluate(plane, trigger, facts).ok_or(Refused("internal_error"))?;
    Ok(Body::new(EventStream::new(opened, &map)))
}

/// The event for an organization that may open no more, or have nothing evaluated any more, this month.
fn over_limit(plane: &DataPlane, snapshot: &Snapshot, now_us: i64) -> Option<String> {
    let reached = |meter| plane.directory().limit_reached(snapshot.identity.organization, meter, now_us);
    let limit = reached(Meter::ApiCalls).or_else(|| reached(Meter::Connections))?;
    Some(quota_exceeded(&limit, Some(&quota::values_for_nobody(snapshot, now_us)), now_us))
}

/// The context as JSON; `None` if it is empty.
pub fn context(ask: &Ask<'_>) -> Result<Option<String>, ErrorCode> {
    let Some(sent) = ask.member("context").filter(|sent| !sent.is_empty()) else { return Ok(None) };
    let json = lenient_base64(&sent).filter(|json| json.len() <= CONTEXT_BYTES_MAX).ok_or(ErrorCode::ParseError)?;
    let json = String::from_utf8(json).map_err(|_| ErrorCode::ParseError)?;
    let context = Context::from_json(json.as_bytes()).map_err(|error| code_of(&error))?;
    Ok((!context.members().is_empty()).then_some(json))
}
