//! Codec 1: five Arrow IPC record batch messages, one per table, without schema message and without compression.
//!
//! Each message is encapsulated as in the Arrow IPC format, version 5 of the metadata (a continuation marker, the length
//! of the metadata, the metadata, the body), everything aligned to 8 bytes. Behind a schema message each is a stream
//! any Arrow reader takes. Decoding does not use the library's reader: it allocates by lengths found in the message,
//! and its slices panic.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow::ipc::{self, MetadataVersion, root_as_message};

use super::column::Source;
use super::table::{CallColumns, CallerColumns, ContextColumns, DecisionColumns, OutcomeColumns};
use super::{Batch, BatchView, CodecError};

/// To which every buffer of a message is aligned, in bytes: the widest native value.
pub(super) const ALIGNMENT: usize = 8;

/// Starts an encapsulated message since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Bytes of the continuation marker and the metadata's length.
const PREFIX_BYTES: usize = 8;

pub(super) fn encode(batch: &Batch, out: &mut Vec<u8>) {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).expect("8 is a valid alignment");
    let mut context = IpcWriteContext::default();
    for table in [
        CallerColumns::from_rows(&batch.callers).record_batch(),
        OutcomeColumns::from_rows(&batch.outcomes).record_batch(),
        ContextColumns::from_rows(&batch.contexts).record_batch(),
        CallColumns::from_rows(&batch.calls).record_batch(),
        DecisionColumns::from_rows(&batch.decisions).record_batch(),
    ] {
        append(&table, &options, &mut context, out);
    }
}

fn append(table: &RecordBatch, options: &IpcWriteOptions, context: &mut IpcWriteContext, out: &mut Vec<u8>) {
    let mut no_dictionaries = DictionaryTracker::new(false);
    let (_, message) = IpcDataGenerator::default()
        .encode(table, &mut no_dictionaries, options, context)
        .expect("plain columns without compression always encode");
    write_message(out, message, options).expect("writing to memory");
}

pub(super) fn decode(payload: &Buffer) -> Result<BatchView, CodecError> {
    let mut rest = payload.clone();
    let callers = CallerColumns::read_from(&mut rest)?;
    let outcomes = OutcomeColumns::read_from(&mut rest)?;
    let contexts = ContextColumns::read_from(&mut rest)?;
    let calls = CallColumns::read_from(&mut rest)?;
    let decisions = DecisionColumns::read_from(&mut rest)?;
    if !rest.is_empty() {
        return Err(CodecError::Inconsistent("bytes after the last table"));
    }
    BatchView::from_tables(&callers, outcomes, contexts, calls, decisions)
}

macro_rules! read_from {
    ($($table:ident)+) => {$(
        impl $table {
            /// Takes the next message.
            fn read_from(rest: &mut Buffer) -> Result<Self, CodecError> {
                let malformed = |reason| CodecError::malformed(Self::NAME, reason);
                let (metadata, after) = split_metadata(rest).map_err(malformed)?;
                let message = root_as_message(&metadata).map_err(|error| malformed(error.to_string()))?;
                let mut source = Message::new(&message, after).map_err(malformed)?;
                let rows = source.rows;
                let table = Self::read(&mut source, rows)?;
                *rest = source.finish().map_err(malformed)?;
                Ok(table)
            }
        }
    )+};
}

read_from! { CallerColumns OutcomeColumns ContextColumns CallColumns DecisionColumns }

/// The metadata of the first message and what follows it.
fn split_metadata(bytes: &Buffer) -> Result<(Buffer, Buffer), String> {
    let (prefix, after) = split(bytes, PREFIX_BYTES).ok_or("no message")?;
    let (marker, length) = prefix.split_at(CONTINUATION.len());
    if marker != CONTINUATION {
        return Err("no continuation marker".into());
    }
    let length = u32::from_le_bytes(length.try_into().expect("four bytes are left"));
    split(&after, length as usize).ok_or_else(|| format!("metadata of {length} bytes is cut off"))
}

fn split(bytes: &Buffer, at: usize) -> Option<(Buffer, Buffer)> {
    let is_aligned = at.is_multiple_of(ALIGNMENT);
    (is_aligned && at <= bytes.len()).then(|| (bytes.slice_with_length(0, at), bytes.slice(at)))
}

/// A record batch message being read: its nodes and buffers are taken in order.
struct Message<'a> {
    rows: usize,
    batch: ipc::RecordBatch<'a>,
    nodes_taken: usize,
    buffers_taken: usize,
    body: Buffer,
    rest: Buffer,
}

impl<'a> Message<'a> {
    fn new(message: &ipc::Message<'a>, after: Buffer) -> Result<Self, String> {
        let batch = message.header_as_record_batch().ok_or("not a record batch")?;
        if batch.compression().is_some() || batch.variadicBufferCounts().is_some() {
            return Err("compressed or variadic".into());
        }
        if message.version() != MetadataVersion::V5 {
            return Err("metadata of another version".into());
        }
        let body_bytes = usize::try_from(message.bodyLength()).map_err(|_| "negative length")?;
        let (body, rest) = split(&after, body_bytes).ok_or("body is cut off")?;
        let rows = usize::try_from(batch.length()).map_err(|_| "negative number of rows")?;
        Ok(Self { rows, batch, nodes_taken: 0, buffers_taken: 0, body, rest })
    }

    /// What follows the message, once all of it was taken.
    fn finish(self) -> Result<Buffer, String> {
        let nodes = self.batch.nodes().map_or(0, |nodes| nodes.len());
        let buffers = self.batch.buffers().map_or(0, |buffers| buffers.len());
        if (nodes, buffers) != (self.nodes_taken, self.buffers_taken) {
            return Err("more columns than the schema has".into());
        }
        Ok(self.rest)
    }
}

impl Source for Message<'_> {
    fn next_column(&mut self, rows: usize) -> Result<(), String> {
        let index = self.nodes_taken;
        let nodes = self.batch.nodes().filter(|nodes| index < nodes.len()).ok_or("column is missing")?;
        let node = nodes.get(index);
        self.nodes_taken += 1;
        if usize::try_from(node.length()) != Ok(rows) || node.null_count() != 0 {
            return Err(format!("{} rows with {} nulls, not {rows} with none", node.length(), node.null_count()));
        }
        Ok(())
    }

    fn next_buffer(&mut self) -> Result<Buffer, String> {
        let index = self.buffers_taken;
        let buffers = self.batch.buffers().filter(|buffers| index < buffers.len()).ok_or("buffer is missing")?;
        let place = buffers.get(index);
        self.buffers_taken += 1;
        let range = usize::try_from(place.offset()).ok().zip(usize::try_from(place.length()).ok());
        range
            .filter(|&(start, length)| start.checked_add(length).is_some_and(|end| end <= self.body.len()))
            .map(|(start, length)| self.body.slice_with_length(start, length))
            .ok_or_else(|| "buffer is outside the body".into())
    }
}
