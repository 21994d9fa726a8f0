//! The known load: calls one after the other on several connections, each noted when it is answered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::installation::Installation;
use crate::processes::LOOK;
use crate::support::Shop;

const CONNECTIONS: usize = 4;

/// Between the calls of a connection: together some 500 calls a second, which leaves the machine to what is tested.
const PAUSE: Duration = Duration::from_millis(6);

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Calls {
    /// When each answer came, and from which evaluator.
    pub answered: Vec<(Instant, usize)>,
    /// Calls that may or may not have been decided: their connection broke.
    pub unanswered: u64,
}

struct Shared {
    /// Each connection calls one after the other, of one evaluator after the other.
    shops: Vec<Arc<Shop>>,
    urls: Vec<String>,
    flows: AtomicBool,
    under_way: AtomicUsize,
    calls: Mutex<Calls>,
}

pub struct Traffic {
    shared: Arc<Shared>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    /// Connections that rest.
    pub fn start(installation: &Installation) -> Self {
        let shared = Arc::new(Shared {
            shops: installation.shops.clone(),
            urls: installation.urls(),
            flows: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            calls: Mutex::default(),
        });
        let workers = (0..CONNECTIONS).map(|number| tokio::spawn(work(number, Arc::clone(&shared)))).collect();
        Self { shared, workers }
    }

    pub fn flow(&self) {
        self.shared.flows.store(true, Ordering::SeqCst);
    }

    /// Returns when no call is under way any more.
    pub async fn rest(&self) {
        self.shared.flows.store(false, Ordering::SeqCst);
        while self.shared.under_way.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What became of the calls since the last time.
    pub fn take(&self) -> Calls {
        std::mem::take(&mut self.shared.calls.lock().expect("no worker panics"))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.workers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn work(number: usize, shared: Arc<Shared>) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
    for call in number.. {
        tokio::time::sleep(PAUSE).await;
        // Registered before it is looked whether calls may be made, so that `rest` misses none.
        shared.under_way.fetch_add(1, Ordering::SeqCst);
        if shared.flows.load(Ordering::SeqCst) {
            let evaluator = call % shared.urls.len();
            let shop = &shared.shops[call / shared.urls.len() % shared.shops.len()];
            let answer = shop.evaluate(&http, &shared.urls[evaluator], &format!("user-{number}")).await;
            let mut calls = shared.calls.lock().expect("no worker panics");
            match answer {
                Ok((200, _)) => calls.answered.push((Instant::now(), evaluator)),
                // Nobody listened.
                Err(error) if error.is_connect() => {}
                _ => calls.unanswered += 1,
            }
        }
        shared.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}
