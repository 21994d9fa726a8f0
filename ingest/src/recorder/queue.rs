//! What waits for one partition of the log, in order: files of earlier processes, then memory, then this process's own file.
//!
//! While the own file holds anything, new records go there as well, so the order is always: recovered, memory, file.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use flagmint_schemas::batch::BatchHeader;
use tokio::sync::Notify;

use super::spool::{SpoolFile, file_name, frame_bytes};
use crate::limits;

/// A record on its way to the log.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) header: BatchHeader,
    pub(super) payload: Bytes,
    /// The last record of its flush in this partition: nothing after it is appended before all up to here is in the log.
    pub(super) ends_flush: bool,
    /// When it came into memory.
    pub(super) queued_at: Option<Instant>,
}

/// Where the files are and how much they may hold, for all partitions together.
#[derive(Debug)]
pub(super) struct SpoolSpace {
    pub(super) directory: PathBuf,
    pub(super) bytes_max: u64,
    pub(super) bytes: AtomicU64,
    pub(super) started_us: i64,
}

/// The source a group was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Recovered,
    Memory,
    Spool,
}

#[derive(Debug, Default)]
struct Waiting {
    recovered: VecDeque<SpoolFile>,
    memory: VecDeque<Item>,
    memory_bytes: usize,
    spool: Option<SpoolFile>,
    next_sequence: u64,
    is_closed: bool,
}

/// The queue of one partition.
#[derive(Debug)]
pub(super) struct Queue {
    partition: u32,
    waiting: Mutex<Waiting>,
    /// Told of every change that a reader may wait for.
    pub(super) changed: Notify,
}

/// A record was refused: memory and disk are full, or the disk fails.
#[derive(Debug)]
pub(super) struct Refused;

impl Queue {
    pub(super) fn new(partition: u32, recovered: Vec<SpoolFile>) -> Self {
        let waiting = Waiting { recovered: recovered.into(), ..Waiting::default() };
        Self { partition, waiting: Mutex::new(waiting), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record in, giving it its sequence. A refused one uses up its number: the gap shows the loss to every reader of the log.
    pub(super) fn push(&self, mut item: Item, space: &SpoolSpace) -> Result<(), Refused> {
        let mut waiting = self.lock();
        item.header.sequence = waiting.next_sequence;
        waiting.next_sequence += 1;
        let result = if waiting.takes_into_memory(&item) {
            waiting.memory_bytes += item.payload.len();
            waiting.memory.push_back(Item { queued_at: Some(Instant::now()), ..item });
            Ok(())
        } else {
            waiting.push_to_spool(self.partition, &item, space)
        };
        drop(waiting);
        self.changed.notify_one();
        result
    }

    /// Nothing more will be pushed.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Whether it is closed and everything was taken and acknowledged.
    pub(super) fn is_finished(&self) -> bool {
        let waiting = self.lock();
        waiting.is_closed && waiting.recovered.is_empty() && waiting.memory.is_empty() && waiting.spool.is_none()
    }

    /// The next records to append, at most to the end of one flush. They stay until [`Self::acknowledge`].
    pub(super) fn peek(&self, space: &SpoolSpace) -> Option<(Origin, Vec<Item>)> {
        let mut waiting = self.lock();
        while let Some(file) = waiting.recovered.front() {
            if let Some(items) = readable(file) {
                return Some((Origin::Recovered, items));
            }
            let file = waiting.recovered.pop_front().expect("the front was just looked at");
            retire(file, space);
        }
        if !waiting.memory.is_empty() {
            let end = waiting.memory.iter().position(|item| item.ends_flush).map_or(waiting.memory.len(), |at| at + 1);
            return Some((Origin::Memory, waiting.memory.iter().take(end).cloned().collect()));
        }
        let items = readable(waiting.spool.as_ref()?);
        if items.is_none() {
            let file = waiting.spool.take().expect("it was just read");
            retire(file, space);
        }
        items.map(|items| (Origin::Spool, items))
    }

    /// The log has these records, as given by [`Self::peek`].
    pub(super) fn acknowledge(&self, origin: Origin, items: &[Item], space: &SpoolSpace) {
        let mut waiting = self.lock();
        match origin {
            Origin::Memory => {
                waiting.memory.drain(..items.len());
                waiting.memory_bytes -= items.iter().map(|item| item.payload.len()).sum::<usize>();
            }
            Origin::Recovered => {
                let file = waiting.recovered.front_mut().expect("only peek removes files");
                acknowledge_file(file, items);
                if file.is_drained() {
                    retire(waiting.recovered.pop_front().expect("it is the front"), space);
                }
            }
            Origin::Spool => {
                let file = waiting.spool.as_mut().expect("only peek removes files");
                acknowledge_file(file, items);
                if file.is_drained() {
                    retire(waiting.spool.take().expect("it is there"), space);
                }
            }
        }
    }

    /// Puts what is left in memory into a file whose name sorts before the own one; returns the items that found no room.
    pub(super) fn spill(&self, space: &SpoolSpace) -> Vec<Item> {
        let mut waiting = self.lock();
        let items: Vec<Item> = waiting.memory.drain(..).collect();
        waiting.memory_bytes = 0;
        let newer = waiting.spool.take();
        let lost =
            items.into_iter().filter(|item| waiting.push_to_spool(self.partition, item, space).is_err()).collect();
        drop(newer);
        lost
    }

    /// Makes the files survive a power cut; for the end, when nobody pushes any more and the disk may be waited for.
    pub(super) fn sync(&self) -> io::Result<()> {
        let waiting = self.lock();
        waiting.recovered.iter().chain(&waiting.spool).try_for_each(SpoolFile::sync)
    }
}

impl Waiting {
    fn takes_into_memory(&self, item: &Item) -> bool {
        let is_stale = |first: &Item| first.queued_at.is_some_and(|at| at.elapsed() > limits::SPOOL_AFTER);
        self.spool.is_none()
            && self.memory.len() < limits::QUEUE_RECORDS
            && self.memory_bytes + item.payload.len() <= limits::QUEUE_BYTES
            && !self.memory.front().is_some_and(is_stale)
    }

    fn push_to_spool(&mut self, partition: u32, item: &Item, space: &SpoolSpace) -> Result<(), Refused> {
        let bytes = frame_bytes(item);
        let claim = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= space.bytes_max);
        space.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).map_err(|_full| Refused)?;
        let written = self.spool_file(partition, item, space).and_then(|file| file.push(item));
        written.map_err(|error| {
            space.bytes.fetch_sub(bytes, Ordering::Relaxed);
            tracing::error!(partition, %error, "cannot write to the spool; decisions are refused");
            Refused
        })
    }

    fn spool_file(&mut self, partition: u32, item: &Item, space: &SpoolSpace) -> io::Result<&mut SpoolFile> {
        if self.spool.is_none() {
            let name = file_name(partition, space.started_us, item.header.producer, item.header.sequence);
            self.spool = Some(SpoolFile::open(space.directory.join(name))?);
        }
        Ok(self.spool.as_mut().expect("it was just opened"))
    }
}

/// The next records of a file; none if there are none or they are damaged.
fn readable(file: &SpoolFile) -> Option<Vec<Item>> {
    if file.is_drained() {
        return None;
    }
    file.peek(limits::SPOOL_READ_BYTES)
        .inspect_err(|error| tracing::error!(file = %file.path().display(), %error, "the spool is damaged here"))
        .ok()
}

fn acknowledge_file(file: &mut SpoolFile, items: &[Item]) {
    if let Err(error) = file.acknowledge(items) {
        // At worst they are appended again after a restart, where the fold recognises them.
        tracing::warn!(file = %file.path().display(), %error, "cannot note what was replayed");
    }
}

/// Removes a file that was read to its end, or puts a damaged one aside.
fn retire(file: SpoolFile, space: &SpoolSpace) {
    space.bytes.fetch_sub(file.bytes(), Ordering::Relaxed);
    let is_drained = file.is_drained();
    let path = file.path().to_owned();
    let result = if is_drained {
        file.remove()
    } else {
        metrics::counter!("flagmint_ingest_spool_damaged_total").increment(1);
        file.set_aside()
    };
    if let Err(error) = result {
        tracing::warn!(file = %path.display(), %error, "cannot put a spool file away");
    }
}
