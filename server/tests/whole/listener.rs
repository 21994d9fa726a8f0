//! The listener's limits in the whole binary: slow and silent clients, too many of one address, and one key that connects without end. Each
//! is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hostile::{metric, raw};
use crate::support::{PATIENCE, Person, Place, Server, Shop, flagmint, machine};

const LIVE: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
const LIVE_ONCE: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.expect("a connection")
}

/// Everything until the server closes, and after how long.
async fn until_closed(mut stream: TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_slow_heads_and_slow_bodies_are_cut_off_and_counted() {
    let place = Place::new().await;
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let silent = connect(&server.url).await;
    let mut half = connect(&server.url).await;
    half.write_all(b"POST /evaluator/evaluate HTTP/1.1\r\nhost: x\r\nx-a: ").await.expect("sent");
    let mut slow_body = connect(&server.url).await;
    let head = format!("POST /evaluator/evaluate HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n", shop.key);
    slow_body.write_all(format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).await.expect("sent");
    let (silence, half, body) = tokio::join!(until_closed(silent), until_closed(half), until_closed(slow_body));
    assert_eq!((silence.0.as_str(), half.0.as_str()), ("", ""));
    assert!(silence.1 >= Duration::from_secs(14) && half.1 >= Duration::from_secs(14), "{silence:?} {half:?}");
    assert!(body.0.starts_with("HTTP/1.1 408") && body.0.contains("request_timeout"), "{body:?}");
    assert!(body.1 >= Duration::from_secs(9), "cut off too early: {body:?}");
    for (reason, closed) in [("silent", 1.0), ("slow_head", 1.0)] {
        let name = format!("flagmint_connections_closed_total{{reason=\"{reason}\"}} ");
        assert_eq!(metric(&person, &name).await, closed, "{reason}");
    }
    assert_eq!(metric(&person, "flagmint_evaluator_refused_total{status=\"408\"} ").await, 1.0);
    raw(&server.url, b"these words are no request\r\n\r\n").await;
    raw(&server.url, format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(300_000)).as_bytes()).await;
    for reason in ["no_http", "head_too_large"] {
        let name = format!("flagmint_requests_refused_total{{reason=\"{reason}\"}} ");
        assert_eq!(metric(&person, &name).await, 1.0, "{reason}");
    }
    assert_eq!(shop.evaluate(&person.http, &server.url, "u").await.expect("an answer").0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_connections_and_no_more_and_their_places_come_back() {
    for (option, reason) in [("--max-connections", "all"), ("--max-connections-per-address", "per_address")] {
        let place = Place::new().await;
        let mut command = flagmint(&place.data_dir());
        command.args(["--postgres", &place.database, option, "8"]);
        let server = Server::start(command);
        let mut held = Vec::new();
        let refused = loop {
            let mut stream = connect(&server.url).await;
            let _ = stream.write_all(LIVE).await;
            let mut answer = [0; 12];
            match stream.read_exact(&mut answer).await {
                Ok(_) => held.push((stream, answer)),
                Err(refused) => break refused,
            }
        };
        assert_eq!(held.len(), 8, "{option}: {refused}");
        assert!(held.iter().all(|(_, answer)| answer == b"HTTP/1.1 200"));
        held.truncate(4);
        let deadline = Instant::now() + PATIENCE;
        while !raw(&server.url, LIVE_ONCE).await.contains("live") {
            assert!(Instant::now() < deadline, "{option}: places do not come back");
        }
        let person = Person::sign_in(&server.url).await;
        let name = format!("flagmint_connections_refused_total{{reason=\"{reason}\"}} ");
        assert!(metric(&person, &name).await >= 1.0, "{option}");
    }
}

/// Whatever one key does, others are served, and what it held is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_connects_of_one_key_harm_nobody() {
    const CONNECTS: u64 = 5_000;
    let _machine = machine().await;
    let place = Place::new().await;
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    let ask = json!({ "name": "storm", "environment_id": shop.environment_id, "rate_limit_per_minute": 100 });
    let storming = person.post(&format!("/api-keys/{}", shop.project_id), ask).await["key"].take();
    let storming = storming.as_str().expect("a key");
    let deadline = Instant::now() + PATIENCE;
    let knows = || person.http.post(format!("{}/evaluator/evaluate", server.url)).header("x-api-key", storming).send();
    while knows().await.expect("an answer").status() == 401 {
        assert!(Instant::now() < deadline, "the key is not known");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let is_over = AtomicBool::new(false);
    let upgraded = AtomicU64::new(0);
    let started = Instant::now();
    let storm = async {
        let request = format!(
            "GET /ws/sdk?apiKey={storming} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let connects = futures::stream::iter(0..CONNECTS).for_each_concurrent(200, async |_| {
            let mut stream = connect(&server.url).await;
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            upgraded.fetch_add(u64::from(&answer == b"HTTP/1.1 101"), Ordering::Relaxed);
        });
        connects.await;
        is_over.store(true, Ordering::Relaxed);
    };
    let others = async {
        let mut slowest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            assert_eq!(shop.evaluate(&person.http, &server.url, "u").await.expect("an answer").0, 200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let ((), slowest) = tokio::join!(storm, others);
    let rate = CONNECTS as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} connects a second; another key's slowest answer took {slowest:?}");
    assert_eq!(upgraded.load(Ordering::Relaxed), CONNECTS, "an upgrade is never refused");
    assert!(server.child.try_wait().expect("a child").is_none(), "the storm ended the process");
    let deadline = Instant::now() + PATIENCE;
    while metric(&person, "flagmint_connections_open ").await > 10.0 {
        assert!(Instant::now() < deadline, "connections are not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
