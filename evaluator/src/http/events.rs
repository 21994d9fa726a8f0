//! The body of a stream: `connected`, the first `flags`, then what the connection has to say, with heartbeats between.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};

use super::quota;
use super::received::Received;
use crate::quota::Limit;
use crate::streams::{End, Event, FlagMap, Open};

const HEARTBEAT: &str = ": heartbeat\n\n";

/// An event of this name; `data` is JSON without line ends.
#[must_use]
pub fn event(name: &str, data: &str) -> String {
    ["event: ", name, "\ndata: ", data, "\n\n"].concat()
}

/// The event that must come first.
#[must_use]
pub fn connected(id: &str) -> String {
    event("connected", &json!({ "connectionId": id }).to_string())
}

/// The event before a stream that failed ends.
#[must_use]
pub fn error(code: &str) -> String {
    event("error", &json!({ "error": code }).to_string())
}

/// The event for an organization over its limit.
#[must_use]
pub fn quota_exceeded(limit: &Limit, values: Option<&str>, now_us: i64) -> String {
    event("quota_exceeded", &quota::message(limit, values, now_us))
}

/// The last event of a connection that the server ends; none if the client is just to come back.
#[must_use]
pub fn farewell(end: &End, sent: Option<&FlagMap>) -> Option<String> {
    match end {
        End::InvalidApiKey => Some(error("invalid_api_key")),
        End::SubscriptionInactive => Some(error("subscription_inactive")),
        End::QuotaExceeded(limit) => Some(quota_exceeded(limit, sent.map(|map| &*map.values), Received::now().time_us)),
        End::GoingAway => None,
    }
}

/// The events of a server-evaluated connection. Polled by the task that writes to the socket; it has no task of its own.
pub struct EventStream {
    open: Open,
    first: Option<Bytes>,
    /// For whatever is due next: a heartbeat or a posted context.
    sleep: Pin<Box<Sleep>>,
    heartbeat_due: Instant,
    is_over: bool,
}

impl EventStream {
    /// Begins with `connected` and this map.
    #[must_use]
    pub fn new(open: Open, map: &FlagMap) -> Self {
        let first = Bytes::from(connected(&open.id()) + &map.event());
        let heartbeat_due = Instant::now() + open.plane.heartbeat_interval();
        Self { open, first: Some(first), sleep: Box::pin(sleep_until(heartbeat_due)), heartbeat_due, is_over: false }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            self.open.connection.register(cx.waker());
            let due = match self.open.next() {
                Event::Flags(map) => return Poll::Ready(Some(map.event().into())),
                Event::End(end) => {
                    self.is_over = true;
                    let sent = self.open.connection.sent();
                    return Poll::Ready(farewell(&end, sent.as_deref()).map(Bytes::from));
                }
                Event::Published => continue,
                Event::Wait(due) => due.map_or(self.heartbeat_due, |due| due.min(self.heartbeat_due)),
            };
            if self.sleep.deadline() != due {
                self.sleep.as_mut().reset(due);
            }
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.heartbeat_due {
                self.heartbeat_due = now + self.open.plane.heartbeat_interval();
                return Poll::Ready(Some(Bytes::from_static(HEARTBEAT.as_bytes())));
            }
        }
    }
}

impl HttpBody for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.next(cx)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }
}
