//! Load on the data plane that knows what it was answered, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::Shop;

const CONNECTIONS: usize = 8;

/// Replies by when they came, and how many requests never got one.
#[derive(Default)]
pub struct Answered {
    pub at: Vec<Instant>,
    pub unanswered: u64,
}

/// Requests over several connections, one after the other on each, until it is finished.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Answered>>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts; each connection rests for `pause` between its requests.
    pub fn start(shop: Arc<Shop>, url: String, pause: Duration) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Answered::default())));
        let worker = |number| {
            let (shop, url, stop, answered) =
                (Arc::clone(&shop), url.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                while !stop.load(Ordering::Relaxed) {
                    let reply = shop.evaluate(&http, &url, &format!("user-{number}")).await;
                    {
                        let mut answered = answered.lock().expect("no worker panics");
                        if matches!(reply, Ok((200, _))) {
                            answered.at.push(Instant::now());
                        } else {
                            answered.unanswered += 1;
                            break;
                        }
                    }
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            })
        };
        let workers = (0..CONNECTIONS).map(worker).collect();
        Self { stop, answered, workers }
    }

    /// Stops; what was answered.
    pub async fn finish(self) -> Answered {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.expect("no worker panics");
        }
        std::mem::take(&mut self.answered.lock().expect("no worker panics"))
    }
}
