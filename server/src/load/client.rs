//! One keep-alive HTTP/1.1 connection to the data plane.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::limits::{ANSWER_BYTES_MAX, ANSWER_MAX};

/// What to ask for, and by which protocol.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    /// All flags by REST.
    Evaluate,
    /// The flag with this key by OFREP.
    OfrepOne(&'a str),
    /// All flags by OFREP.
    OfrepAll,
}

impl Endpoint<'_> {
    fn path(self) -> String {
        match self {
            Self::Evaluate => "/evaluator/evaluate".into(),
            Self::OfrepOne(key) => format!("/ofrep/v1/evaluate/flags/{}", percent_encoded(key)),
            Self::OfrepAll => "/ofrep/v1/evaluate/flags".into(),
        }
    }
}

/// The text as one segment of a path (RFC 3986, 2.3).
fn percent_encoded(text: &str) -> String {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if is_unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// Where and as whom to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server's address.
    pub address: SocketAddr,
    /// The endpoint.
    pub uri: Uri,
    /// The SDK key.
    pub key: HeaderValue,
    host: HeaderValue,
}

impl Target {
    /// An endpoint of the instance at `url`.
    ///
    /// # Errors
    /// If the URL or the key cannot be used.
    pub async fn resolve(url: &str, key: &str, endpoint: Endpoint<'_>) -> Result<Self, String> {
        let base: Uri = url.trim_end_matches('/').parse().map_err(|error| format!("{url}: {error}"))?;
        if base.scheme_str() != Some("http") {
            return Err(format!("{url}: only http:// is supported"));
        }
        let host = base.host().ok_or_else(|| format!("{url}: no host"))?;
        let mut addresses = tokio::net::lookup_host((host, base.port_u16().unwrap_or(80)))
            .await
            .map_err(|error| format!("{url}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("{url}: no address"))?;
        let path = format!("{}{}", base.path().trim_end_matches('/'), endpoint.path());
        Ok(Self {
            address,
            uri: path.parse().map_err(|error| format!("{url}: {error}"))?,
            key: key.parse().map_err(|_| "the key has characters that no key has".to_owned())?,
            host: HeaderValue::from_str(base.authority().map_or(host, |authority| authority.as_str()))
                .map_err(|error| format!("{url}: {error}"))?,
        })
    }
}

/// A connection that is made anew after a failure.
pub struct Client {
    target: Arc<Target>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// An answer.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client that connects when first asked.
    pub const fn new(target: Arc<Target>) -> Self {
        Self { target, sender: None }
    }

    /// Sends one context and waits for the answer.
    ///
    /// # Errors
    /// If no answer came; the next call connects anew.
    pub async fn ask(&mut self, body: Bytes) -> Result<Answer, String> {
        let answer = tokio::time::timeout(ANSWER_MAX, self.try_ask(body)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_MAX.as_secs())));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn try_ask(&mut self, body: Bytes) -> Result<Answer, String> {
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.sender.insert(connect(&self.target).await?),
        };
        let mut request =
            Request::post(self.target.uri.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.target.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-api-key", self.target.key.clone());
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(target.address).await.map_err(|error| format!("{}: {error}", target.address))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender; its errors come out of the requests.
    tokio::spawn(connection);
    Ok(sender)
}
