//! Sketches as ClickHouse keeps them: a weight, then the stored form.
//!
//! Within a chunk a sketch only grows, so of two emissions of one cell the heavier is the later one and holds the other. With its
//! weight before it, big-endian, `max` of the bytes is that sketch: merging needs no function that knows what is inside.
//! Across chunks sketches are merged here, by the functions that the fold uses.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, GenericListArray};
use flagmint_schemas::rollup::Role;
use flagmint_schemas::sketch::latency::{self, Histogram};
use flagmint_schemas::sketch::unique::{self, Registers};

/// Bytes of the weight.
const WEIGHT_LEN: usize = 8;

/// Puts its weight before each sketch; `None` if one cannot be read.
pub(super) fn weighted(role: Role, sketches: &BinaryArray) -> Option<BinaryArray> {
    // Of these sketches alone: they may be a piece of many.
    let offsets = sketches.value_offsets();
    let len = offsets.last()?.abs_diff(*offsets.first()?) as usize;
    let mut bytes = Vec::with_capacity(len + WEIGHT_LEN * sketches.len());
    let mut ends = Vec::with_capacity(sketches.len() + 1);
    ends.push(0);
    for stored in sketches.iter().flatten() {
        bytes.extend_from_slice(&weight(role, stored)?.to_be_bytes());
        bytes.extend_from_slice(stored);
        ends.push(i32::try_from(bytes.len()).ok()?);
    }
    let offsets = arrow::buffer::OffsetBuffer::new(ends.into());
    BinaryArray::try_new(offsets, bytes.into(), None).ok()
}

/// Something that grows whenever the sketch does.
fn weight(role: Role, stored: &[u8]) -> Option<u64> {
    if role == Role::Histogram { latency::count(stored).ok() } else { unique::sum(stored).ok() }
}

/// Weighted sketches without their weights; `None` if one has none.
pub(super) fn unweighted(sketches: &ArrayRef) -> Option<ArrayRef> {
    let sketches: &BinaryArray = sketches.as_binary_opt()?;
    let stored: Option<Vec<&[u8]>> =
        sketches.iter().map(|sketch| sketch.unwrap_or_default().get(WEIGHT_LEN..)).collect();
    Some(std::sync::Arc::new(BinaryArray::from_iter_values(stored?)))
}

/// Merges lists of weighted sketches, a list for each row; `None` if one cannot be read.
pub(super) fn merged(role: Role, lists: &ArrayRef) -> Option<ArrayRef> {
    let lists: &GenericListArray<i32> = lists.as_list_opt()?;
    let merged = (0..lists.len()).map(|row| {
        let list = lists.value(row);
        let list: &BinaryArray = list.as_binary_opt()?;
        across_chunks(role, list.iter().map(|sketch| sketch.unwrap_or_default().get(WEIGHT_LEN..)))
    });
    let merged: Option<Vec<Vec<u8>>> = merged.collect();
    Some(std::sync::Arc::new(BinaryArray::from_iter_values(merged?)))
}

/// One of some stored sketches; `None` if one is missing or cannot be read.
pub(super) fn across_chunks<'a>(
    role: Role,
    mut sketches: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
) -> Option<Vec<u8>> {
    if sketches.len() == 1 {
        return sketches.next()?.map(<[u8]>::to_vec);
    }
    if role == Role::Histogram {
        let mut sum = Histogram::default();
        sketches.try_for_each(|sketch| sum.merge_sum_encoded(sketch?).ok())?;
        Some(sum.encode())
    } else {
        let mut max = Registers::default();
        sketches.try_for_each(|sketch| max.merge_encoded(sketch?).ok())?;
        Some(max.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_sketch_of_a_cell_is_the_greater() {
        let mut registers = Registers::default();
        let (mut dense, mut before) = (vec![0; 500], [Vec::new(), Vec::new()]);
        for step in 0..6000u64 {
            let grown = registers.insert(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            dense[(step * 7 % 500) as usize] += 1;
            let stored = [registers.encode(), Histogram::from_dense(&dense).encode()];
            for (at, role) in [Role::Registers, Role::Histogram].into_iter().enumerate() {
                let now = weighted(role, &BinaryArray::from_iter_values([&stored[at]])).expect("readable");
                let is_same = at == 0 && !grown && step > 0;
                let order = now.value(0).cmp(before[at].as_slice());
                assert_eq!(order, if is_same { std::cmp::Ordering::Equal } else { std::cmp::Ordering::Greater });
                before[at] = now.value(0).to_vec();
            }
        }
        assert!(weighted(Role::Histogram, &BinaryArray::from_iter_values([b"abc"])).is_none());
        let array = |texts: [&[u8]; 2]| std::sync::Arc::new(BinaryArray::from_iter_values(texts)) as ArrayRef;
        assert_eq!(unweighted(&array([b"12345678ab", b"12345678"])), Some(array([b"ab", b""])));
        assert_eq!(unweighted(&array([b"12345678ab", b"1234567"])), None);
        assert!(weighted(Role::Registers, &BinaryArray::from_iter_values([[1, 2]])).is_none());
    }
}
