//! Streams without the buffers of an HTTP connection. A server keeps 16 kB and more ready on each connection for requests and answers
//! that may come; a connection whose first request asks for a stream will see neither. Its request is read here, answered by the
//! same router, and what the answer's body says is written as it comes: such a connection costs 4 kB instead of 30.
//!
//! Whatever is not plainly such a request - a head in pieces, another path, HTTP/2, a second request - goes the usual way.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::response::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use chrono::Utc;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::Service as _;

use super::guarded::Guarded;
use crate::limits::{LEAN_HEAD_BYTES_MAX, LEAN_HEADERS_MAX};

/// What the first request must ask for.
pub const PATH: &str = "/evaluator/v2/flags/stream";

/// A request for a stream, and how many bytes its head has.
pub struct Head {
    request: Request,
    bytes: usize,
}

/// Looks at the first bytes of a connection without taking them.
pub async fn peek(stream: &TcpStream, peer: SocketAddr) -> Option<Head> {
    let start = ["GET ", PATH, "?"].concat();
    // Freed before anything is waited for again.
    let mut bytes = vec![0; LEAN_HEAD_BYTES_MAX];
    let read = stream.peek(&mut bytes).await.ok()?;
    bytes.truncate(read);
    if !bytes.starts_with(start.as_bytes()) {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; LEAN_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) if parsed.version == Some(1) => length,
        _ => return None,
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = parsed.path?.parse::<Uri>().ok()?;
    for found in parsed.headers {
        let name = HeaderName::from_bytes(found.name.as_bytes()).ok()?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT].contains(&name) {
            return None;
        }
        request.headers_mut().append(name, HeaderValue::from_bytes(found.value).ok()?);
    }
    request.extensions_mut().insert(ConnectInfo(peer));
    Some(Head { request, bytes: length })
}

/// Answers the request and writes the answer's body until it ends, as all do when the data plane is drained, or the client is gone.
pub async fn serve(mut stream: Guarded, head: Head, mut router: Router) {
    let mut taken = vec![0; head.bytes];
    if stream.read_exact(&mut taken).await.is_err() {
        return;
    }
    drop(taken);
    let Ok(response) = router.call(head.request).await;
    drop(router);
    let (parts, mut body) = response.into_parts();
    if stream.write_all(&head_bytes(&parts)).await.is_err() {
        return;
    }
    drop(parts);
    let mut ignored = [0; 64];
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            read = stream.read(&mut ignored) => match read {
                // What a client sends on a stream means nothing.
                Ok(1..) => continue,
                Ok(0) | Err(_) => return,
            },
        };
        let written = match frame.map(|frame| frame.map(hyper::body::Frame::into_data)) {
            Some(Ok(Ok(data))) => stream.write_all(&chunk(&data)).await,
            Some(Ok(Err(_))) => Ok(()),
            Some(Err(_)) | None => break,
        };
        if written.is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n").await;
    let _ = stream.shutdown().await;
}

/// The head of an answer whose body comes in chunks, and after which the connection is closed.
fn head_bytes(parts: &Parts) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", parts.status.as_str(), parts.status.canonical_reason().unwrap_or(""));
    head += &Utc::now().format("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
    let mut head = head.into_bytes();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_LENGTH {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    head.extend(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    head
}

fn chunk(data: &Bytes) -> Vec<u8> {
    // An empty chunk would be the last one.
    if data.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
