//! Sends requests at even times (open loop) or as fast as answers come (closed loop), and measures.
//!
//! Open-loop latency runs from the time a request was due, not from when it could be sent, so a server that stalls is
//! charged for all requests that had to wait (no coordinated omission), those among them that were still waiting at the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Target};
use super::seconds::Seconds;

/// Latencies up to a minute, to three digits.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The pacer sleeps for this long at least: it shares a core with what sends, and waking for each of tens of thousands of requests a second
/// would make them late. What a request comes due late by is counted.
const PACE_MIN: Duration = Duration::from_micros(100);

/// How requests are timed.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second, at even times, over so many connections.
    Open { rate_per_s: u32, connections: u32 },
    /// One after the other on each connection.
    Closed { connections: u32 },
}

/// What came back so far.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests that were sent.
    pub requests: u64,
    /// Open loop: requests that were due at the end and could not be sent yet.
    pub unsent: u64,
    /// Answers with status 200.
    pub ok: u64,
    /// Other answers, and requests without one.
    pub other: u64,
    /// Latencies of the answers with status 200, microseconds; for unsent requests, how long they had waited at the end.
    pub latency_us: Histogram<u64>,
    /// The same of each second.
    pub seconds: Seconds,
    /// The last failure, for a person.
    pub last_failure: Option<String>,
}

impl Default for Measured {
    fn default() -> Self {
        let (latency_us, seconds) = (no_latencies(), Seconds::default());
        Self { requests: 0, unsent: 0, ok: 0, other: 0, latency_us, seconds, last_failure: None }
    }
}

/// An empty histogram of latencies, microseconds.
pub(super) fn no_latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are valid")
}

/// A generator under way.
pub struct Traffic {
    measured: Arc<Mutex<Measured>>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

/// Sees the body of each 200.
pub type OnAnswer = Arc<dyn Fn(&[u8]) + Send + Sync>;

impl Traffic {
    /// Starts sending `bodies` in turn from a thread of its own; `on_answer` sees the body of each 200.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(target: Target, pace: Pace, bodies: Arc<[Bytes]>, on_answer: OnAnswer) -> std::io::Result<Self> {
        let measured = Arc::new(Mutex::new(Measured::default()));
        let stop = CancellationToken::new();
        let shared = Shared {
            target: Arc::new(target),
            bodies,
            on_answer,
            measured: Arc::clone(&measured),
            next: AtomicU64::new(0),
            started: Instant::now(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || drive(Arc::new(shared), pace))?;
        Ok(Self { measured, stop, thread })
    }

    /// What came back so far.
    pub fn measured(&self) -> Measured {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops sending, waits for the answers under way, and returns what came back.
    pub async fn finish(self) -> Measured {
        self.stop.cancel();
        while !self.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Shared {
    target: Arc<Target>,
    bodies: Arc<[Bytes]>,
    on_answer: OnAnswer,
    measured: Arc<Mutex<Measured>>,
    next: AtomicU64,
    started: Instant,
    stop: CancellationToken,
}

/// Runs all connections on one thread, so that a generator takes one core at most.
fn drive(shared: Arc<Shared>, pace: Pace) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the generator");
    let due = Arc::new(Semaphore::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let (connections, interval) = match pace {
        Pace::Open { rate_per_s, connections } => (connections, Some(Duration::from_secs(1) / rate_per_s)),
        Pace::Closed { connections } => (connections, None),
    };
    let pacer = interval.map(|interval| {
        let (shared, due, ended) = (Arc::clone(&shared), Arc::clone(&due), Arc::clone(&ended));
        std::thread::spawn(move || pace_requests(&shared, &due, &ended, interval))
    });
    runtime.block_on(async {
        let worker = |_| tokio::spawn(work(Arc::clone(&shared), interval, Arc::clone(&due), Arc::clone(&ended)));
        for worker in (0..connections).map(worker).collect::<Vec<_>>() {
            worker.await.expect("a worker does not panic");
        }
    });
    if let (Some(pacer), Some(interval)) = (pacer, interval) {
        let (made_due, ended) = pacer.join().expect("the pacer does not panic");
        note_unsent(&shared, interval, u64::from(made_due), ended);
    }
}

/// Charges what was due and never sent with the time it had waited when the load ended.
fn note_unsent(shared: &Shared, interval: Duration, made_due: u64, ended: Instant) {
    let mut measured = shared.measured.lock().unwrap_or_else(PoisonError::into_inner);
    for number in shared.next.load(Ordering::Relaxed)..made_due {
        let waited = ended.saturating_duration_since(shared.started + due_after(interval, number));
        measured.unsent += 1;
        measured.latency_us.saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX).max(1));
    }
}

/// Makes requests due at even times; how many, and when it ended. A thread, since the runtime's timers are no finer than a
/// millisecond.
fn pace_requests(shared: &Shared, due: &Semaphore, ended: &AtomicBool, interval: Duration) -> (u32, Instant) {
    let mut made_due: u32 = 0;
    while !shared.stop.is_cancelled() {
        let should = u32::try_from(shared.started.elapsed().as_nanos() / interval.as_nanos()).unwrap_or(u32::MAX);
        due.add_permits((should - made_due) as usize);
        made_due = should;
        let next = interval * (made_due + 1);
        let rest = next.saturating_sub(shared.started.elapsed());
        std::thread::sleep(rest.clamp(PACE_MIN, Duration::from_millis(20)));
    }
    ended.store(true, Ordering::Release);
    due.close();
    (made_due, Instant::now())
}

async fn work(shared: Arc<Shared>, interval: Option<Duration>, due: Arc<Semaphore>, ended: Arc<AtomicBool>) {
    let mut client = Client::new(Arc::clone(&shared.target));
    while !shared.stop.is_cancelled() {
        if interval.is_some() {
            match due.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => break,
            }
        }
        if ended.load(Ordering::Acquire) {
            break;
        }
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let begun = interval.map_or_else(Instant::now, |interval| shared.started + due_after(interval, number));
        let body = shared.bodies[(number % shared.bodies.len() as u64) as usize].clone();
        let answer = client.ask(body).await;
        let latency_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Ok(answer) = answer.as_ref()
            && answer.status == 200
        {
            (shared.on_answer)(&answer.body);
        }
        note(&shared, answer.map(|answer| answer.status), latency_us);
    }
}

/// Request `number` is due when the pacer makes permit `number + 1`.
fn due_after(interval: Duration, number: u64) -> Duration {
    Duration::from_nanos(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(number + 1))
}

fn note(shared: &Shared, status: Result<u16, String>, latency_us: u64) {
    let second = shared.started.elapsed().as_secs();
    let mut measured = shared.measured.lock().unwrap_or_else(PoisonError::into_inner);
    measured.requests += 1;
    match status {
        Ok(200) => {
            measured.ok += 1;
            measured.latency_us.saturating_record(latency_us.max(1));
            measured.seconds.record(second, latency_us);
        }
        Ok(status) => {
            measured.other += 1;
            measured.last_failure = Some(format!("status {status}"));
        }
        Err(error) => {
            measured.other += 1;
            measured.last_failure = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::load::client::Endpoint;

    /// Answers at once, but not between `from` and `until` after the start.
    async fn stalling(from: Duration, until: Duration) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let started = Instant::now();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    // Requests are small, and the next one is sent only after the answer: one read is one request.
                    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                        if (from..until).contains(&started.elapsed()) {
                            tokio::time::sleep(until - started.elapsed()).await;
                        }
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        url
    }

    /// Of 1,000 requests a second, 300 are due in a stall of 300 ms: 150 of them wait 150 ms and more. Only two are under way then,
    /// so a generator that waited with the server would see two slow answers.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stall_is_charged_for_every_request_that_had_to_wait() {
        let url = stalling(Duration::from_millis(100), Duration::from_millis(400)).await;
        let target = Target::resolve(&url, "k", Endpoint::Evaluate).await.unwrap();
        let pace = Pace::Open { rate_per_s: 1000, connections: 2 };
        let traffic = Traffic::start(target, pace, Arc::from([Bytes::from("{}")]), Arc::new(|_| ())).unwrap();
        while traffic.measured().requests < 450 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let measured = traffic.finish().await;
        let slow = measured.latency_us.iter_recorded().filter(|it| it.value_iterated_to() >= 150_000);
        let slow: u64 = slow.map(|it| it.count_at_value()).sum();
        assert!(slow >= 140, "{slow} of {} waited long", measured.requests);
        assert_eq!(measured.latency_us.len(), measured.ok + measured.unsent);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_could_never_be_sent_is_charged_too() {
        let url = stalling(Duration::ZERO, Duration::from_millis(400)).await;
        let target = Target::resolve(&url, "k", Endpoint::Evaluate).await.unwrap();
        let pace = Pace::Open { rate_per_s: 1000, connections: 1 };
        let traffic = Traffic::start(target, pace, Arc::from([Bytes::from("{}")]), Arc::new(|_| ())).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let measured = traffic.finish().await;
        assert!(measured.unsent >= 190 && measured.latency_us.max() >= 190_000, "{measured:?}");
    }
}
