//! Latencies by flag and minute: histograms under construction.
//!
//! All histograms of one environment and minute lie side by side on a board, since a call brings one latency, and so one bucket, to all
//! flags that it decides.

use flagmint_schemas::sketch::latency::{self, BUCKETS};
use indexmap::IndexMap;

use super::hash::Seeded;
use super::lanes::Lanes;

/// Stands for the histogram that nobody asks for: decisions without a latency go there, so that all go the same way.
pub(super) const NOBODY: u32 = 0;

/// How what goes there counts: in no sum.
const NO_COUNTING: u8 = u8::MAX;

/// Where a histogram is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub board: u32,
    pub column: u32,
}

/// The histograms of a chunk.
#[derive(Debug)]
pub(super) struct Histograms {
    /// By environment and minute.
    boards: IndexMap<(u32, i64), Board, Seeded>,
    /// By board, column and bucket: how often a count passed 2^32, of which the lanes keep the rest. Honest chunks have none.
    carries: IndexMap<(u32, u32, u16), u64, Seeded>,
}

#[derive(Debug)]
struct Board {
    /// By column: how its decisions count in analytics.
    countings: Vec<u8>,
    counts: Lanes<u32, { BUCKETS / 64 }>,
}

impl Board {
    fn add(&mut self, counting: u8) -> u32 {
        let column = self.countings.len();
        self.countings.push(counting);
        self.counts.widen_to(column);
        column as u32
    }
}

impl Histograms {
    /// No histograms.
    pub fn new(hashing: Seeded) -> Self {
        Self { boards: IndexMap::with_hasher(hashing), carries: IndexMap::with_hasher(hashing) }
    }

    /// The number of the board of an environment's minute.
    pub fn board(&mut self, environment: u32, minute_us: i64) -> u32 {
        let entry = self.boards.entry((environment, minute_us));
        let number = entry.index() as u32;
        entry.or_insert_with(|| {
            let mut board = Board { countings: Vec::new(), counts: Lanes::default() };
            board.add(NO_COUNTING);
            board
        });
        number
    }

    /// A new histogram of an environment's minute, of decisions that count in one way.
    pub fn add(&mut self, environment: u32, minute_us: i64, counting: u8) -> Place {
        let board = self.board(environment, minute_us);
        Place { board, column: self.boards[board as usize].add(counting) }
    }

    /// The counts of all columns of a board in one bucket, to be added to. Those that pass 2^32 are told to [`Self::carry`].
    #[inline]
    pub fn row(&mut self, board: u32, bucket: u16) -> &mut [u32] {
        self.boards[board as usize].counts.row(bucket.into())
    }

    /// The same as they are, if any is above 0.
    #[inline]
    pub fn touched(&self, board: u32, bucket: u16) -> &[u32] {
        self.boards[board as usize].counts.touched(bucket.into()).unwrap_or_default()
    }

    /// Takes note that a count passed 2^32.
    #[cold]
    pub fn carry(&mut self, board: u32, column: u32, bucket: u16) {
        *self.carries.entry((board, column, bucket)).or_default() += 1;
    }

    /// The stored forms of histograms, in the order of `places`.
    pub fn encode(&self, places: &[Place]) -> Vec<Vec<u8>> {
        let mut encoded = vec![latency::Writer::default(); places.len()];
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|at| places[*at].board);
        for neighbours in order.chunk_by(|a, b| places[*a].board == places[*b].board) {
            let board = places[neighbours[0]].board;
            for (bucket, row) in self.boards[board as usize].counts.rows() {
                for &at in neighbours {
                    let column = places[at].column;
                    let count = self.carried(board, column, bucket) | u64::from(row[column as usize]);
                    if count > 0 {
                        encoded[at].push(bucket, count);
                    }
                }
            }
        }
        encoded.into_iter().map(latency::Writer::finish).collect()
    }

    /// The stored forms of sums over all histograms of a board whose decisions count in one way, in the order of `sums`.
    pub fn encode_sums(&self, sums: &[(u32, u8)]) -> Vec<Vec<u8>> {
        let mut dense = vec![0; BUCKETS];
        let encode = |&(number, counting): &(u32, u8)| {
            let board = &self.boards[number as usize];
            for (bucket, row) in board.counts.rows() {
                let of = |(count, of): (&u32, &u8)| if *of == counting { u64::from(*count) } else { 0 };
                dense[usize::from(bucket)] += row.iter().zip(&board.countings).map(of).sum::<u64>();
            }
            for (&(of, column, bucket), carries) in &self.carries {
                if of == number && board.countings[column as usize] == counting {
                    dense[usize::from(bucket)] += carries << u32::BITS;
                }
            }
            let counts = (0..).zip(dense.iter_mut().map(std::mem::take));
            latency::encode(counts.filter(|(_, count)| *count > 0))
        };
        sums.iter().map(encode).collect()
    }

    /// The upper half of a count.
    fn carried(&self, board: u32, column: u32, bucket: u16) -> u64 {
        if self.carries.is_empty() {
            return 0;
        }
        self.carries.get(&(board, column, bucket)).copied().unwrap_or_default() << u32::BITS
    }
}
