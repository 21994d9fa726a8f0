//! Codecs 3 and 4: the five tables as packed columns. Batches are written in codec 4; codec 3 is what releases before it wrote.
//!
//! All numbers are little-endian. The payload is the number of rows of each table (five u32), then every column of every table, in
//! the order of [`super::table`]:
//!
//! - Numbers: the width of an offset (one byte: 0, 1, 2, 4 or 8), the base (8 bytes, two's complement), and, unless the width is
//!   0, an offset for each row. A value is base + offset, wrapping: frame-of-reference coding. In codec 4 the byte's upper four bits say how many
//!   bytes of the base follow; the rest of it is zeros.
//! - Ids: a form (one byte). 0: one id for all rows. 1: an id for each row. 2: the upper half of all, then the lower halves as numbers.
//!   3, in codec 4: no id in any row.
//! - Texts: their lengths in bytes as numbers, then the texts end to end. In codec 4 a form (one byte) comes first. 0: as in codec 3. 1: one
//!   text for all rows, its length (one byte) and the text. 2: the length of a prefix (one byte) and the prefix that all texts share, then of each 16
//!   bytes that are written out as 32 hexadecimal digits, as pseudonyms are ([`super::texts`]).
//! - Hashes of users' keys: as numbers; in codec 4, where each is the one that follows from its row's key ([`super::keys`]), one byte.
//!
//! What hardly varies within a batch (versions, times, call ids, meters) takes a byte or two a row or none, so a batch is less than half
//! as long as the same columns in Arrow's form, and is written in fewer steps.

use arrow::buffer::Buffer;

use super::table::{CallColumns, CallerColumns, ContextColumns, DecisionColumns, OutcomeColumns};
use super::{BatchRows, BatchView, CodecError, DecisionRow};
use crate::limits::PACKED_ROWS_MAX;

/// Which of the two codecs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Codec 3.
    Full,
    /// Codec 4.
    Short,
}

/// A payload being written.
pub struct Packer<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) form: Form,
}

const TABLES: usize = 5;

/// Bytes to reserve for a batch: what its dictionaries and the fixed part usually take. Being wrong costs a copy.
fn estimate_bytes(batch: &BatchRows<'_, impl ExactSizeIterator>) -> usize {
    1024 + batch.outcomes.len() * 128 + batch.contexts.len() * 64 + batch.calls.len() * 24 + batch.decisions.len() * 3
}

pub(super) fn encode(
    batch: &BatchRows<'_, impl ExactSizeIterator<Item = DecisionRow> + Clone>,
    form: Form,
    out: &mut Vec<u8>,
) {
    out.reserve(estimate_bytes(batch));
    let rows: [usize; TABLES] =
        [batch.callers.len(), batch.outcomes.len(), batch.contexts.len(), batch.calls.len(), batch.decisions.len()];
    rows.iter().for_each(|&rows| out.extend_from_slice(&(rows as u32).to_le_bytes()));
    let packer = &mut Packer { out, form };
    CallerColumns::pack(batch.callers, packer);
    OutcomeColumns::pack(batch.outcomes, packer);
    ContextColumns::pack(batch.contexts, packer);
    CallColumns::pack(batch.calls, packer);
    DecisionColumns::pack(batch.decisions.clone(), packer);
}

pub(super) fn decode(payload: Buffer, form: Form) -> Result<BatchView, CodecError> {
    let mut source = Packed { bytes: payload, at: 0, form };
    let mut rows = [0; TABLES];
    for rows in &mut rows {
        let bytes = source.take(4).map_err(|reason| CodecError::malformed("rows", reason))?;
        *rows = u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")) as usize;
        if *rows > PACKED_ROWS_MAX {
            return Err(CodecError::Inconsistent("more rows than a batch may have"));
        }
    }
    let [callers, outcomes, contexts, calls, decisions] = rows;
    // The entries of a dictionary differ, so each takes a byte somewhere; without this a few bytes could claim much memory.
    if [callers, outcomes, contexts].into_iter().any(|entries| entries > source.bytes.len()) {
        return Err(CodecError::Inconsistent("more entries in a dictionary than bytes"));
    }
    let callers = CallerColumns::unpack(&mut source, callers)?;
    let outcomes = OutcomeColumns::unpack(&mut source, outcomes)?;
    let mut contexts = ContextColumns::unpack(&mut source, contexts)?;
    contexts.derive_user_hashes();
    let calls = CallColumns::unpack(&mut source, calls)?;
    let decisions = DecisionColumns::unpack(&mut source, decisions)?;
    if source.at != source.bytes.len() {
        return Err(CodecError::Inconsistent("bytes after the last table"));
    }
    BatchView::from_tables(&callers, outcomes, contexts, calls, decisions)
}

/// A payload being read from its front.
pub struct Packed {
    bytes: Buffer,
    at: usize,
    pub(super) form: Form,
}

impl Packed {
    fn advance(&mut self, bytes: usize) -> Result<usize, String> {
        let (start, left) = (self.at, self.bytes.len() - self.at);
        if bytes > left {
            return Err(format!("{bytes} bytes are cut off after {left}"));
        }
        self.at += bytes;
        Ok(start)
    }

    /// All bytes that were not taken yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// The next bytes.
    pub fn take(&mut self, bytes: usize) -> Result<&[u8], String> {
        let start = self.advance(bytes)?;
        Ok(&self.bytes[start..start + bytes])
    }

    /// The next bytes, sharing the payload's memory.
    pub fn share(&mut self, bytes: usize) -> Result<Buffer, String> {
        let start = self.advance(bytes)?;
        Ok(self.bytes.slice_with_length(start, bytes))
    }

    /// An offset for each of `rows` rows, `W` bytes wide.
    fn offsets<const W: usize>(&mut self, rows: usize) -> Result<&[[u8; W]], String> {
        Ok(self.take(rows.checked_mul(W).ok_or("too many rows")?)?.as_chunks().0)
    }
}

/// A number that columns are made of.
pub(super) trait Number: Copy + Ord {
    const MIN: Self;
    const MAX: Self;

    /// As 64 bits of two's complement.
    fn bits(self) -> u64;

    /// The number with these bits, if it has the range.
    fn from_bits(bits: u64) -> Option<Self>;

    /// How far it is above `base`, wrapping.
    fn above(self, base: Self) -> u64;

    /// The number this far above it, wrapping.
    fn plus(self, offset: u64) -> Self;
}

macro_rules! number {
    ($($native:ty as $wide:ty),+) => {$(
        impl Number for $native {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;

            fn bits(self) -> u64 {
                self as $wide as u64
            }

            fn from_bits(bits: u64) -> Option<Self> {
                (bits as $wide).try_into().ok()
            }

            fn above(self, base: Self) -> u64 {
                self.wrapping_sub(base) as u64
            }

            fn plus(self, offset: u64) -> Self {
                self.wrapping_add(offset as Self)
            }
        }
    )+};
}

number! { u8 as u64, u32 as u64, u64 as u64, i64 as i64 }

/// Bytes of a base up to the last that is not zero.
const fn bytes_of(base: u64) -> usize {
    (u64::BITS - base.leading_zeros()).div_ceil(u8::BITS) as usize
}

/// Appends a column of numbers.
pub(super) fn pack_numbers<N: Number>(items: impl ExactSizeIterator<Item = N> + Clone, packer: &mut Packer<'_>) {
    let (low, high) = items.clone().fold((N::MAX, N::MIN), |(low, high), item| (low.min(item), high.max(item)));
    let span = if low <= high { high.above(low) } else { 0 };
    let (base, width) = match span {
        // No rows at all have the base 0, as has a column of zeros.
        _ if items.len() == 0 => (0, 0),
        0 => (low.bits(), 0),
        1..=0xff => (low.bits(), 1),
        0x100..=0xffff => (low.bits(), 2),
        0x1_0000..=0xffff_ffff => (low.bits(), 4),
        _ => (low.bits(), 8),
    };
    let out = &mut *packer.out;
    match packer.form {
        Form::Full => {
            out.push(width);
            out.extend_from_slice(&base.to_le_bytes());
        }
        Form::Short => {
            let bytes = bytes_of(base);
            out.push(width | (bytes as u8) << 4);
            out.extend_from_slice(&base.to_le_bytes()[..bytes]);
        }
    }
    match width {
        1 => put(items, out, |item| [item.above(low) as u8]),
        2 => put(items, out, |item| (item.above(low) as u16).to_le_bytes()),
        4 => put(items, out, |item| (item.above(low) as u32).to_le_bytes()),
        8 => put(items, out, |item| item.above(low).to_le_bytes()),
        _ => {}
    }
}

fn put<const W: usize, T>(items: impl ExactSizeIterator<Item = T>, out: &mut Vec<u8>, narrow: impl Fn(T) -> [u8; W]) {
    let start = out.len();
    out.resize(start + items.len() * W, 0);
    let (places, _) = out[start..].as_chunks_mut();
    places.iter_mut().zip(items).for_each(|(place, item)| *place = narrow(item));
}

/// Takes a column of numbers.
pub(super) fn unpack_numbers<N: Number>(source: &mut Packed, rows: usize) -> Result<Vec<N>, String> {
    let first = source.take(1)?[0];
    let (width, bytes) = match source.form {
        Form::Full => (first, 8),
        Form::Short => (first & 0xf, usize::from(first >> 4)),
    };
    let mut base = [0; 8];
    base.get_mut(..bytes).ok_or("a base has more than eight bytes")?.copy_from_slice(source.take(bytes)?);
    let base = u64::from_le_bytes(base);
    let base = N::from_bits(base).ok_or_else(|| format!("base {base:#x} is out of range"))?;
    Ok(match width {
        0 => vec![base; rows],
        1 => source.take(rows)?.iter().map(|&offset| base.plus(offset.into())).collect(),
        2 => source.offsets(rows)?.iter().map(|&offset| base.plus(u16::from_le_bytes(offset).into())).collect(),
        4 => source.offsets(rows)?.iter().map(|&offset| base.plus(u32::from_le_bytes(offset).into())).collect(),
        8 => source.offsets(rows)?.iter().map(|&offset| base.plus(u64::from_le_bytes(offset))).collect(),
        other => return Err(format!("width {other} is not known")),
    })
}

const ONE_ID: u8 = 0;
const EACH_ID: u8 = 1;
const LOWER_HALVES: u8 = 2;
const NO_IDS: u8 = 3;

/// The upper and the lower half of an id.
fn halves(id: u128) -> (u64, u64) {
    ((id >> 64) as u64, id as u64)
}

/// Appends a column of ids.
pub(super) fn pack_ids(items: impl ExactSizeIterator<Item = u128> + Clone, packer: &mut Packer<'_>) {
    let first = items.clone().next().unwrap_or_default();
    let differs = items.clone().fold(0, |bits, id| bits | (id ^ first));
    if (differs, first, packer.form) == (0, 0, Form::Short) {
        packer.out.push(NO_IDS);
    } else if differs == 0 {
        packer.out.push(ONE_ID);
        packer.out.extend_from_slice(&first.to_le_bytes());
    } else if halves(differs).0 == 0 {
        packer.out.push(LOWER_HALVES);
        packer.out.extend_from_slice(&halves(first).0.to_le_bytes());
        pack_numbers(items.map(|id| halves(id).1), packer);
    } else {
        packer.out.push(EACH_ID);
        put(items, packer.out, u128::to_le_bytes);
    }
}

/// Takes a column of ids.
pub(super) fn unpack_ids(source: &mut Packed, rows: usize) -> Result<Vec<u128>, String> {
    let form = source.take(1)?[0];
    match form {
        NO_IDS if source.form == Form::Short => Ok(vec![0; rows]),
        ONE_ID => {
            let id = source.offsets::<16>(1)?[0];
            Ok(vec![u128::from_le_bytes(id); rows])
        }
        EACH_ID => Ok(source.offsets(rows)?.iter().map(|&id| u128::from_le_bytes(id)).collect()),
        LOWER_HALVES => {
            let upper = u128::from(u64::from_le_bytes(source.offsets::<8>(1)?[0])) << 64;
            Ok(unpack_numbers::<u64>(source, rows)?.into_iter().map(|lower| upper | u128::from(lower)).collect())
        }
        other => Err(format!("form {other} is not known")),
    }
}
