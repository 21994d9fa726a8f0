//! Records that could not be read, written down: in a file beside the data, or in a topic of Kafka.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flagmint_aggregator::fold::DeadLetter;
use flagmint_log::kafka::SideTopics;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use crate::limits::{DEAD_LETTER_ATTEMPTS, DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_WAITING_MAX};

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

/// Writes the letters sent to it into the topic of dead letters. What the brokers do not take after some attempts is counted in the ledger only,
/// and the decisions' topic still holds the record: a topic that is away must not hold up counting.
pub fn publish(topics: SideTopics) -> mpsc::Sender<DeadLetter> {
    let (sender, mut letters) = mpsc::channel::<DeadLetter>(DEAD_LETTERS_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(letter) = letters.recv().await {
            let key = format!("{}/{}/{}", letter.epoch, letter.partition, letter.offset);
            let line = line(&letter).to_string();
            let mut published = topics.publish_dead_letter(key.as_bytes(), line.as_bytes()).await;
            for _ in 1..DEAD_LETTER_ATTEMPTS {
                if published.is_ok() {
                    break;
                }
                published = topics.publish_dead_letter(key.as_bytes(), line.as_bytes()).await;
            }
            if let Err(error) = published {
                metrics::counter!("flagmint_aggregator_dead_letters_dropped_total").increment(1);
                warn!(%error, key, "a dead letter could not be published");
            }
        }
    });
    sender
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
