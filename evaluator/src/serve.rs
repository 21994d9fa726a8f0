//! Accepts connections and speaks HTTP on them, within limits: how many there are, from how many addresses, how long a client may
//! take to send a head, and how long it may leave what it is sent unread. Everything that keeps sockets open cheap is here.

mod bad_keys;
mod guarded;
mod lean;
mod phase;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::Version;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, warn};

use self::bad_keys::BadKeys;
use self::guarded::Guarded;
use self::phase::Phase;
use crate::limits::{
    ACCEPT_PAUSE, BACKLOG, CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, HEAD_BYTES_MAX, HEAD_READ_MAX,
    HTTP2_PING_INTERVAL, HTTP2_REFUSED_MAX, HTTP2_REQUESTS_MAX, HTTP2_TAKEN_BACK_MAX, IDLE_MAX, SEND_BUFFER_BYTES,
    UNREAD_MAX,
};

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at most, so that files and Postgres always find a descriptor.
    pub connections_max: u32,
    /// Connections from one IPv4 address or IPv6 network of 64 bits at most.
    pub per_address_max: u32,
    /// How long a client may take to send a request's head, once it has begun; and to begin with anything on a new connection.
    pub head_read_max: Duration,
    /// How long a client may send nothing between requests.
    pub idle_max: Duration,
    /// How long a client may leave what it is sent unread.
    pub unread_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            head_read_max: HEAD_READ_MAX,
            idle_max: IDLE_MAX,
            unread_max: UNREAD_MAX,
        }
    }
}

/// Listens on an address.
///
/// # Errors
/// If it is in use, or not ours.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Connections inherit it: without, the kernel keeps megabytes for each client that does not read.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown`, then until the requests under way are answered.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let addresses = Arc::new(Addresses::default());
    let served = Served { router, bad_keys: Arc::default() };
    // Every connection holds a sender: when the last is dropped, all have ended.
    let (alive, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(place) = Addresses::admit(&addresses, peer.ip(), &limits) else { continue };
        let connection = connection(stream, peer, served.clone(), limits, shutdown.clone());
        let alive = alive.clone();
        tokio::spawn(async move {
            connection.await;
            drop((place, alive));
        });
    }
    drop((listener, alive));
    ended.recv().await;
}

/// A client that went away between its connect and our accept is nobody's fault; without descriptors we must wait for some.
async fn pause_after(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        warn!(%error, "no connection can be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
struct Served {
    router: Router,
    bad_keys: Arc<BadKeys>,
}

async fn connection(stream: TcpStream, peer: SocketAddr, served: Served, limits: Limits, shutdown: CancellationToken) {
    // Answers are one small write: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    // A peer that vanished without a word acknowledges nothing.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.unread_max));
    let first = tokio::select! {
        first = timeout(limits.head_read_max, lean::peek(&stream, peer)) => first,
        () = shutdown.cancelled() => return,
    };
    let Ok(first) = first else {
        metrics::counter!("flagmint_connections_closed_total", "reason" => "silent").increment(1);
        return;
    };
    match first {
        Some(head) => lean::serve(Guarded::new(stream, Arc::new(Phase::busy()), &limits), head, served.router).await,
        // In a place of its own, since a connection that is a stream needs much less.
        None => Box::pin(http(stream, peer, served, limits, shutdown)).await,
    }
}

/// HTTP/1.1 or HTTP/2, whichever the client speaks.
async fn http(stream: TcpStream, peer: SocketAddr, served: Served, limits: Limits, shutdown: CancellationToken) {
    let phase = Arc::new(Phase::default());
    let io = TokioIo::new(Guarded::new(stream, Arc::clone(&phase), &limits));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        phase.begin();
        // HTTP/2 has its own limits, and speaks between requests, too.
        let phase = (request.version() < Version::HTTP_2).then(|| Arc::clone(&phase));
        request.extensions_mut().insert(ConnectInfo(peer));
        let request: Request = request.map(Body::new);
        let Served { mut router, bad_keys } = served.clone();
        async move {
            let reply = router.call(request).await.map(|reply| bad_keys.limited(peer.ip(), reply));
            if let (Some(phase), Ok(reply)) = (phase, &reply) {
                phase.end(reply);
            }
            reply
        }
    });
    let builder = builder(&limits);
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        count_refusal(&*error);
        debug!(%error, "a connection ended");
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle_max).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(limits.unread_max)
        .max_concurrent_streams(HTTP2_REQUESTS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(HTTP2_TAKEN_BACK_MAX)
        .max_local_error_reset_streams(HTTP2_REFUSED_MAX);
    builder
}

/// Counts what was refused before any handler saw it. A connection that merely ended is nothing refused.
fn count_refusal(error: &(dyn std::error::Error + 'static)) {
    let reason = match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse_too_large() => "head_too_large",
        Some(error) if error.is_parse() => "no_http",
        _ => return,
    };
    metrics::counter!("flagmint_requests_refused_total", "reason" => reason).increment(1);
}

/// What one client controls: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Addresses {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// A connection's place among those admitted; given back when dropped.
struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// A place, or `None`, which is counted.
    fn admit(addresses: &Arc<Self>, address: IpAddr, limits: &Limits) -> Option<Place> {
        let refuse = |reason: &'static str| {
            metrics::counter!("flagmint_connections_refused_total", "reason" => reason).increment(1);
            None
        };
        let mut counts = addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= limits.connections_max {
            return refuse("all");
        }
        let address = network(address);
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= limits.per_address_max {
            return refuse("per_address");
        }
        *of_address += 1;
        counts.all += 1;
        metrics::gauge!("flagmint_connections_open").set(counts.all);
        Some(Place { addresses: Arc::clone(addresses), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
        metrics::gauge!("flagmint_connections_open").set(counts.all);
    }
}
