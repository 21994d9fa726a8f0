//! `GET /ws/sdk`: a socket (data-plane.md section 4). It is accepted always and judged afterwards, since clients cannot tell why an
//! upgrade was refused, and retry.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{ErrorCode, Transport, Trigger};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::DataPlane;
use super::admission::{API_KEY, authenticate_text};
use super::call::Call;
use super::context::CONTEXT;
use super::error::DataPlaneError;
use super::identity::Identity;
use super::message::code_of;
use super::query::member;
use super::received::Received;
use super::socket::{Close, Socket};
use crate::directory::{Key, key_hash};
use crate::engine::Context;
use crate::limits::{CLOSE_DELAY, FIRST_FLAGS_AFTER, FRAME_BYTES_MAX, SOCKET_READ_BYTES, SOCKET_WRITE_BYTES_MAX};
use crate::streams::{Client, Open, Refusal};

/// Who wants a socket, taken from the request that asked for it.
struct Ask {
    key: String,
    client: Client,
    /// JSON of the context in the header, or why it is none.
    context: Result<Option<String>, ErrorCode>,
}

/// Upgrades to a WebSocket. Refusals are close codes: 1008 `Invalid API key`, `Subscription inactive` or
/// `Rate limit exceeded, retry after …`.
#[utoipa::path(get, path = "/ws/sdk", tag = "Evaluation",
    params(("apiKey" = String, Query, description = "An SDK key"),
        ("x-flagmint-context" = Option<String>, Header, description = "Base64 of the JSON context")),
    responses((status = 101, description = "Accepted, whatever the key"), (status = 400, description = "parse_error: no upgrade")))]
pub async fn websocket(State(plane): State<DataPlane>, mut request: Request) -> Response {
    let Some(accept) = accepted(request.headers()) else {
        return DataPlaneError::Parse("not an upgrade to a WebSocket of version 13".into()).into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let ask = Ask::of(&request);
    drop(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let since = Instant::now();
        let config = WebSocketConfig::default()
            .read_buffer_size(SOCKET_READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(SOCKET_WRITE_BYTES_MAX)
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .max_message_size(Some(FRAME_BYTES_MAX));
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        serve(&plane, stream, ask, since).await;
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// What proves to the client that its upgrade was understood.
fn accepted(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    let is_upgrade = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_upgrade)?;
    derive_accept_key(key.as_bytes()).parse().ok()
}

impl Ask {
    fn of(request: &Request) -> Self {
        let headers = request.headers();
        let in_query = request.uri().query().and_then(|query| member(query, "apiKey"));
        let in_header = || headers.get(API_KEY).and_then(|value| value.to_str().ok()).unwrap_or_default().into();
        Self {
            key: in_query.unwrap_or_else(in_header).into_owned(),
            client: Client::new(Identity::of(headers)),
            context: context(headers),
        }
    }
}

fn context(headers: &HeaderMap) -> Result<Option<String>, ErrorCode> {
    let Some(header) = headers.get(CONTEXT) else { return Ok(None) };
    let json = STANDARD.decode(header.as_bytes()).map_err(|_| ErrorCode::ParseError)?;
    let json = String::from_utf8(json).map_err(|_| ErrorCode::ParseError)?;
    let context = Context::from_json(json.as_bytes()).map_err(|error| code_of(&error))?;
    Ok((!context.members().is_empty()).then_some(json))
}

type Stream = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn serve(plane: &DataPlane, stream: Stream, ask: Ask, since: Instant) {
    let (key, open, trigger) = match judge(plane, ask).await {
        Ok(opened) => opened,
        Err(close) => return Socket::refuse(stream, close).await,
    };
    // Go registers who waits for the first map just after dialling, and misses one that comes sooner.
    sleep_until(since + FIRST_FLAGS_AFTER).await;
    let facts = CallFacts { connections: 1, ..CallFacts::default() };
    let Some(map) = open.connection.evaluate(plane, trigger, facts) else {
        return Socket::refuse(stream, Close::GoingAway).await;
    };
    Socket::new(stream, open, key).run(&map).await;
}

/// Whether a socket is served, and why its first map is evaluated.
async fn judge(plane: &DataPlane, ask: Ask) -> Result<(Arc<Key>, Open, Trigger), Close> {
    let received = Received::now();
    let Ok(key) = authenticate_text(plane, &ask.key, &received) else {
        metrics::counter!("flagmint_evaluator_streams_refused_total", "reason" => "invalid_api_key").increment(1);
        if plane.streams().failed_keys.note(key_hash(&ask.key), std::time::Instant::now()) {
            delay(plane).await;
        }
        return Err(Close::InvalidApiKey);
    };
    let (context, failure) = match ask.context {
        Ok(context) => (context, None),
        Err(error_code) => (None, Some(error_code)),
    };
    {
        let guard = key.environment.snapshot();
        let Some(snapshot) = guard.as_ref() else { return Err(Close::GoingAway) };
        if !snapshot.subscription_active {
            return Err(Close::SubscriptionInactive);
        }
        if failure.is_some() {
            let ways = (Transport::Websocket, Trigger::Context);
            let call = Call::new(plane, &received, key.facts.id, ways, ask.client.identity());
            call.fail(snapshot, failure, plane.directory().begin().received_us());
        }
    }
    let trigger = if context.is_some() { Trigger::Context } else { Trigger::Connect };
    let context = context.as_deref().unwrap_or("{}");
    let open = plane.streams().open(plane, &key, Transport::Websocket, ask.client, Some(context));
    let open = open.map_err(|refusal| match refusal {
        Refusal::TooManyOfKey => Close::TooMany,
        Refusal::GoingAway => Close::GoingAway,
    })?;
    Ok((key, open, trigger))
}

/// Holds back who was refused just before; for a crowd there is no room to wait.
async fn delay(plane: &DataPlane) {
    if let Ok(_place) = plane.late_closes().try_acquire() {
        sleep(CLOSE_DELAY).await;
    }
}
