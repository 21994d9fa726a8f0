//! A relay in front of a broker that understands requests well enough to harm one kind of them: an answer that is lost, or one that is
//! always the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Kinds of requests, by their number in Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api(i16);

impl Api {
    pub const PRODUCE: Self = Self(0);
    pub const FETCH: Self = Self(1);
    pub const OFFSET_COMMIT: Self = Self(8);
}

#[derive(Debug, Default)]
struct State {
    /// The next answer to such a request is lost, with its connection.
    armed: Mutex<Option<Api>>,
    connections: AtomicU64,
    /// Fetches on connections before this one are answered as the one before.
    stale_before: AtomicU64,
}

/// Relays until it is dropped, but for connections that are there: these end by themselves.
pub struct Relay {
    /// Where clients find it.
    pub address: String,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// The relay of the first broker of `dev/servers/with-kafka`.
    pub async fn start() -> Self {
        let places =
            std::env::var("FLAGMINT_TEST_KAFKA_RELAY").expect("dev/servers/with-kafka sets FLAGMINT_TEST_KAFKA_RELAY");
        let (address, broker) =
            places.split(',').next().and_then(|first| first.split_once('=')).expect("ADDRESS=BROKER");
        let listener = TcpListener::bind(address).await.expect("a port that is kept for this");
        let (state, broker) = (Arc::<State>::default(), broker.to_owned());
        let accepting = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (state, broker) = (Arc::clone(&state), broker.clone());
                    // A connection that fails is one that is cut: that is what this is for.
                    tokio::spawn(async move { relay(client, TcpStream::connect(broker).await?, &state).await });
                }
            }
        });
        Self { address: address.to_owned(), state, accepting }
    }

    /// The next answer to such a request does not arrive.
    pub fn lose_answer(&self, api: Api) {
        *lock(&self.state.armed) = Some(api);
    }

    /// Whether that is still to come.
    pub fn is_armed(&self) -> bool {
        lock(&self.state.armed).is_some()
    }

    /// From now on fetches on the connections that are there bring what they brought last, for ever.
    pub fn repeat_fetches(&self) {
        self.state.stale_before.store(self.state.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What was asked on a connection and is not answered yet, by correlation id.
type Asked = Mutex<HashMap<[u8; 4], Api>>;

async fn relay(client: TcpStream, server: TcpStream, state: &State) -> std::io::Result<()> {
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    let asked = Asked::default();
    let ((client_reads, client_writes), (server_reads, server_writes)) = (client.into_split(), server.into_split());
    tokio::try_join!(
        questions(client_reads, server_writes, &asked),
        answers(server_reads, client_writes, &asked, state, number)
    )?;
    Ok(())
}

/// Length and body, as both questions and answers come.
async fn frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = vec![0; 4 + length as usize];
    frame[..4].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        if let [_, _, _, _, key_high, key_low, _, _, correlation @ ..] = &frame[..]
            && let Some(correlation) = correlation.first_chunk::<4>()
        {
            lock(asked).insert(*correlation, Api(i16::from_be_bytes([*key_high, *key_low])));
        }
        to.write_all(&frame).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Asked,
    state: &State,
    number: u64,
) -> std::io::Result<()> {
    let mut last_fetched: Option<Vec<u8>> = None;
    loop {
        let mut frame = frame(&mut from).await?;
        let correlation: [u8; 4] = frame.get(4..8).and_then(|id| id.try_into().ok()).unwrap_or_default();
        let api = lock(asked).remove(&correlation);
        if api.is_some() && *lock(&state.armed) == api {
            *lock(&state.armed) = None;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        if api == Some(Api::FETCH) {
            match &last_fetched {
                Some(last) if number < state.stale_before.load(Ordering::SeqCst) => {
                    frame.clone_from(last);
                    frame[4..8].copy_from_slice(&correlation);
                }
                _ => last_fetched = Some(frame.clone()),
            }
        }
        to.write_all(&frame).await?;
    }
}
