//! Latency histograms with exponential buckets: base 2^(1/32), OpenTelemetry's exponential histogram at scale 5.
//!
//! Bucket `i` holds the values in (2^(i/32), 2^((i+1)/32)] microseconds, so the middle of a bucket is at most 1.1 % off.
//! Stored, a histogram is the ascending list of its non-empty buckets, 10 bytes each: index u16, count u64,
//! little-endian. Source: OpenTelemetry metrics data model, "ExponentialHistogram".

use thiserror::Error;

/// Buckets per doubling.
const PER_OCTAVE: u32 = 32;

/// One more than the highest bucket index: values are clamped to 2^40 microseconds (12 days).
pub const BUCKETS: usize = 40 * PER_OCTAVE as usize;

const ENTRY_LEN: usize = 10;

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
#[error("latency histogram of {0} bytes is not a list of ascending 10-byte buckets")]
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
    /// If the bytes are not ascending 10-byte entries.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedHistogram> {
        Ok(Self { entries: pieces(bytes)?.iter().map(entry).collect() })
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
        let pieces = pieces(bytes)?;
        let mut at = 0;
        for (number, (bucket, count)) in pieces.iter().map(entry).enumerate() {
            at += self.entries[at..].iter().take_while(|mine| mine.0 < bucket).count();
            match self.entries.get_mut(at) {
                Some(mine) if mine.0 == bucket => mine.1 = mine.1.saturating_add(count),
                _ => {
                    self.merge_sum(&Self { entries: pieces[number..].iter().map(entry).collect() });
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
    let mut out = Vec::with_capacity(entries.size_hint().0 * ENTRY_LEN);
    entries.for_each(|(bucket, count)| push(bucket, count, &mut out));
    out
}

/// How many values are in a stored histogram.
///
/// # Errors
/// If the bytes are not a stored histogram.
pub fn count(stored: &[u8]) -> Result<u64, DamagedHistogram> {
    Ok(pieces(stored)?.iter().map(|piece| entry(piece).1).sum())
}

/// Appends a bucket that is not empty to the stored form of a histogram; buckets come in ascending order.
pub fn push(bucket: u16, count: u64, stored: &mut Vec<u8>) {
    stored.extend_from_slice(&bucket.to_le_bytes());
    stored.extend_from_slice(&count.to_le_bytes());
}

/// The entries of a stored histogram, known to be ascending and in range.
fn pieces(bytes: &[u8]) -> Result<&[[u8; ENTRY_LEN]], DamagedHistogram> {
    let (pieces, rest) = bytes.as_chunks::<ENTRY_LEN>();
    let is_ascending = pieces.windows(2).all(|pair| entry(&pair[0]).0 < entry(&pair[1]).0);
    let is_in_range = pieces.last().is_none_or(|last| usize::from(entry(last).0) < BUCKETS);
    if rest.is_empty() && is_ascending && is_in_range { Ok(pieces) } else { Err(DamagedHistogram(bytes.len())) }
}

fn entry(bytes: &[u8; ENTRY_LEN]) -> (u16, u64) {
    let [a, b, count @ ..] = *bytes;
    (u16::from_le_bytes([a, b]), u64::from_le_bytes(count))
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
        for bytes in [&[1u8; 9][..], &[1; 20], &[255; 10]] {
            assert!(Histogram::decode(bytes).is_err(), "{bytes:?}");
        }
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
            prop_assert_eq!(Histogram::decode(&sum.encode()), Ok(sum));
        }
    }
}
