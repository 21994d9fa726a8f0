//! What the control plane leans on, away: Postgres (requests are answered 503 soon, and all is well once it is back)
//! and the meter (nothing waits for it).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use flagmint_control_plane::{ControlPlane, Settings, connect};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Api, EMAIL, PASSWORD, PATIENCE, serve};

/// A way to Postgres that can be cut.
#[derive(Default)]
struct Line {
    up: AtomicBool,
    open: AtomicUsize,
}

impl Line {
    /// Cuts the line; returns once nothing passes any more.
    async fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
        let cut = async {
            while self.open.load(Ordering::SeqCst) > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, cut).await.unwrap();
    }

    /// Passes one connection on until either end or the line closes it.
    async fn pass(&self, mut client: TcpStream, server: &str) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let down = async {
            while self.up.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let pass = async {
            if let Ok(mut server) = TcpStream::connect(server).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        };
        tokio::select! { biased; () = down => {}, () = pass => {} }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A line to `server`, not up yet, and the port that leads to it.
async fn line(server: String) -> (u16, Arc<Line>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = Arc::new(Line::default());
    let shared = Arc::clone(&line);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (line, server) = (Arc::clone(&shared), server.clone());
            tokio::spawn(async move { line.pass(client, &server).await });
        }
    });
    (port, line)
}

#[tokio::test]
async fn requests_are_refused_while_postgres_is_away_and_served_after() {
    let mut api = Api::start().await;
    let sample = api.sample("boolean").await;
    let (address, database) = api.url.split_once('@').unwrap().1.split_once('/').unwrap();
    let (port, line) = line(address.to_owned()).await;
    let user = api.url.split_once('@').unwrap().0;
    let pool = connect(&format!("{user}@127.0.0.1:{port}/{database}")).unwrap();
    api.base = serve(ControlPlane::new(pool, Settings::default(), None)).await;

    let requests: [(Method, &str, Option<Value>); 3] = [
        (Method::GET, "/projects", None),
        (Method::POST, "/users/login", Some(json!({"email": EMAIL, "password": PASSWORD}))),
        (Method::POST, &sample.rollouts(), Some(json!({"strategy": "off"}))),
    ];
    for round in ["from the start", "after serving"] {
        for (method, path, body) in &requests {
            let begun = Instant::now();
            let (status, reply) = api.send(method.clone(), &api.token, path, body.as_ref()).await;
            assert_eq!((status, &reply["error"]), (503, &json!("unavailable")), "{round} {path}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{round} {path}: {:?}", begun.elapsed());
        }
        line.up.store(true, Ordering::SeqCst);
        for (method, path, body) in &requests {
            let served = async {
                while api.send(method.clone(), &api.token, path, body.as_ref()).await.0 >= 500 {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, served).await.unwrap_or_else(|_| panic!("{round} {path} is served again"));
        }
        line.cut().await;
    }
    assert_eq!(api.version(&sample.live).await, 4); // Two of the writes came through, each once.
}

#[tokio::test]
async fn a_full_meter_never_holds_a_write_up() {
    let mut api = Api::start().await;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    api.base = serve(ControlPlane::new(api.pool.clone(), Settings::default(), Some(sender))).await;
    let sample = api.sample("boolean").await; // Fills the channel.
    api.made(&sample.rollouts(), json!({"strategy": "off"})).await;
    assert!(receiver.try_recv().is_ok());
    assert!(receiver.try_recv().is_err());
    api.made(&sample.rollouts(), json!({"strategy": "off"})).await;
    assert!(receiver.try_recv().is_ok());
}
