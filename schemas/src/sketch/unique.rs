//! Distinct counts: HyperLogLog registers, merged by maximum.
//!
//! A 64-bit hash's low [`PRECISION`] bits choose a register; its value is one more than the number of trailing zeros of
//! the rest. Estimator: Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6,
//! which needs no correction tables.

mod stored;

use thiserror::Error;

pub use stored::{encode, sum};

/// Register index bits.
pub const PRECISION: u32 = 12;

/// Number of registers.
pub const REGISTERS: usize = 1 << PRECISION;

/// Standard error of the estimate: 1.04 / sqrt(registers).
pub const STANDARD_ERROR: f64 = 0.01625;

const VALUE_MAX: u8 = (64 - PRECISION + 1) as u8;

/// The register that a hash touches and the value it brings.
#[must_use]
pub fn register_of(hash: u64) -> (u16, u8) {
    let index = (hash & (REGISTERS as u64 - 1)) as u16;
    let value = ((hash >> PRECISION) | (1 << (64 - PRECISION))).trailing_zeros() as u8 + 1;
    (index, value)
}

/// Stored registers that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unique-count sketch of {0} bytes is damaged")]
pub struct DamagedSketch(usize);

/// Registers of a distinct count.
#[derive(Clone, PartialEq, Eq)]
pub struct Registers(Box<[u8; REGISTERS]>);

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registers(~{})", self.estimate())
    }
}

impl Default for Registers {
    fn default() -> Self {
        Self(Box::new([0; REGISTERS]))
    }
}

impl Registers {
    /// Adds a hash; true if a register changed.
    pub fn insert(&mut self, hash: u64) -> bool {
        let (index, value) = register_of(hash);
        self.raise(index, value)
    }

    /// Raises one register to at least `value`; true if it changed.
    #[inline]
    pub fn raise(&mut self, index: u16, value: u8) -> bool {
        let register = &mut self.0[usize::from(index) % REGISTERS];
        let changed = value > *register;
        *register = (*register).max(value);
        changed
    }

    /// Merges another sketch: the greater value of each register.
    pub fn merge_max(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
    }

    /// Merges a stored sketch.
    ///
    /// # Errors
    /// If the bytes are not a stored sketch; nothing is merged then.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Result<(), DamagedSketch> {
        stored::raise(&mut self.0, bytes)
    }

    /// Reads the stored form; no bytes are an empty sketch.
    ///
    /// # Errors
    /// If the bytes are not a stored sketch.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedSketch> {
        let mut registers = Self::default();
        registers.merge_encoded(bytes)?;
        Ok(registers)
    }

    /// The stored form, canonical: equal registers give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.0)
    }

    /// The estimated number of distinct hashes.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        let mut histogram = [0u32; VALUE_MAX as usize + 1];
        self.0.iter().for_each(|value| histogram[usize::from((*value).min(VALUE_MAX))] += 1);
        let m = REGISTERS as f64;
        let mut z = m * tau(1.0 - f64::from(histogram[usize::from(VALUE_MAX)]) / m);
        for count in histogram[1..usize::from(VALUE_MAX)].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(f64::from(histogram[0]) / m);
        let alpha = 0.5 / std::f64::consts::LN_2;
        (alpha * m * m / z).round() as u64
    }
}

/// Ertl's sigma: the contribution of untouched registers.
fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

/// Ertl's tau: the contribution of saturated registers.
fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SplitMix64, so that test hashes are spread evenly. Source: Steele, Lea, Flood (2014).
    fn mix(n: u64) -> u64 {
        let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[test]
    fn estimates_within_four_standard_errors() {
        for count in [0u64, 1, 2, 10, 100, 1_000, 5_000, 20_000, 100_000, 1_000_000] {
            let mut registers = Registers::default();
            (1..=count).for_each(|n| {
                registers.insert(mix(n));
            });
            let error = (registers.estimate() as f64 - count as f64).abs();
            assert!(error <= 1.0_f64.max(4.0 * STANDARD_ERROR * count as f64), "{registers:?} for {count}");
        }
    }

    #[test]
    fn refuses_damage() {
        for bytes in [&[3u8][..], &[0, 1], &[1, 5], &[1; 4098]] {
            assert!(Registers::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn stored_form_round_trips_and_merging_is_a_semilattice(a in prop::collection::vec(any::<u64>(), 0..3000), b in prop::collection::vec(any::<u64>(), 0..300)) {
            let build = |hashes: &[u64]| { let mut r = Registers::default(); for h in hashes { r.insert(*h); } r };
            let (left, right) = (build(&a), build(&b));
            prop_assert_eq!(&Registers::decode(&left.encode()).expect("own encoding"), &left);
            let join = |x: &Registers, y: &Registers| { let mut x = x.clone(); x.merge_max(y); x };
            prop_assert_eq!(join(&left, &left), left.clone());
            prop_assert_eq!(join(&left, &right), join(&right, &left));
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(join(&left, &right), build(&both));
        }
    }
}
