//! The stored form of registers: as short as they allow, and always the same for the same registers.
//!
//! First a tag, then for
//! - 0, few registers above 0: their number as u16, an entry of two bytes for each whose value is below 15 (register in the lower 12 bits, value in the
//!   upper 4), ascending, then the exceptions;
//! - 1, most of them: half a byte for each, registers 0 to 2047 in the lower halves and the others in the upper ones, 15 standing for an exception, then
//!   the exceptions;
//! - 2, counts of many millions: a byte for each.
//!
//! An exception is a register of 15 or more: its number as u16, its value as u8, ascending. One hash in 16,384 makes one. Integers are
//! little-endian. The shortest form is the one that is stored, of two as short the one that is named first.

use super::{DamagedSketch, REGISTERS, VALUE_MAX};

const SPARSE: u8 = 0;
const HALVES: u8 = 1;
const BYTES: u8 = 2;

const HALF: usize = REGISTERS / 2;
const EXCEPTION: u8 = 15;
const EXCEPTION_LEN: usize = 3;
const ENTRY_LEN: usize = 2;
/// More than this many entries are longer than half a byte for each register.
const ENTRIES_MAX: usize = HALF / ENTRY_LEN;

/// The stored form of a sketch, given by its registers.
#[must_use]
pub fn encode(registers: &[u8; REGISTERS]) -> Vec<u8> {
    let count = |least: u8| registers.iter().map(|value| u16::from(*value >= least)).sum::<u16>();
    let exceptions = count(EXCEPTION);
    let entries = count(1) - exceptions;
    let exceptions_len = usize::from(exceptions) * EXCEPTION_LEN;
    let sparse_len = 2 + usize::from(entries) * ENTRY_LEN + exceptions_len;
    let halves_len = HALF + exceptions_len;
    if sparse_len.min(halves_len) > REGISTERS {
        let mut out = Vec::with_capacity(1 + REGISTERS);
        out.push(BYTES);
        out.extend_from_slice(registers);
        return out;
    }
    let mut out = Vec::with_capacity(1 + sparse_len.min(halves_len));
    if sparse_len <= halves_len {
        out.push(SPARSE);
        push_entries(registers, entries, &mut out);
    } else {
        let (lower, upper) = registers.split_at(HALF);
        let half = |value: &u8| (*value).min(EXCEPTION);
        out.push(HALVES);
        out.extend(lower.iter().zip(upper).map(|(lower, upper)| half(lower) | half(upper) << 4));
    }
    if exceptions > 0 {
        push_exceptions(registers, &mut out);
    }
    out
}

/// Eight registers at a time, each eight with the number of the first.
fn eights(registers: &[u8; REGISTERS]) -> impl Iterator<Item = (&[u8; 8], u16)> {
    registers.as_chunks::<8>().0.iter().zip((0u16..).step_by(8))
}

/// Appends the number of registers above 0 that are no exceptions, and those.
fn push_entries(registers: &[u8; REGISTERS], count: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&count.to_le_bytes());
    // Each is written, and the next one over it unless it was an entry: which are cannot be foretold.
    let (mut entries, mut used) = ([[0; ENTRY_LEN]; ENTRIES_MAX + 1], 0);
    for (values, first) in eights(registers) {
        if *values == [0; 8] {
            continue;
        }
        for (value, index) in values.iter().zip(first..) {
            entries[used] = (index | u16::from(*value) << 12).to_le_bytes();
            used += usize::from((1..EXCEPTION).contains(value));
        }
    }
    out.extend_from_slice(entries[..used].as_flattened());
}

fn push_exceptions(registers: &[u8; REGISTERS], out: &mut Vec<u8>) {
    for (values, first) in eights(registers) {
        if values.iter().fold(0, |greatest, value| greatest.max(*value)) < EXCEPTION {
            continue;
        }
        for (value, index) in values.iter().zip(first..).filter(|(value, _)| **value >= EXCEPTION) {
            let [low, high] = index.to_le_bytes();
            out.extend_from_slice(&[low, high, *value]);
        }
    }
}

/// The sum of a stored sketch's registers, which grows whenever one of them does.
///
/// # Errors
/// If the bytes are not a stored sketch.
pub fn sum(stored: &[u8]) -> Result<u64, DamagedSketch> {
    let total = |values: &[u8]| values.iter().map(|value| u64::from(*value)).sum::<u64>();
    // Each exception is 15 among the halves.
    let beyond = |exceptions: &[[u8; EXCEPTION_LEN]], base: u8| {
        exceptions.iter().map(|[_, _, value]| u64::from(*value - base)).sum::<u64>()
    };
    Ok(match Stored::read(stored)? {
        Stored::Sparse(entries, exceptions) => {
            entries.iter().map(|[_, high]| u64::from(high >> 4)).sum::<u64>() + beyond(exceptions, 0)
        }
        Stored::Halves(halves, exceptions) => {
            let lower = halves.iter().map(|both| u64::from(both & 0x0f)).sum::<u64>();
            lower + halves.iter().map(|both| u64::from(both >> 4)).sum::<u64>() + beyond(exceptions, EXCEPTION)
        }
        Stored::Bytes(values) => total(values),
    })
}

/// Raises registers to those of a stored sketch.
pub(super) fn raise(registers: &mut [u8; REGISTERS], stored: &[u8]) -> Result<(), DamagedSketch> {
    let exceptions = match Stored::read(stored)? {
        Stored::Sparse(entries, exceptions) => {
            for entry in entries.iter().map(|entry| u16::from_le_bytes(*entry)) {
                let register = &mut registers[usize::from(entry) % REGISTERS];
                *register = (*register).max((entry >> 12) as u8);
            }
            exceptions
        }
        Stored::Halves(halves, exceptions) => {
            let (lower, upper) = registers.split_at_mut(HALF);
            lower.iter_mut().zip(halves).for_each(|(mine, both)| *mine = (*mine).max(both & 0x0f));
            upper.iter_mut().zip(halves).for_each(|(mine, both)| *mine = (*mine).max(both >> 4));
            exceptions
        }
        Stored::Bytes(values) => {
            registers.iter_mut().zip(values).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
            &[]
        }
    };
    for [low, high, value] in exceptions {
        let register = &mut registers[usize::from(u16::from_le_bytes([*low, *high])) % REGISTERS];
        *register = (*register).max(*value);
    }
    Ok(())
}

/// A stored sketch that can be read.
enum Stored<'a> {
    Sparse(&'a [[u8; ENTRY_LEN]], &'a [[u8; EXCEPTION_LEN]]),
    Halves(&'a [u8; HALF], &'a [[u8; EXCEPTION_LEN]]),
    Bytes(&'a [u8; REGISTERS]),
}

impl<'a> Stored<'a> {
    fn read(stored: &'a [u8]) -> Result<Self, DamagedSketch> {
        Self::parse(stored).ok_or(DamagedSketch(stored.len()))
    }

    fn parse(stored: &'a [u8]) -> Option<Self> {
        let Some((tag, rest)) = stored.split_first() else { return Some(Self::Sparse(&[], &[])) };
        match *tag {
            SPARSE => {
                let (count, rest) = rest.split_first_chunk::<2>()?;
                let (entries, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*count)) * ENTRY_LEN)?;
                let entries = entries.as_chunks::<ENTRY_LEN>().0;
                entries.iter().all(|[_, high]| high >> 4 < EXCEPTION).then_some(())?;
                Some(Self::Sparse(entries, exceptions(rest)?))
            }
            HALVES => {
                let (halves, rest) = rest.split_first_chunk::<HALF>()?;
                Some(Self::Halves(halves, exceptions(rest)?))
            }
            BYTES => {
                let values: &[u8; REGISTERS] = rest.try_into().ok()?;
                // All of them, without a look at each: so it is done many at a time.
                let greatest = values.iter().fold(0, |greatest, value| greatest.max(*value));
                (greatest <= VALUE_MAX).then_some(Self::Bytes(values))
            }
            _ => None,
        }
    }
}

fn exceptions(bytes: &[u8]) -> Option<&[[u8; EXCEPTION_LEN]]> {
    let (exceptions, remainder) = bytes.as_chunks::<EXCEPTION_LEN>();
    let is_valid = |[low, high, value]: &[u8; EXCEPTION_LEN]| {
        usize::from(u16::from_le_bytes([*low, *high])) < REGISTERS && (EXCEPTION..=VALUE_MAX).contains(value)
    };
    (remainder.is_empty() && exceptions.iter().all(is_valid)).then_some(exceptions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As slow and plain as can be: what the stored form says, register by register.
    fn decoded(stored: &[u8]) -> Vec<u8> {
        let mut registers = [0; REGISTERS];
        raise(&mut registers, stored).expect("own encoding");
        registers.to_vec()
    }

    #[test]
    fn the_shortest_form_is_taken() {
        let mut registers = [0; REGISTERS];
        assert_eq!(encode(&registers), [SPARSE, 0, 0]);
        (registers[3], registers[4095]) = (14, 40);
        assert_eq!(encode(&registers), [SPARSE, 1, 0, 3, 0xe0, 0xff, 0x0f, 40]);
        registers[..1022].fill(2);
        assert_eq!((encode(&registers)[0], encode(&registers).len()), (SPARSE, 1 + 2 + 2044 + 3));
        registers[..1024].fill(2);
        assert_eq!((encode(&registers)[0], encode(&registers).len()), (HALVES, 1 + 2048 + 3));
        registers[1024..1624].fill(15);
        assert_eq!((encode(&registers)[0], encode(&registers).len()), (HALVES, 1 + 2048 + 601 * 3));
        registers.fill(15);
        assert_eq!((encode(&registers)[0], encode(&registers).len()), (BYTES, 1 + 4096));
    }

    #[test]
    fn refuses_damage() {
        let halves = [&[HALVES][..], &[0; HALF]].concat();
        let bytes = [&[BYTES][..], &[VALUE_MAX; REGISTERS]].concat();
        assert!(sum(&halves).is_ok() && sum(&bytes).is_ok() && sum(&[]) == Ok(0));
        let damaged: [&[u8]; 9] = [
            &[3],
            &[SPARSE, 0],
            &[SPARSE, 1, 0, 7],
            &[SPARSE, 1, 0, 7, 0xf0],
            &[SPARSE, 0, 0, 0, 0x10, 20],
            &[SPARSE, 0, 0, 0, 0, 14],
            &halves[1..],
            &[&halves[..], &[0, 0, VALUE_MAX + 1]].concat(),
            &[&bytes[..], &[1]].concat(),
        ];
        for stored in damaged {
            assert!(sum(stored).is_err(), "{stored:?}");
            assert!(raise(&mut [0; REGISTERS], stored).is_err(), "{stored:?}");
        }
    }

    proptest! {
        #[test]
        fn registers_come_back_and_add_up(touched in prop::collection::vec((0..REGISTERS, 1..=VALUE_MAX), 0..200), least in 0u8..20) {
            let mut registers = [least.saturating_sub(10); REGISTERS];
            touched.iter().for_each(|(register, value)| registers[*register] = *value);
            let stored = encode(&registers);
            prop_assert_eq!(decoded(&stored), registers.to_vec());
            prop_assert_eq!(sum(&stored), Ok(registers.iter().map(|value| u64::from(*value)).sum()));
            prop_assert!(stored.len() <= 1 + REGISTERS);
        }
    }
}
