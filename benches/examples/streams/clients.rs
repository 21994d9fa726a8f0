//! The clients: as many connections as asked for in one thread, each reading what it is sent for the marker of a publish.

use std::io::BufRead as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flagmint_evaluator::directory::key_hash;
use flagmint_evaluator::session::Sessions;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::server::{KEY, SECRET, environment, now_us};

const MARKER: &[u8] = b"\"marker\":\"";
/// Connections being opened at once.
const OPENING: usize = 200;

/// Opens them, says so, and reports when asked.
pub fn run(kind: &str, count: usize, address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let is_socket = kind == "websocket";
    let latencies_us = Arc::new(Mutex::new(Vec::new()));
    let address = address.to_owned();
    runtime.block_on(async {
        let started = Instant::now();
        let permits = Arc::new(Semaphore::new(OPENING));
        let (opened, mut all_opened) = tokio::sync::mpsc::channel(count);
        for number in 0..count {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("open");
            let (address, latencies_us, opened) = (address.clone(), Arc::clone(&latencies_us), opened.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                let request = if is_socket { socket_request() } else { stream_request(number) };
                stream.write_all(request.as_bytes()).await.expect("sent");
                let mut reader = Reader { stream, text: Vec::new() };
                reader.marker().await;
                if is_socket {
                    reader.stream.write_all(&frame(&context(number))).await.expect("sent");
                    reader.marker().await;
                }
                drop(permit);
                opened.send(()).await.expect("awaited");
                loop {
                    let at_us = reader.marker().await;
                    latencies_us.lock().expect("no panic").push(now_us() - at_us);
                }
            });
        }
        for _ in 0..count {
            all_opened.recv().await.expect("each says so");
        }
        println!("{count} open after {:.1} s", started.elapsed().as_secs_f64());
        let asked = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next());
        asked.await.expect("read");
        tokio::time::sleep(Duration::from_millis(100)).await;
        println!("{}", report(&mut latencies_us.lock().expect("no panic"), count));
    });
}

fn report(latencies_us: &mut [i64], count: usize) -> String {
    latencies_us.sort_unstable();
    let Some(last) = latencies_us.len().checked_sub(1) else { return "nothing arrived".to_owned() };
    let at = |share: f64| latencies_us[(last as f64 * share) as usize] as f64 / 1000.0;
    let publishes = latencies_us.len() as f64 / count as f64;
    format!(
        "{publishes:.2} maps each; publish to client p50 {:.0} ms, p99 {:.0} ms, last {:.0} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

fn context(number: usize) -> String {
    let country = ["IE", "DE", "FR", "US"][number % 4];
    json!({ "kind": "user", "key": format!("user-{number}"), "country": country, "plan": "pro",
        "email": format!("user-{number}@example.com"), "custom": { "source": "SDK" } })
    .to_string()
}

fn stream_request(number: usize) -> String {
    let session = Sessions::new(&SECRET).issue(key_hash(KEY), environment(), None, now_us());
    let context = base64_url(context(number).as_bytes());
    format!(
        "GET /evaluator/v2/flags/stream?sessionId={session}&context={context}&sdkVersion=2.2.1&platform=browser HTTP/1.1\r\n\
         Host: bench\r\nAccept: text/event-stream\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
         Origin: https://shop.example.com\r\nReferer: https://shop.example.com/\r\nAccept-Language: en\r\n\r\n"
    )
}

fn socket_request() -> String {
    format!(
        "GET /ws/sdk?apiKey={KEY} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A text frame with a context, masked with zeros.
fn frame(context: &str) -> Vec<u8> {
    let text = format!("{{\"type\":\"context\",\"context\":{context}}}");
    let length = u16::try_from(text.len()).expect("short");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|at| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize])));
    }
    text
}

struct Reader {
    stream: TcpStream,
    text: Vec<u8>,
}

impl Reader {
    /// The time that the next marker says, microseconds since the epoch.
    async fn marker(&mut self) -> i64 {
        loop {
            if let Some(at) = self.text.windows(MARKER.len()).position(|bytes| bytes == MARKER) {
                let rest = &self.text[at + MARKER.len()..];
                if let Some(end) = rest.iter().position(|byte| *byte == b'"') {
                    let at_us = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok());
                    self.text.drain(..at + MARKER.len() + end);
                    return at_us.expect("a time");
                }
            } else if self.text.len() > MARKER.len() {
                self.text.drain(..self.text.len() - MARKER.len());
            }
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer).await.expect("readable");
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&self.text));
            self.text.extend_from_slice(&buffer[..read]);
        }
    }
}
