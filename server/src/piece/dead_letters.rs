//! Records that could not be read, written down: in a file beside the data, or in a topic of Kafka and a table of ClickHouse.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flagmint_aggregator::fold::DeadLetter;
use flagmint_log::kafka::SideTopics;
use flagmint_store::clickhouse::{ClickHouseStore, DeadLetter as Row};
use futures::TryFutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use crate::limits::{DEAD_LETTER_ATTEMPTS, DEAD_LETTER_PAUSE, DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_WAITING_MAX};

/// Writes the letters sent to it down in `path`, one line of JSON each, on a thread of its own. Beyond the file's limit they are
/// counted in the ledger only.
pub fn write_dead_letters(path: PathBuf) -> mpsc::Sender<DeadLetter> {
    let (sender, mut letters) = mpsc::channel::<DeadLetter>(DEAD_LETTERS_WAITING_MAX);
    std::thread::spawn(move || {
        while let Some(letter) = letters.blocking_recv() {
            warn!(partition = letter.partition, offset = letter.offset, reason = %letter.reason, "a record is parked");
            if let Err(error) = append(&path, &letter) {
                warn!(%error, "a dead letter could not be written");
            }
        }
    });
    sender
}

/// Writes the letters sent to it into the topic of dead letters and into their table. What one of them does not take after some attempts is
/// in the other, is counted in the ledger, and the decisions' topic still holds the record: these must not hold up counting.
pub fn publish(topics: SideTopics, store: Arc<ClickHouseStore>) -> mpsc::Sender<DeadLetter> {
    let (sender, mut letters) = mpsc::channel::<DeadLetter>(DEAD_LETTERS_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(letter) = letters.recv().await {
            let key = format!("{}/{}/{}", letter.epoch, letter.partition, letter.offset);
            let line = line(&letter).to_string();
            let publish = || -> Attempt<'_> {
                let published = topics.publish_dead_letter(key.as_bytes(), line.as_bytes());
                Box::pin(published.map_err(|error| error.to_string()))
            };
            let keep =
                || -> Attempt<'_> { Box::pin(store.keep_dead_letter(row(&letter)).map_err(|error| error.to_string())) };
            tokio::join!(attempt("topic", &key, &publish), attempt("table", &key, &keep));
        }
    });
    sender
}

type Attempt<'a> = BoxFuture<'a, Result<(), String>>;

/// Tries what may fail for a while, but not for ever.
async fn attempt<'a>(place: &'static str, key: &str, what: &(dyn Fn() -> Attempt<'a> + Sync)) {
    let mut done = what().await;
    for _ in 1..DEAD_LETTER_ATTEMPTS {
        if done.is_ok() {
            return;
        }
        tokio::time::sleep(DEAD_LETTER_PAUSE).await;
        done = what().await;
    }
    if let Err(error) = done {
        metrics::counter!("flagmint_aggregator_dead_letters_dropped_total", "place" => place).increment(1);
        warn!(%error, key, place, "a dead letter could not be kept");
    }
}

fn row(letter: &DeadLetter) -> Row<'_> {
    Row {
        epoch: letter.epoch,
        partition: letter.partition,
        offset: letter.offset,
        append_time_us: letter.append_time_us,
        reason: &letter.reason,
        header: &letter.header,
        payload: &letter.payload,
        payload_bytes: letter.payload_bytes as u64,
    }
}

fn append(path: &Path, letter: &DeadLetter) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() > DEAD_LETTERS_BYTES_MAX {
        return Ok(());
    }
    writeln!(file, "{}", line(letter))
}

fn line(letter: &DeadLetter) -> Value {
    json!({
        "epoch": letter.epoch, "partition": letter.partition, "offset": letter.offset,
        "append_time_us": letter.append_time_us, "reason": letter.reason, "header_hex": hex::encode(&letter.header),
        "payload_hex": hex::encode(&letter.payload), "payload_bytes": letter.payload_bytes,
    })
}
