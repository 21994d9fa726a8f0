//! Postgres away: requests are answered 503 soon, and all is well once it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flagmint_control_plane::{ControlPlane, Settings, connect};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Api, EMAIL, PASSWORD, PATIENCE, serve};

/// Passes connections on to `server` while `up`; those it has are cut when it goes down.
async fn proxy(server: String, up: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (server, up) = (server.clone(), Arc::clone(&up));
            tokio::spawn(async move {
                let down = async {
                    while up.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(5)).await;
                    }
                };
                let pass = async {
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                };
                tokio::select! { () = down => {}, () = pass => {} }
            });
        }
    });
    port
}

#[tokio::test]
async fn requests_are_refused_while_postgres_is_away_and_served_after() {
    let mut api = Api::start().await;
    let sample = api.sample("boolean").await;
    let (address, database) = api.url.split_once('@').unwrap().1.split_once('/').unwrap();
    let up = Arc::new(AtomicBool::new(false));
    let port = proxy(address.to_owned(), Arc::clone(&up)).await;
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
        up.store(true, Ordering::Relaxed);
        for (method, path, body) in &requests {
            let served = async {
                while api.send(method.clone(), &api.token, path, body.as_ref()).await.0 >= 500 {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, served).await.unwrap_or_else(|_| panic!("{round} {path} is served again"));
        }
        up.store(false, Ordering::Relaxed);
    }
    assert_eq!(api.version(&sample.live).await, 4); // Two of the writes came through, each once.
}
