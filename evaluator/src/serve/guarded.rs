//! A TCP stream that gives up on a peer who does not read: a write that makes no progress for a while fails, and the connection with
//! it. What waits in memory for slow readers is bounded thereby in time as buffers bound it in size. It gives up, too, on one who sends the
//! head of a request in too small pieces.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::Limits;
use super::phase::Phase;

/// The stream and, while a write or the rest of a head is waited for, for how much longer.
#[derive(Debug)]
pub struct Guarded {
    stream: TcpStream,
    phase: Arc<Phase>,
    unread_max: Duration,
    head_read_max: Duration,
    /// Allocated only while a write waits: most connections never need it.
    patience: Option<Pin<Box<Sleep>>>,
    /// Allocated only when a head comes in pieces: most come in one.
    head_patience: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Guards a stream on which things stand as `phase` says.
    pub fn new(stream: TcpStream, phase: Arc<Phase>, limits: &Limits) -> Self {
        let Limits { unread_max, head_read_max, .. } = *limits;
        Self { stream, phase, unread_max, head_read_max, patience: None, head_patience: None }
    }

    /// Nothing is there to be read; fails if that is the rest of a head and has been waited for long enough.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.phase.is_in_head() {
            return Poll::Pending;
        }
        let head_read_max = self.head_read_max;
        let patience = self.head_patience.get_or_insert_with(|| Box::pin(sleep(head_read_max)));
        ready!(patience.as_mut().poll(cx));
        metrics::counter!("flagmint_connections_closed_total", "reason" => "slow_head").increment(1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head does not come")))
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let unread_max = self.unread_max;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(unread_max)));
        ready!(patience.as_mut().poll(cx));
        metrics::counter!("flagmint_connections_unread_total").increment(1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            return self.wait(cx);
        }
        if buf.filled().len() > before && self.phase.receive() {
            self.head_patience = None;
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
