//! Columns of texts in their packed form.
//!
//! Texts that compressors see as noise, or that are the same in all rows of a batch, take a form of their own: a pseudonym is 16 random
//! bytes, which as digits are 32 that no fast compressor makes shorter.

use arrow::array::StringArray;
use arrow::buffer::{Buffer, OffsetBuffer};

use super::packed::{Form, Packed, Packer, pack_numbers, unpack_numbers};

const EACH_TEXT: u8 = 0;
const ONE_TEXT: u8 = 1;
pub(super) const DIGITS: u8 = 2;

/// Bytes that one text for all rows may stand for: so that few bytes cannot claim much memory when they are read.
const ONE_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the prefix before hexadecimal digits: those of a pseudonym are three.
const PREFIX_BYTES_MAX: usize = 15;

/// Bytes that are written out as digits.
pub(super) const ID_BYTES: usize = 16;

/// Appends a column of texts.
pub(super) fn pack<'a>(items: impl ExactSizeIterator<Item = &'a str> + Clone, packer: &mut Packer<'_>) {
    if packer.form == Form::Full {
        return pack_each(items, packer);
    }
    let first = items.clone().next().unwrap_or_default();
    if is_one(first, &items) {
        packer.out.extend_from_slice(&[ONE_TEXT, first.len() as u8]);
        packer.out.extend_from_slice(first.as_bytes());
    } else if let Some(prefix) = prefix_of_digits(first, &items) {
        packer.out.extend_from_slice(&[DIGITS, prefix.len() as u8]);
        packer.out.extend_from_slice(prefix.as_bytes());
        for text in items {
            let (pairs, _) = text.as_bytes()[prefix.len()..].as_chunks::<2>();
            packer.out.extend(pairs.iter().map(|[high, low]| value(*high) << 4 | value(*low)));
        }
    } else {
        packer.out.push(EACH_TEXT);
        pack_each(items, packer);
    }
}

fn pack_each<'a>(items: impl ExactSizeIterator<Item = &'a str> + Clone, packer: &mut Packer<'_>) {
    pack_numbers(items.clone().map(|text| text.len() as u32), packer);
    items.for_each(|text| packer.out.extend_from_slice(text.as_bytes()));
}

/// Whether all are this text, and few enough.
fn is_one<'a>(first: &str, items: &(impl ExactSizeIterator<Item = &'a str> + Clone)) -> bool {
    u8::try_from(first.len()).is_ok()
        && first.len() * items.len() <= ONE_TEXT_BYTES_MAX
        && items.clone().all(|text| is_same(text, first))
}

/// Whether two texts are equal, without comparing nothing with nothing: an empty text may stand anywhere, and a vector load of no bytes
/// from where no memory is takes a processor a hundred nanoseconds.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// The prefix of all texts, if what follows it is hexadecimal digits of 16 bytes.
fn prefix_of_digits<'a, 'b>(
    first: &'b str,
    items: &(impl ExactSizeIterator<Item = &'a str> + Clone),
) -> Option<&'b str> {
    let prefix = first.get(..first.len().checked_sub(2 * ID_BYTES)?)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_one = |text: &str| {
        text.len() == first.len() && text.starts_with(prefix) && text.as_bytes()[prefix.len()..].iter().all(is_digit)
    };
    (prefix.len() <= PREFIX_BYTES_MAX && items.clone().all(is_one)).then_some(prefix)
}

/// The value of a digit.
const fn value(digit: u8) -> u8 {
    if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 }
}

/// Takes a column of texts.
pub(super) fn unpack(source: &mut Packed, rows: usize) -> Result<StringArray, String> {
    let form = if source.form == Form::Full { EACH_TEXT } else { source.take(1)?[0] };
    match form {
        EACH_TEXT => unpack_each(source, rows),
        ONE_TEXT => {
            let bytes = usize::from(source.take(1)?[0]);
            if bytes * rows > ONE_TEXT_BYTES_MAX {
                return Err(format!("{rows} times {bytes} bytes are too many for one text"));
            }
            let text = source.take(bytes)?.repeat(rows);
            equally_long(bytes, rows, text)
        }
        DIGITS => {
            let prefix = usize::from(source.take(1)?[0]);
            if prefix > PREFIX_BYTES_MAX {
                return Err(format!("a prefix of {prefix} bytes is too long"));
            }
            let prefix = source.share(prefix)?;
            let ids = source.take(rows.checked_mul(ID_BYTES).ok_or("too many rows")?)?;
            let bytes = prefix.len() + 2 * ID_BYTES;
            let mut texts = Vec::with_capacity(rows * bytes);
            for id in ids.chunks_exact(ID_BYTES) {
                texts.extend_from_slice(&prefix);
                texts.extend(id.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(digit));
            }
            equally_long(bytes, rows, texts)
        }
        other => Err(format!("form {other} of texts is not known")),
    }
}

const fn digit(value: u8) -> u8 {
    b"0123456789abcdef"[value as usize]
}

fn equally_long(bytes: usize, rows: usize, texts: Vec<u8>) -> Result<StringArray, String> {
    let offsets: Vec<i32> = (0..=rows).map(|row| (row * bytes) as i32).collect();
    StringArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(texts), None)
        .map_err(|error| error.to_string())
}

fn unpack_each(source: &mut Packed, rows: usize) -> Result<StringArray, String> {
    let lengths = unpack_numbers::<u32>(source, rows)?;
    let mut offsets = Vec::with_capacity(rows + 1);
    let mut end: u64 = 0;
    offsets.push(0);
    for length in lengths {
        end += u64::from(length);
        offsets.push(end as i32);
    }
    // The payload is far below 2 GiB, so if the last offset is inside, none of them was cut.
    let values = source.share(usize::try_from(end).map_err(|_| "texts are too long")?)?;
    StringArray::try_new(OffsetBuffer::new(offsets.into()), values, None).map_err(|error| error.to_string())
}
