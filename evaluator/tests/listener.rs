//! What the listener bears of clients that are slow, silent, or many in one connection.

mod support;

use std::time::{Duration, Instant};

use flagmint_evaluator::http::Settings;
use flagmint_evaluator::limits::{HTTP2_REQUESTS_MAX, HTTP2_TAKEN_BACK_MAX};
use flagmint_evaluator::serve::Limits;
use support::{KEY, Plane};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(plane: &Plane) -> TcpStream {
    TcpStream::connect(plane.address).await.expect("a connection")
}

/// Waits until the server closes; what came before that.
async fn end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks and reads the answer, which ends with the values.
async fn ask(stream: &mut TcpStream) {
    let request =
        format!("POST /evaluator/evaluate HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer in time");
        assert!(read.expect("it is read") > 0, "closed after {}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_head_must_come_soon_once_it_has_begun_and_idle_connections_may_wait() {
    let head_read_max = Duration::from_millis(600);
    let plane = Plane::start_with(Settings::default(), Limits { head_read_max, ..Limits::default() }).await;
    let mut silent = connect(&plane).await;
    assert_eq!(end(&mut silent).await, "", "a connection on which nothing comes");

    let mut stream = connect(&plane).await;
    for _ in 0..2 {
        ask(&mut stream).await;
        // Longer than a head may take.
        sleep(2 * head_read_max).await;
    }
    let began = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nx-drip: ").await.expect("sent");
    while stream.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "drop by drop, a head is never too slow");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= head_read_max, "cut off after {:?}", began.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let idle_max = Duration::from_millis(600);
    let plane = Plane::start_with(Settings::default(), Limits { idle_max, ..Limits::default() }).await;
    let mut stream = connect(&plane).await;
    ask(&mut stream).await;
    let since = Instant::now();
    assert_eq!(end(&mut stream).await, "");
    assert!(since.elapsed() >= idle_max / 2, "closed after {:?}", since.elapsed());
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_head() {
    let head_read_max = Duration::from_millis(300);
    let plane = Plane::start_with(Settings::default(), Limits { head_read_max, ..Limits::default() }).await;
    let mut stream = connect(&plane).await;
    let request =
        format!("POST /evaluator/evaluate HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 10\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    for byte in b"{        }" {
        sleep(head_read_max / 4).await;
        stream.write_all(&[*byte]).await.expect("sent");
    }
    let mut status = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("an answer in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
}

// HTTP/2 frame by frame (RFC 9113), since no client library would send these.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a request for all flags; static entries and literals only (RFC 7541).
fn head() -> Vec<u8> {
    let literal = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let name = |index: u8, value: &str| [vec![index], literal(value)].concat();
    let method_and_scheme = vec![0x83, 0x86];
    let key = [vec![0], literal("x-api-key"), literal(KEY)].concat();
    [method_and_scheme, name(4, "/evaluator/evaluate"), name(1, "x"), key].concat()
}

/// Sends `frames` after the preface; then hands every frame that comes, as kind, flags, stream and payload, to `is_enough`.
async fn speak(plane: &Plane, frames: &[u8], mut is_enough: impl FnMut(u8, u8, u32, &[u8]) -> bool) -> TcpStream {
    let mut stream = connect(plane).await;
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[]), frames].concat();
    stream.write_all(&hello).await.expect("sent");
    let mut unread = Vec::new();
    loop {
        while unread.len() >= 9 {
            let length = usize::from(unread[0]) << 16 | usize::from(unread[1]) << 8 | usize::from(unread[2]);
            if unread.len() < 9 + length {
                break;
            }
            let came: Vec<u8> = unread.drain(..9 + length).collect();
            let number = u32::from_be_bytes([came[5], came[6], came[7], came[8]]);
            if is_enough(came[3], came[4], number, &came[9..]) {
                return stream;
            }
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut unread)).await.expect("more in time");
        assert!(read.expect("it is read") > 0, "closed without what was expected");
    }
}

fn code(payload: &[u8]) -> u32 {
    let code = payload.last_chunk::<4>().expect("a code");
    u32::from_be_bytes(*code)
}

/// The error code with which the server ends the connection.
async fn goodbye(plane: &Plane, frames: &[u8]) -> u32 {
    let mut error = None;
    speak(plane, frames, |kind, _, _, payload| {
        if kind == GOAWAY {
            error = payload.get(4..8).map(code);
        }
        kind == GOAWAY
    })
    .await;
    error.expect("a code")
}

#[tokio::test]
async fn one_http2_connection_has_so_many_requests_under_way() {
    let plane = Plane::start().await;
    let excess = 20;
    let numbers: Vec<u32> = (0..HTTP2_REQUESTS_MAX + excess).map(|number| 2 * number + 1).collect();
    // Their bodies do not come yet.
    let mut frames: Vec<u8> = numbers.iter().flat_map(|number| frame(HEADERS, END_HEADERS, *number, &head())).collect();
    // But that of the first does.
    frames.extend(frame(DATA, END_STREAM, 1, b"{}"));
    let (mut refused, mut answered) = (Vec::new(), Vec::new());
    speak(&plane, &frames, |kind, flags, stream, payload| {
        match kind {
            RST_STREAM => {
                assert_eq!(code(payload), REFUSED_STREAM);
                refused.push(stream);
            }
            // The indexed field `:status: 200`.
            HEADERS if payload.first() == Some(&0x88) => answered.push(stream),
            SETTINGS if flags & ACK == 0 => {
                let mut settings = payload.chunks_exact(6);
                assert!(settings.any(|one| one[..2] == [0, 3] && code(&one[2..]) == HTTP2_REQUESTS_MAX));
            }
            _ => {}
        }
        refused.len() >= excess as usize && !answered.is_empty()
    })
    .await;
    assert_eq!((refused.as_slice(), answered), (&numbers[HTTP2_REQUESTS_MAX as usize..], vec![1]));
}

#[tokio::test]
async fn floods_of_http2_frames_end_their_connection_and_no_other() {
    let plane = Plane::start().await;
    let taken_back = |requests: usize| -> Vec<u8> {
        let one = |number: usize| {
            let number = u32::try_from(2 * number + 1).expect("few");
            let request = frame(HEADERS, END_HEADERS, number, &head());
            [request, frame(RST_STREAM, 0, number, &CANCEL.to_be_bytes())].concat()
        };
        (0..requests).flat_map(one).collect()
    };
    assert_eq!(goodbye(&plane, &taken_back(20 * HTTP2_TAKEN_BACK_MAX)).await, ENHANCE_YOUR_CALM);
    let endless = [frame(HEADERS, 0, 1, &head()), frame(CONTINUATION, 0, 1, &[]).repeat(1000)].concat();
    assert_eq!(goodbye(&plane, &endless).await, ENHANCE_YOUR_CALM);
    assert_eq!(plane.evaluate().body("{}").send().await.expect("an answer").status(), 200);
}
