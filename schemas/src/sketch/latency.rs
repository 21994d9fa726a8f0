//! Latency histograms with exponential buckets: base 2^(1/32), OpenTelemetry's exponential histogram at scale 5.
//!
//! Bucket `i` holds the values in (2^(i/32), 2^((i+1)/32)] microseconds, so the middle of a bucket is at most 1.1 % off.
//! Stored, a histogram is the ascending list of its non-empty buckets, two numbers each: how many empty ones lie between it and the one
//! before, and its count, both in groups of seven bits, the lowest first, with the eighth bit where another group follows: mostly two bytes a bucket.
//! Source: OpenTelemetry metrics data model, "ExponentialHistogram".

use thiserror::Error;

/// Buckets per doubling.
const PER_OCTAVE: u32 = 32;

/// One more than the highest bucket index: values are clamped to 2^40 microseconds (12 days).
pub const BUCKETS: usize = 40 * PER_OCTAVE as usize;

/// Groups of seven bits that a number of 64 bits has at most.
const GROUPS_MAX: usize = 10;

/// Bytes that a histogram is written to at first: most are of some dozens of buckets.
const FIRST_BYTES: usize = 96;

/// `ceil(2^31 * 2^(k/32))`, the lower bounds of the buckets of one octave with 31 fractional bits.
const THRESHOLDS: [u64; PER_OCTAVE as usize] = thresholds();

/// Builds the bounds from 2^(1/32) by integer square roots, so that every machine has the same ones.
const fn thresholds() -> [u64; PER_OCTAVE as usize] {
    let mut bounds = [0; PER_OCTAVE as usize];
    let mut k = 0;
    while k < PER_OCTAVE as usize {
        // 2^(k/32) with 60 fractional bits: multiply the roots 2^(1/2), 2^(1/4), … that k's bits name.
        let mut product: u128 = 1 << 60;
        let mut root: u128 = 2 << 60;
        let mut bit = PER_OCTAVE as usize / 2;
        while bit > 0 {
            root = integer_sqrt(root << 60);
            if k & bit != 0 {
                product = (product * root) >> 60;
            }
            bit /= 2;
        }
        bounds[k] = ((product + (1 << 29) - 1) >> 29) as u64;
        k += 1;
    }
    bounds
}

const fn integer_sqrt(n: u128) -> u128 {
    let mut low: u128 = 0;
    let mut high: u128 = 1 << 64;
    while high - low > 1 {
        let middle = (low + high) / 2;
        if middle <= n / middle {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The bucket of a latency in microseconds. 0 and 1 fall into bucket 0.
#[must_use]
pub fn bucket_of(latency_us: u64) -> u16 {
    if latency_us <= 1 {
        return 0;
    }
    // Upper bounds are inclusive: look for the bucket of "just below".
    let octave = 63 - latency_us.leading_zeros();
    let mantissa = if octave <= 31 { latency_us << (31 - octave) } else { latency_us >> (octave - 31) };
    let above = THRESHOLDS.partition_point(|&bound| bound < mantissa) as u32;
    let index = (octave * PER_OCTAVE + above).saturating_sub(1);
    index.min(BUCKETS as u32 - 1) as u16
}

/// The value that stands for a bucket, in microseconds: its geometric middle.
#[must_use]
pub fn middle_us(bucket: u16) -> f64 {
    ((f64::from(bucket) + 0.5) / f64::from(PER_OCTAVE)).exp2()
}

/// A stored histogram that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("latency histogram of {0} bytes is not a list of gaps and counts")]
pub struct DamagedHistogram(usize);

/// A histogram under construction or merged: (bucket, count), ascending, no zero counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    entries: Vec<(u16, u64)>,
}

impl Histogram {
    /// From dense counts, index = bucket.
    #[must_use]
    pub fn from_dense(counts: &[u64]) -> Self {
        let entries =
            counts.iter().zip(0u16..).filter(|(count, _)| **count > 0).map(|(count, i)| (i, *count)).collect();
        Self { entries }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the bytes are not a stored histogram.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedHistogram> {
        let mut entries = Vec::with_capacity(bytes.len() / 2);
        for entry in stored(bytes) {
            entries.push(entry?);
        }
        Ok(Self { entries })
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self.entries.iter().copied())
    }

    /// Non-empty buckets, ascending.
    #[must_use]
    pub fn entries(&self) -> &[(u16, u64)] {
        &self.entries
    }

    /// How many values are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries.iter().map(|(_, count)| count).sum()
    }

    /// Merges two emissions of the same cell: the greater count of each bucket.
    pub fn merge_max(&mut self, other: &Self) {
        self.merge(other, u64::max);
    }

    /// Adds the stored form of another cell. Without an allocation if all its buckets are here already, as they soon are.
    ///
    /// # Errors
    /// If the bytes are not a stored histogram; nothing is added then.
    pub fn merge_sum_encoded(&mut self, bytes: &[u8]) -> Result<(), DamagedHistogram> {
        count(bytes)?;
        let mut at = 0;
        let mut entries = stored(bytes).flatten();
        while let Some((bucket, count)) = entries.next() {
            at += self.entries[at..].iter().take_while(|mine| mine.0 < bucket).count();
            match self.entries.get_mut(at) {
                Some(mine) if mine.0 == bucket => mine.1 = mine.1.saturating_add(count),
                _ => {
                    self.merge_sum(&Self { entries: std::iter::once((bucket, count)).chain(entries).collect() });
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds another cell's counts.
    pub fn merge_sum(&mut self, other: &Self) {
        self.merge(other, u64::saturating_add);
    }

    fn merge(&mut self, other: &Self, combine: fn(u64, u64) -> u64) {
        let mut merged = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let (mut left, mut right) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.0.cmp(&b.0) {
                std::cmp::Ordering::Less => merged.extend(left.next()),
                std::cmp::Ordering::Greater => merged.extend(right.next()),
                std::cmp::Ordering::Equal => {
                    merged.push((a.0, combine(a.1, b.1)));
                    left.next();
                    right.next();
                }
            }
        }
        merged.extend(left);
        merged.extend(right);
        self.entries = merged;
    }

    /// The `quantile` (0 to 1) in microseconds, by nearest rank; `None` when empty. At most 1.1 % off.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        self.entries.iter().find_map(|&(bucket, in_bucket)| {
            seen += in_bucket;
            (seen >= rank).then(|| middle_us(bucket))
        })
    }
}

/// The stored form of a histogram, given by its non-empty buckets, ascending.
#[must_use]
pub fn encode(entries: impl Iterator<Item = (u16, u64)>) -> Vec<u8> {
    let mut writer = Writer::default();
    entries.for_each(|(bucket, count)| writer.push(bucket, count));
    writer.finish()
}

/// How many values are in a stored histogram.
///
/// # Errors
/// If the bytes are not a stored histogram.
pub fn count(bytes: &[u8]) -> Result<u64, DamagedHistogram> {
    stored(bytes).try_fold(0u64, |all, entry| Ok(all.wrapping_add(entry?.1)))
}

/// The stored form of a histogram being written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    stored: Vec<u8>,
    /// The lowest bucket that may come.
    next: u16,
}

impl Writer {
    /// Adds a bucket that is not empty; they come in ascending order.
    #[inline]
    pub fn push(&mut self, bucket: u16, count: u64) {
        debug_assert!(bucket >= self.next && count > 0);
        if self.stored.capacity() == 0 {
            self.stored.reserve(FIRST_BYTES);
        }
        put(u64::from(bucket - self.next), &mut self.stored);
        put(count, &mut self.stored);
        self.next = bucket + 1;
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.stored
    }
}

#[inline]
fn put(mut number: u64, stored: &mut Vec<u8>) {
    while number >= 0x80 {
        stored.push(number as u8 | 0x80);
        number >>= 7;
    }
    stored.push(number as u8);
}

/// The buckets of a stored histogram in their order, until one cannot be read.
fn stored(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, u64), DamagedHistogram>> {
    let damaged = DamagedHistogram(bytes.len());
    let (mut rest, mut next) = (bytes, 0);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = entry(&mut rest, &mut next).ok_or(damaged);
        if entry.is_err() {
            rest = &[];
        }
        Some(entry)
    })
}

/// The next bucket that is not empty and its count; `None` if there is no such bucket, or its count is 0.
#[inline]
fn entry(rest: &mut &[u8], next: &mut u64) -> Option<(u16, u64)> {
    let bucket = next.checked_add(take(rest)?).filter(|bucket| *bucket < BUCKETS as u64)?;
    let count = take(rest).filter(|count| *count > 0)?;
    *next = bucket + 1;
    Some((bucket as u16, count))
}

/// Reads a number; `None` if it is cut off, of more than 64 bits, or written with more groups than it needs.
#[inline]
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (group, byte) in rest.iter().enumerate().take(GROUPS_MAX) {
        let bits = u64::from(byte & 0x7f) << (7 * group);
        if bits >> (7 * group) != u64::from(byte & 0x7f) {
            return None;
        }
        number |= bits;
        if *byte < 0x80 {
            *rest = &rest[group + 1..];
            return (*byte > 0 || group == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        assert_eq!((bucket_of(0), bucket_of(1), bucket_of(2), bucket_of(4)), (0, 0, 31, 63));
        for value in (2..100_000u64).chain([1 << 33, (1 << 35) + 12345]) {
            let bucket = f64::from(bucket_of(value));
            let (low, high) = ((bucket / 32.0).exp2(), ((bucket + 1.0) / 32.0).exp2());
            let value = value as f64;
            assert!(low < value * (1.0 + 1e-9) && value <= high * (1.0 + 1e-9), "{value} is not in ({low}, {high}]");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS as u16 - 1);
    }

    #[test]
    fn refuses_damage() {
        // Cut off, no count, a bucket that there is not, a group too many, more than 64 bits.
        let more = [&[0][..], &[0xff; 9], &[2]].concat();
        for bytes in [&[1u8; 9][..], &[3], &[3, 0x81], &[3, 0], &[0x80, 10, 1], &[3, 0x81, 0], &more, &[255; 12]] {
            assert!(Histogram::decode(bytes).is_err() && count(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn buckets_take_two_bytes_and_counts_as_many_as_they_need() {
        let mut counts = vec![0; BUCKETS];
        (counts[3], counts[4], counts[6], counts[BUCKETS - 1]) = (1, 127, 300, u64::MAX);
        let stored = Histogram::from_dense(&counts).encode();
        assert_eq!(stored[..9], [3, 1, 0, 127, 1, 0xac, 0x02, 0xf8, 0x09]);
        assert_eq!(stored[9..], [&[0xff; 9][..], &[1]].concat());
        assert_eq!(Histogram::decode(&stored), Ok(Histogram::from_dense(&counts)));
        assert_eq!(count(&stored[..9 - 2]), Ok(428));
    }

    fn histogram() -> impl Strategy<Value = Histogram> {
        prop::collection::vec(0u64..5, 0..80).prop_map(|counts| Histogram::from_dense(&counts))
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_stated_error(mut values in prop::collection::vec(1u64..10_000_000, 1..200), q in 0.01f64..1.0) {
            let mut counts = vec![0; BUCKETS];
            values.iter().for_each(|&value| counts[usize::from(bucket_of(value))] += 1);
            values.sort_unstable();
            let exact = values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1] as f64;
            let estimate = Histogram::from_dense(&counts).quantile_us(q).expect("not empty");
            prop_assert!((estimate / exact - 1.0).abs() < 0.0111, "{estimate} for {exact}");
        }

        #[test]
        fn merging_is_a_semilattice_and_sums_commute(a in histogram(), b in histogram(), c in histogram()) {
            let join = |x: &Histogram, y: &Histogram| { let mut x = x.clone(); x.merge_max(y); x };
            prop_assert_eq!(join(&a, &a), a.clone());
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            let mut sum = a.clone();
            sum.merge_sum(&b);
            prop_assert_eq!(sum.count(), a.count() + b.count());
            let mut stored_sum = a.clone();
            prop_assert_eq!(stored_sum.merge_sum_encoded(&b.encode()), Ok(()));
            prop_assert_eq!(&stored_sum, &sum);
            prop_assert_eq!(stored_sum.merge_sum_encoded(&a.encode()), Ok(()));
            prop_assert_eq!(stored_sum.count(), 2 * a.count() + b.count());
            prop_assert!(stored_sum.merge_sum_encoded(&[1; 7]).is_err());
            prop_assert_eq!(stored_sum.count(), 2 * a.count() + b.count());
            prop_assert_eq!(Histogram::decode(&sum.encode()), Ok(sum));
        }
    }
}
