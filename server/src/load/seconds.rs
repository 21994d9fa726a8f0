//! The tail of each second by itself: one stall of the machine spoils the tail of a whole run, but only that of its own second.

use hdrhistogram::Histogram;

use super::traffic::no_latencies;

/// Seconds that are kept: an hour's.
const SECONDS_MAX: usize = 3600;

/// The 99.9th percentile of what was answered in each second.
#[derive(Clone, Debug)]
pub struct Seconds {
    /// The second under way, counted from the start.
    second: u64,
    latency_us: Histogram<u64>,
    p999_us: Vec<u64>,
}

impl Default for Seconds {
    fn default() -> Self {
        Self { second: 0, latency_us: no_latencies(), p999_us: Vec::new() }
    }
}

impl Seconds {
    /// Notes an answer of this second; seconds do not go back.
    pub fn record(&mut self, second: u64, latency_us: u64) {
        if second != self.second {
            if !self.latency_us.is_empty() && self.p999_us.len() < SECONDS_MAX {
                self.p999_us.push(self.latency_us.value_at_quantile(0.999));
            }
            self.latency_us.reset();
            self.second = second;
        }
        self.latency_us.saturating_record(latency_us.max(1));
    }

    /// The 99.9th percentiles of the seconds that are over and had answers, microseconds.
    #[must_use]
    pub fn p999_us(&self) -> &[u64] {
        &self.p999_us
    }

    /// Of the seconds that are over and had answers, half had a 99.9th percentile of at most this, microseconds; 0 of no second.
    #[must_use]
    pub fn median_p999_us(&self) -> u64 {
        let mut sorted = self.p999_us.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_spoils_its_own_second_only() {
        let mut seconds = Seconds::default();
        assert_eq!(seconds.median_p999_us(), 0);
        for second in 0..6 {
            // An empty second between any two.
            for _ in 0..100 {
                seconds.record(2 * second, if second == 3 { 900_000 } else { 100 + second });
            }
        }
        // The last is not over. 100, 101, 102, 900,000 and 104 are.
        assert_eq!(seconds.median_p999_us(), 102);
    }
}
