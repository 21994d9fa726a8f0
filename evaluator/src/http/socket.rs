//! A socket that is served: answers what its client sends, pushes what the connection has to say, and notices when nobody is there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use flagmint_ingest::CallFacts;
use flagmint_schemas::decision::{ErrorCode, Trigger};
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::message;
use super::quota;
use super::received::Received;
use crate::directory::Key;
use crate::limits::{CLOSE_LINGER, LINGER_BYTES_MAX, MESSAGES_PER_SECOND_MAX, UNANSWERED_PINGS_MAX};
use crate::quota::Meter;
use crate::streams::{End, Event, FlagMap, Open};

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// Why the server closes a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// The key may not be used.
    InvalidApiKey,
    /// The organization's subscription has lapsed.
    SubscriptionInactive,
    /// The monthly limit is reached; the reason says until when.
    QuotaExceeded(String),
    /// This instance is about to stop.
    GoingAway,
    /// The key has as many connections as it may have.
    TooMany,
    /// Pings were not answered.
    Silent,
    /// A frame or message was too large.
    TooLarge,
    /// What came is no WebSocket.
    BrokenProtocol,
    /// The client closed or is gone.
    ByClient,
}

impl Close {
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::InvalidApiKey => (CloseCode::Policy, "Invalid API key".into()),
            Self::SubscriptionInactive => (CloseCode::Policy, "Subscription inactive".into()),
            Self::QuotaExceeded(reason) => (CloseCode::Policy, reason),
            Self::GoingAway => (CloseCode::Away, "Server going away".into()),
            Self::TooMany => (CloseCode::Away, "Too many connections".into()),
            Self::Silent => (CloseCode::Away, "Ping timeout".into()),
            Self::TooLarge => (CloseCode::Size, "Frame too large".into()),
            Self::BrokenProtocol => (CloseCode::Protocol, "Protocol error".into()),
            Self::ByClient => return None,
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

impl From<End> for Close {
    fn from(end: End) -> Self {
        match end {
            End::InvalidApiKey => Self::InvalidApiKey,
            End::SubscriptionInactive => Self::SubscriptionInactive,
            End::QuotaExceeded(limit) => Self::QuotaExceeded(quota::close_reason(&limit)),
            End::GoingAway => Self::GoingAway,
        }
    }
}

/// A socket and its connection.
pub struct Socket {
    stream: Stream,
    open: Open,
    key: Arc<Key>,
    ping_due: Instant,
    unanswered_pings: u32,
    /// Messages read in the second that ends at `second_ends`.
    messages: u32,
    second_ends: Instant,
}

impl Socket {
    /// A socket whose first map is decided.
    pub fn new(stream: Stream, open: Open, key: Arc<Key>) -> Self {
        let now = Instant::now();
        let ping_due = now + open.plane.ping_interval();
        Self { stream, open, key, ping_due, unanswered_pings: 0, messages: 0, second_ends: now }
    }

    /// Sends the first map, then serves until either side closes.
    pub async fn run(mut self, first: &FlagMap) {
        let close = match self.send_map(first).await {
            Ok(()) => loop {
                match self.step().await {
                    Ok(None) => {}
                    Ok(Some(close)) => break close,
                    Err(error) => break close_for(&error),
                }
            },
            Err(_) => return,
        };
        Self::refuse(self.stream, close).await;
    }

    /// Closes a socket.
    pub async fn refuse(mut stream: Stream, close: Close) {
        let is_readable = !matches!(close, Close::TooLarge | Close::BrokenProtocol);
        let Some(frame) = close.frame() else { return };
        let closing = async {
            stream.send(Message::Close(Some(frame))).await.ok()?;
            if is_readable {
                // The client's answer, or whatever else it had under way.
                while let Some(Ok(message)) = stream.next().await {
                    if message.is_close() {
                        return Some(());
                    }
                }
            } else {
                // What is left of the frame: a socket closed with bytes unread is reset, and the client never learns why.
                discard(stream.get_mut()).await.ok()?;
            }
            Some(())
        };
        let _ = timeout(CLOSE_LINGER, closing).await;
    }

    async fn step(&mut self) -> Result<Option<Close>, Error> {
        let now = Instant::now();
        let may_read = self.messages < MESSAGES_PER_SECOND_MAX || now >= self.second_ends;
        tokio::select! {
            event = self.open.changed() => match event {
                Event::Flags(map) => self.send_map(&map).await?,
                Event::End(end) => return Ok(Some(end.into())),
                Event::Published | Event::Wait(_) => {}
            },
            message = self.stream.next(), if may_read => match message {
                Some(message) => return self.read(message?).await,
                None => return Ok(Some(Close::ByClient)),
            },
            () = sleep_until(self.second_ends), if !may_read => {}
            () = sleep_until(self.ping_due) => return self.ping().await,
        }
        Ok(None)
    }

    async fn ping(&mut self) -> Result<Option<Close>, Error> {
        if self.unanswered_pings >= UNANSWERED_PINGS_MAX {
            return Ok(Some(Close::Silent));
        }
        self.unanswered_pings += 1;
        self.ping_due = Instant::now() + self.open.plane.ping_interval();
        // The message for clients that look for it, the frame for all: their libraries answer it.
        self.stream.feed(Message::text(r#"{"type":"ping"}"#)).await?;
        self.stream.send(Message::Ping(Default::default())).await?;
        Ok(None)
    }

    async fn read(&mut self, message: Message) -> Result<Option<Close>, Error> {
        self.unanswered_pings = 0;
        let now = Instant::now();
        if now >= self.second_ends {
            self.messages = 0;
            self.second_ends = now + Duration::from_secs(1);
        }
        self.messages += 1;
        match message {
            Message::Text(text) => self.answer(text.as_str()).await,
            Message::Close(_) => {
                // Reading on sends the answer.
                let _ = self.stream.next().await;
                Ok(Some(Close::ByClient))
            }
            // Protocol pings are answered by the library when it reads on.
            _ => Ok(None),
        }
    }

    async fn answer(&mut self, text: &str) -> Result<Option<Close>, Error> {
        match message::Message::read(text) {
            message::Message::Ping => self.stream.send(Message::text(r#"{"type":"pong"}"#)).await?,
            message::Message::Context(json) => return self.replace_context(&json).await,
            message::Message::BadContext(error_code) => self.note_failure(error_code),
            message::Message::Other => {}
        }
        Ok(None)
    }

    async fn replace_context(&mut self, json: &str) -> Result<Option<Close>, Error> {
        let (connection, plane) = (&self.open.connection, &self.open.plane);
        let organization = self.key.environment.snapshot().as_ref().map(|snapshot| snapshot.identity.organization);
        let limit = organization.and_then(|organization| {
            plane.directory().limit_reached(organization, Meter::ApiCalls, Received::now().time_us)
        });
        if let Some(limit) = limit {
            return Ok(Some(End::QuotaExceeded(limit).into()));
        }
        let facts = CallFacts { api_calls: 1, ..CallFacts::default() };
        match connection.replace_context(plane, json, Trigger::Context, facts) {
            Some(map) => self.send_map(&map).await.map(|()| None),
            None => Ok(None),
        }
    }

    fn note_failure(&self, error_code: ErrorCode) {
        let received = Received::now();
        let (connection, plane) = (&self.open.connection, &self.open.plane);
        if let Some(snapshot) = self.key.environment.snapshot().as_ref() {
            let event_time_us = plane.directory().begin().received_us();
            connection.call(plane, &received, Trigger::Context).fail(snapshot, Some(error_code), event_time_us);
        }
    }

    async fn send_map(&mut self, map: &FlagMap) -> Result<(), Error> {
        self.stream.send(Message::text(map.message())).await
    }
}

fn close_for(error: &Error) -> Close {
    match error {
        Error::Capacity(_) => Close::TooLarge,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Close::ByClient,
        Error::Protocol(_) | Error::Utf8(_) => Close::BrokenProtocol,
        _ => Close::ByClient,
    }
}

/// Reads on until the client is done, within limits.
async fn discard(stream: &mut TokioIo<Upgraded>) -> io::Result<()> {
    let mut left = LINGER_BYTES_MAX;
    // Not in the future itself, which every socket has.
    let mut buffer = vec![0; 4096];
    while left > 0 {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
    }
    Ok(())
}
