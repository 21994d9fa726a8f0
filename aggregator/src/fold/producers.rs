//! Who appends to a partition: their watermarks, the gaps in their sequences, and what is lost when one falls silent.
//!
//! A producer is known from its first record until it says goodbye or is silent for ten seconds of append time. A record is in
//! order if its sequence is at least the one expected; other records (copies older than the duplicate window) change nothing here. The
//! table at any offset therefore follows from the records of the last twenty seconds of append time
//! ([`limits::PRIME_US`](crate::limits::PRIME_US)): a fold that starts by reading those has the table of one that never stopped.
//!
//! A gap is proven by two records of one known producer. What preceded the first record of an unknown producer is not
//! known (it may have been silent, or its records trimmed), so it counts no gap. A copy that is older than the duplicate window
//! and whose producer is unknown by then is taken for that producer's first record: it is counted twice and may prove a
//! gap that is none. Both need a repetition after thousands of records and ten seconds of silence.

use std::collections::{BTreeMap, VecDeque};

use flagmint_schemas::batch::BatchHeader;
use flagmint_schemas::limits::{FLUSH_INTERVAL_US, PRODUCER_EXPIRY_US};

use super::keys::Environment;
use crate::limits::RATE_SPAN_US;

/// The producers known in one partition.
#[derive(Debug)]
pub(super) struct Producers {
    known: BTreeMap<u128, Producer>,
    complete_through_us: i64,
}

#[derive(Debug)]
struct Producer {
    next_sequence: u64,
    low_watermark_us: i64,
    last_append_us: i64,
    /// Batches of the last [`RATE_SPAN_US`] before `last_append_us`.
    recent: VecDeque<Recent>,
}

#[derive(Debug)]
struct Recent {
    append_time_us: i64,
    environment: Environment,
    decisions: u64,
}

/// What a producer that ended without a goodbye may have taken with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub environment: Environment,
    /// When the producer last appended.
    pub last_append_us: i64,
    pub decisions: u64,
}

impl Producers {
    /// No producers; the watermark continues from `complete_through_us`.
    pub fn new(complete_through_us: i64) -> Self {
        Self { known: BTreeMap::new(), complete_through_us }
    }

    /// Every event before this is folded, microseconds; `i64::MIN` if unknown.
    pub fn complete_through_us(&self) -> i64 {
        self.complete_through_us
    }

    /// Forgets who is silent for too long as of `now_us` of append time, and estimates what each may have lost: of the
    /// decisions it appended for an environment in its last second, the share that a flush interval holds, rounded up.
    pub fn expire(&mut self, now_us: i64) -> Vec<Loss> {
        let silent = |producer: &Producer| now_us.saturating_sub(producer.last_append_us) >= PRODUCER_EXPIRY_US;
        let losses: Vec<Loss> =
            self.known.extract_if(.., |_, producer| silent(producer)).flat_map(|(_, p)| p.losses()).collect();
        self.advance();
        losses
    }

    /// Takes note of the time and, if it is no duplicate, the header of a record that an earlier run has folded.
    ///
    /// The watermark stays where that run left it: who else was there when the reading began is not known yet, and a producer
    /// that lags would be overlooked.
    pub fn prime(&mut self, header: Option<&BatchHeader>, append_time_us: i64) {
        let reached_us = self.complete_through_us;
        self.expire(append_time_us);
        if let Some(header) = header {
            self.observe(header, append_time_us);
        }
        self.complete_through_us = reached_us;
    }

    /// Takes note of a record that is no duplicate; returns how many records are missing before it.
    pub fn observe(&mut self, header: &BatchHeader, append_time_us: i64) -> u64 {
        let producer = self.known.entry(header.producer).or_insert_with(|| Producer {
            next_sequence: header.sequence,
            low_watermark_us: i64::MIN,
            last_append_us: append_time_us,
            recent: VecDeque::new(),
        });
        let Some(missing) = header.sequence.checked_sub(producer.next_sequence) else { return 0 };
        producer.note(header, append_time_us);
        self.advance();
        if header.closing {
            self.known.remove(&header.producer);
            self.advance();
        }
        missing
    }

    fn advance(&mut self) {
        if let Some(lowest) = self.known.values().map(|producer| producer.low_watermark_us).min() {
            self.complete_through_us = self.complete_through_us.max(lowest);
        }
    }
}

impl Producer {
    fn note(&mut self, header: &BatchHeader, append_time_us: i64) {
        self.next_sequence = header.sequence.saturating_add(1);
        // A clock that is ahead says nothing about events to come; the log's is the later one of all that are right.
        self.low_watermark_us = self.low_watermark_us.max(header.low_watermark_us.min(append_time_us));
        self.last_append_us = append_time_us;
        while self.recent.front().is_some_and(|old| append_time_us.saturating_sub(old.append_time_us) >= RATE_SPAN_US) {
            self.recent.pop_front();
        }
        if header.decisions > 0 {
            let decisions = u64::from(header.decisions);
            self.recent.push_back(Recent { append_time_us, environment: Environment::of(header), decisions });
        }
    }

    fn losses(self) -> impl Iterator<Item = Loss> {
        let mut by_environment = BTreeMap::<Environment, u64>::new();
        for recent in &self.recent {
            *by_environment.entry(recent.environment).or_default() += recent.decisions;
        }
        by_environment.into_iter().map(move |(environment, decisions)| Loss {
            environment,
            last_append_us: self.last_append_us,
            decisions: (decisions * FLUSH_INTERVAL_US.unsigned_abs()).div_ceil(RATE_SPAN_US.unsigned_abs()),
        })
    }
}

#[cfg(test)]
mod tests {
    use flagmint_schemas::ids::EnvironmentId;
    use uuid::Uuid;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn header(producer: u128, sequence: u64, low_watermark_us: i64) -> BatchHeader {
        BatchHeader { sequence, low_watermark_us, ..BatchHeader::heartbeat(producer) }
    }

    #[test]
    fn the_watermark_is_the_lowest_and_never_falls() {
        let mut producers = Producers::new(i64::MIN);
        producers.observe(&header(1, 0, 100), SECOND);
        assert_eq!(producers.complete_through_us(), 100);
        producers.observe(&header(2, 0, 50), SECOND);
        assert_eq!(producers.complete_through_us(), 100, "never backwards");
        producers.observe(&header(1, 1, 300), SECOND);
        assert_eq!(producers.complete_through_us(), 100, "held by the second producer");
        producers.observe(&header(2, 1, 200), SECOND);
        assert_eq!(producers.complete_through_us(), 200);
        producers.observe(&BatchHeader { closing: true, ..header(2, 2, 250) }, SECOND);
        assert_eq!(producers.complete_through_us(), 300, "a goodbye frees it");
        producers.observe(&BatchHeader { closing: true, ..header(1, 2, 400) }, SECOND);
        assert_eq!(producers.complete_through_us(), 400, "the last goodbye counts, too");
        assert!(producers.expire(100 * SECOND).is_empty());
        assert_eq!(producers.complete_through_us(), 400);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_carry_the_watermark_beyond_the_log() {
        let mut producers = Producers::new(i64::MIN);
        producers.observe(&header(1, 0, 600 * SECOND), SECOND);
        assert_eq!(producers.complete_through_us(), SECOND);
        producers.observe(&header(2, 0, 2 * SECOND), 3 * SECOND);
        producers.observe(&header(1, 1, 602 * SECOND), 3 * SECOND);
        assert_eq!(producers.complete_through_us(), 2 * SECOND, "held by the one whose clock is right");
    }

    #[test]
    fn priming_leaves_the_watermark_alone() {
        let mut producers = Producers::new(40);
        producers.prime(Some(&header(1, 7, 500)), 0);
        producers.prime(None, SECOND);
        assert_eq!(producers.complete_through_us(), 40);
        // This one lags and was there all the time.
        producers.prime(Some(&header(2, 3, 50)), 2 * SECOND);
        producers.observe(&header(1, 8, 600), 3 * SECOND);
        assert_eq!(producers.complete_through_us(), 50, "held by the second producer");
    }

    #[test]
    fn gaps_need_two_records_of_a_known_producer() {
        let mut producers = Producers::new(0);
        let sequences = [(7, 0), (8, 0), (11, 2), (9, 0), (12, 0)];
        for (sequence, missing) in sequences {
            assert_eq!(producers.observe(&header(1, sequence, 0), 0), missing, "sequence {sequence}");
        }
    }

    #[test]
    fn a_silent_producer_is_forgotten_and_its_loss_estimated() {
        let environment = |n| EnvironmentId(Uuid::from_u128(n));
        let batch =
            |sequence, of, decisions| BatchHeader { environment: environment(of), decisions, ..header(1, sequence, 5) };
        let mut producers = Producers::new(0);
        producers.observe(&batch(0, 1, 9_000), 0);
        producers.observe(&batch(1, 1, 100), SECOND);
        producers.observe(&batch(2, 2, 1), SECOND);
        producers.observe(&batch(3, 1, 1), SECOND + 10);
        producers.observe(&header(1, 4, 7), SECOND + 20);
        producers.observe(&header(2, 0, 900), SECOND + 20);
        let end = SECOND + 20;
        assert!(producers.expire(end + PRODUCER_EXPIRY_US - 1).is_empty());
        assert_eq!(producers.complete_through_us(), 7);
        producers.observe(&header(2, 1, 901), end + PRODUCER_EXPIRY_US - 1);
        let losses = producers.expire(end + PRODUCER_EXPIRY_US);
        let found: Vec<_> = losses.iter().map(|loss| (loss.environment.environment, loss.decisions)).collect();
        assert_eq!(found, [(environment(1), 11), (environment(2), 1)], "a tenth of 101 and of 1, rounded up");
        assert!(losses.iter().all(|loss| loss.last_append_us == end));
        assert_eq!(producers.complete_through_us(), 901);
    }
}
