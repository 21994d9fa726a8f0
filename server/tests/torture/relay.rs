//! A relay in front of ClickHouse that cuts a connection at the worst moment: in the middle of an insert, or when it is done and only the
//! answer is missing.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Which insert is cut, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Cells, of which the server has a part.
    CellsWithinBody,
    /// Cells that the server has taken.
    CellsBeforeAnswer,
    /// Positions that the server has taken: they commit what the cells before them say.
    PositionsBeforeAnswer,
}

/// The insert that a connection is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Insert {
    Cells,
    Positions,
}

impl Insert {
    /// Read off the first line of a request.
    fn of(request: &[u8]) -> Option<Self> {
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let has = |text: &[u8]| line.windows(text.len()).any(|window| window == text);
        match (has(b"INSERT"), has(b"positions")) {
            (false, _) => None,
            (true, false) => Some(Self::Cells),
            (true, true) => Some(Self::Positions),
        }
    }

    const fn suffers(self, cut: Cut) -> bool {
        match cut {
            Cut::CellsWithinBody | Cut::CellsBeforeAnswer => matches!(self, Self::Cells),
            Cut::PositionsBeforeAnswer => matches!(self, Self::Positions),
        }
    }
}

type Armed = Arc<Mutex<Option<Cut>>>;

pub struct Relay {
    pub address: String,
    armed: Armed,
    accepting: tokio::task::JoinHandle<()>,
}

fn lock(armed: &Armed) -> std::sync::MutexGuard<'_, Option<Cut>> {
    armed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// A relay to `server`, a host and port.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let armed = Armed::default();
        let accepting = tokio::spawn({
            let armed = Arc::clone(&armed);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (server, armed) = (server.clone(), Arc::clone(&armed));
                    // A connection that fails is one that is cut: that is what this is for.
                    tokio::spawn(async move { relay(client, TcpStream::connect(server).await?, &armed).await });
                }
            }
        });
        Self { address, armed, accepting }
    }

    /// Cuts the next insert that it can be done to.
    pub fn arm(&self, cut: Cut) {
        *lock(&self.armed) = Some(cut);
    }

    /// Whether the cut is still to come.
    pub fn is_armed(&self) -> bool {
        lock(&self.armed).is_some()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, armed: &Armed) -> std::io::Result<()> {
    let takes = |insert: Option<Insert>, is_answer: bool| {
        let mut armed = lock(armed);
        let is_hit = armed.is_some_and(|cut| {
            insert.is_some_and(|insert| insert.suffers(cut)) && is_answer == (cut != Cut::CellsWithinBody)
        });
        is_hit && armed.take().is_some()
    };
    let (mut question, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // A client asks once it has its answer: what it sends then begins with the first line.
    let (mut insert, mut is_first) = (None, true);
    loop {
        tokio::select! {
            read = client.read(&mut question) => {
                let bytes = &question[..read?];
                if bytes.is_empty() {
                    return server.shutdown().await;
                }
                if is_first {
                    insert = Insert::of(bytes);
                    is_first = false;
                }
                if let Some(half) = within_body(bytes).filter(|_| takes(insert, false)) {
                    return server.write_all(half).await;
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut answer) => {
                let bytes = &answer[..read?];
                if bytes.is_empty() || takes(insert, true) {
                    return Ok(());
                }
                (insert, is_first) = (None, true);
                client.write_all(bytes).await?;
            }
        }
    }
}

/// A part of what is sent that ends within the body, if there is body in it.
fn within_body(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    (bytes.len() > end + 2).then(|| &bytes[..end + (bytes.len() - end) / 2])
}
