//! Encoding and decoding of batches: the choice of codec and what can be wrong with a stored batch.
//!
//! Decoding trusts nothing: whatever the bytes, it returns rows that are consistent with each other and with the
//! header, or an error; it never panics and allocates at most a small multiple of the payload's length.

use arrow::buffer::Buffer;
use bytes::Bytes;
use thiserror::Error;

use super::packed::{self, Form};
use super::{Batch, BatchHeader, BatchView, Codec, arrow_ipc, protobuf};
use crate::limits;

/// Why a payload cannot be decoded. Such a batch is parked; trying again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// Written with columns of another version.
    #[error("batch schema {0} is not known")]
    Schema(u16),
    /// Larger than any honest producer makes it.
    #[error("batch of {0} bytes is larger than {max}", max = limits::BATCH_BYTES_MAX)]
    TooLarge(usize),
    /// The bytes are not what the codec writes.
    #[error("{table} of the batch cannot be read: {reason}")]
    Malformed {
        /// The table of the batch.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The rows contradict each other or the header.
    #[error("batch is inconsistent: {0}")]
    Inconsistent(&'static str),
}

impl CodecError {
    pub(super) fn malformed(table: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { table, reason: reason.into() }
    }
}

impl Batch {
    /// The payload of this batch. A heartbeat is an empty batch as protobuf: zero bytes.
    ///
    /// # Panics
    /// If the texts of one dictionary column add up to 2 GiB, more than a hundred times what a decoder accepts.
    #[must_use]
    pub fn encode(&self, codec: Codec) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(codec, &mut out);
        out
    }

    /// Appends the payload to `out`, whose memory may be used again and again.
    ///
    /// # Panics
    /// As [`Self::encode`].
    pub fn encode_to(&self, codec: Codec, out: &mut Vec<u8>) {
        match codec {
            Codec::Arrow => arrow_ipc::encode(self, out),
            Codec::Protobuf => protobuf::encode(self, out),
            Codec::Packed | Codec::Short => self.rows().encode_to(codec, out),
        }
    }

    /// Reads a payload into rows. [`BatchView`] is the cheaper way for large batches.
    ///
    /// # Errors
    /// If the payload is damaged, of another version, or does not agree with `header`.
    pub fn decode(header: &BatchHeader, payload: &[u8]) -> Result<Self, CodecError> {
        check_size(header, payload.len())?;
        decode_any(header, payload, |_| Buffer::from(payload)).map(|view| view.to_batch())
    }
}

impl BatchView {
    /// Reads a payload. Arrow columns stay where they are if `payload` is aligned to 8 bytes, else they are copied once; of packed
    /// ones the texts stay where they are.
    ///
    /// # Errors
    /// If the payload is damaged, of another version, or does not agree with `header`.
    pub fn decode(header: &BatchHeader, payload: &Bytes) -> Result<Self, CodecError> {
        check_size(header, payload.len())?;
        decode_any(header, payload, |alignment| {
            let is_aligned = payload.as_ptr().addr().is_multiple_of(alignment);
            if is_aligned { Buffer::from(payload.clone()) } else { Buffer::from(payload.as_ref()) }
        })
    }
}

fn check_size(header: &BatchHeader, payload_bytes: usize) -> Result<(), CodecError> {
    if header.schema != BatchHeader::SCHEMA {
        return Err(CodecError::Schema(header.schema));
    }
    if payload_bytes > limits::BATCH_BYTES_MAX {
        return Err(CodecError::TooLarge(payload_bytes));
    }
    Ok(())
}

/// `aligned` gives the payload at an address that is a multiple of its argument.
fn decode_any(
    header: &BatchHeader,
    payload: &[u8],
    aligned: impl FnOnce(usize) -> Buffer,
) -> Result<BatchView, CodecError> {
    let view = match header.codec {
        Codec::Arrow => arrow_ipc::decode(&aligned(arrow_ipc::ALIGNMENT))?,
        Codec::Protobuf => BatchView::from_batch(&protobuf::decode(payload)?),
        Codec::Packed => packed::decode(aligned(1), Form::Full)?,
        Codec::Short => packed::decode(aligned(1), Form::Short)?,
    };
    view.check(header)?;
    Ok(view)
}
