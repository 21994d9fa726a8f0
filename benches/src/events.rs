//! The events: 200 flags by Zipf's law in 20 environments, asked for by users chosen evenly, over the ten minutes before now.

use std::time::{SystemTime, UNIX_EPOCH};

/// Environments that decide in turn, by chance.
pub const ENVIRONMENTS: u64 = 20;
/// Flags of each.
pub const FLAGS: usize = 200;
/// Partitions of the log that they are spread over.
pub const PARTITIONS: u32 = 4;
const SPAN_US: u64 = 600_000_000;

/// One decision.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Which call it is part of.
    pub call: u64,
    /// When it happened, microseconds.
    pub time_us: i64,
    /// Number of its environment.
    pub environment: u64,
    /// Number of its flag in the environment.
    pub flag: usize,
    /// Number of its variation of the flag.
    pub variation: u64,
    /// Number of the user it was made for.
    pub user: u64,
    /// Latency of its call.
    pub latency_us: u32,
}

/// SplitMix64. Source: Steele, Lea, Flood (2014).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Decisions in the order of their calls.
#[derive(Debug)]
pub struct Events {
    random: Random,
    /// Sums of the flags' shares, the last of which is 1.
    shares: Vec<f64>,
    start_us: i64,
    total: u64,
    per_call: u64,
    users: u64,
    made: u64,
    last: Option<Event>,
}

impl Events {
    /// So many in all, so many a call, by so many users of each environment.
    #[must_use]
    pub fn new(total: u64, per_call: u64, users: u64) -> Self {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=FLAGS)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
        Self {
            random: Random(1),
            shares: sums.iter().map(|share| share / sum).collect(),
            start_us: (now_us - SPAN_US) as i64,
            total,
            per_call,
            users,
            made: 0,
            last: None,
        }
    }

    /// Around 60 µs with a long tail.
    fn latency_us(&mut self) -> u32 {
        let around = self.random.fraction() + self.random.fraction() + self.random.fraction() - 1.5;
        (60.0 * (around * 2.2).exp()) as u32 + 1
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.made == self.total {
            return None;
        }
        let call = self.made / self.per_call;
        let of_call = match self.last.filter(|last| last.call == call) {
            Some(last) => last,
            None => Event {
                call,
                time_us: self.start_us + (self.made * SPAN_US / self.total) as i64,
                environment: self.random.below(ENVIRONMENTS),
                flag: 0,
                variation: 0,
                user: self.random.below(self.users),
                latency_us: self.latency_us(),
            },
        };
        self.made += 1;
        let share = self.random.fraction();
        let flag = self.shares.partition_point(|sum| *sum < share).min(FLAGS - 1);
        let variation = Random((of_call.user << 8) | flag as u64).below(2 + flag as u64 % 3);
        let event = Event { flag, variation, ..of_call };
        self.last = Some(event);
        Some(event)
    }
}
