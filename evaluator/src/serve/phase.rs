//! What an HTTP/1 connection is about: waiting for a request, in the middle of its head, or busy with it. The one task that drives the
//! connection tells and asks, so this is one relaxed byte, and a request costs nothing for it.

use std::sync::atomic::{AtomicU8, Ordering};

use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Body as _;

const WAITING: u8 = 0;
const IN_HEAD: u8 = 1;
const BUSY: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    /// Of a connection on which no further request will come.
    pub const fn busy() -> Self {
        Self(AtomicU8::new(BUSY))
    }

    /// Bytes came; whether they begin a head.
    pub fn receive(&self) -> bool {
        let begins = self.0.load(Ordering::Relaxed) == WAITING;
        if begins {
            self.0.store(IN_HEAD, Ordering::Relaxed);
        }
        begins
    }

    /// Whether the rest of a head is waited for.
    pub fn is_in_head(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IN_HEAD
    }

    /// The head is complete.
    pub fn begin(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// The request is answered. One that became a socket, or a body without an end, keeps the connection to itself.
    pub fn end(&self, reply: &Response) {
        if reply.status() != StatusCode::SWITCHING_PROTOCOLS && reply.body().size_hint().exact().is_some() {
            self.0.store(WAITING, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn only_heads_are_heads() {
        let phase = Phase::default();
        assert!(!phase.is_in_head() && phase.receive() && phase.is_in_head());
        assert!(!phase.receive(), "it has begun already");
        phase.begin();
        assert!(!phase.receive() && !phase.is_in_head(), "a body");
        phase.end(&"done".into_response());
        assert!(!phase.is_in_head() && phase.receive() && phase.is_in_head());
        let endless = Body::from_stream(futures::stream::pending::<Result<&'static str, std::io::Error>>());
        for last in [StatusCode::SWITCHING_PROTOCOLS.into_response(), endless.into_response()] {
            phase.begin();
            phase.end(&last);
            assert!(!phase.receive() && !phase.is_in_head());
        }
        assert!(!Phase::busy().receive());
    }
}
