//! Signed configuration on a stream (data-plane.md 7.4): `connected`, a lease and what the client lacks, then a delta for each
//! publish, and a new lease now and then.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{Transport, Trigger};
use tokio::time::{Instant, sleep_until};

use super::DataPlane;
use super::events::{connected, event, farewell, quota_exceeded};
use super::received::Received;
use super::stream::{Ask, Refused, context};
use crate::config_sync::feed::{self, Feed, Signed};
use crate::contexts::Seen;
use crate::directory::Key;
use crate::engine::Context;
use crate::quota::Meter;
use crate::session::Session;
use crate::streams::{Client, Event, Open};

const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// The body of a stream for a client that evaluates by itself. It uses no API calls, so only the limit of connections stops it.
pub async fn open(
    plane: &DataPlane,
    ask: &Ask<'_>,
    headers: &HeaderMap,
    (session, key): (Session, Arc<Key>),
    received: &Received,
    wanted: feed::Ask,
) -> Result<Body, Refused> {
    let snapshot = key.environment.snapshot().as_ref().map(Arc::clone).ok_or(Refused("internal_error"))?;
    if !snapshot.subscription_active {
        return Err(Refused("subscription_inactive"));
    }
    let mac_key = session.mac_key.ok_or(Refused("config_mac_required"))?;
    let context = context(ask).map_err(|_| Refused("invalid_context"))?;
    let client = Client::evaluating(ask.client(headers).identity());
    // Before the version in force is looked at, so that no publish after that goes unnoticed.
    let opened = plane.streams().open(plane, &key, Transport::ConfigSync, client, None);
    let opened = opened.map_err(|_| Refused("internal_error"))?;
    let organization = snapshot.identity.organization;
    if let Some(limit) = plane.directory().limit_reached(organization, Meter::Connections, received.time_us) {
        return Ok(Body::from(connected(&opened.id()) + &quota_exceeded(&limit, None, received.time_us)));
    }
    let in_flight = plane.directory().begin();
    let facts = CallFacts { connections: 1, event_time_us: in_flight.received_us(), ..CallFacts::default() };
    let seen = context.and_then(|json| Context::from_json(json.as_bytes()).ok());
    let seen = seen.map(|context| Seen::new(&snapshot, context));
    opened.connection.call(plane, received, Trigger::Connect).record(&snapshot, facts, seen.as_ref(), &[]);
    drop(in_flight);

    let (directory, environment) = (Arc::clone(plane.directory()), Arc::clone(&key.environment));
    let begun = Feed::open(directory, environment, mac_key, wanted, plane.inner.clock.now_ms()).await;
    let (feed, payloads) = begun.ok_or(Refused("internal_error"))?;
    let first = connected(&opened.id()) + &events(&payloads);
    let now = Instant::now();
    let stream = ConfigStream {
        feed,
        heartbeat_due: now + plane.heartbeat_interval(),
        lease_due: now + plane.inner.lease_interval,
        plane: plane.clone(),
        open: opened,
        first: Some(first.into()),
        is_over: false,
    };
    let chunks = futures::stream::unfold(stream, async |mut stream| {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    Ok(Body::from_stream(chunks))
}

fn events(payloads: &[Signed]) -> String {
    payloads.iter().map(|payload| event(payload.kind, &payload.json)).collect()
}

/// An open stream, driven by the task that writes to its socket: one that is not read waits, and catches up with what it missed.
struct ConfigStream {
    plane: DataPlane,
    open: Open,
    feed: Feed,
    first: Option<Bytes>,
    heartbeat_due: Instant,
    lease_due: Instant,
    is_over: bool,
}

impl ConfigStream {
    /// What is to be sent next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while !self.is_over {
            let due = self.heartbeat_due.min(self.lease_due);
            let event = tokio::select! {
                event = happened(&self.open) => Some(event),
                () = sleep_until(due) => None,
            };
            match event {
                Some(Event::End(end)) => {
                    self.is_over = true;
                    return farewell(&end, None).map(Bytes::from);
                }
                Some(_) => {
                    let payloads = self.feed.next(self.plane.inner.clock.now_ms()).await;
                    if !payloads.is_empty() {
                        return Some(events(&payloads).into());
                    }
                }
                None => return Some(self.on_time(Instant::now())),
            }
        }
        None
    }

    fn on_time(&mut self, now: Instant) -> Bytes {
        if now >= self.lease_due {
            self.lease_due = now + self.plane.inner.lease_interval;
            return events(&[self.feed.renewal(self.plane.inner.clock.now_ms())]).into();
        }
        self.heartbeat_due = now + self.plane.heartbeat_interval();
        HEARTBEAT
    }
}

/// Waits until something is to be done for the connection.
async fn happened(open: &Open) -> Event {
    poll_fn(|cx| {
        open.connection.register(cx.waker());
        match open.next() {
            Event::Wait(_) => Poll::Pending,
            event => Poll::Ready(event),
        }
    })
    .await
}
