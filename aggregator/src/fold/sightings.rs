//! The contexts of a batch's calls, put together by class, so that a context's cell is looked up and touched once per batch.

use super::cells::ABSENT;

/// What the calls of one class for one context have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sightings {
    /// Evaluations made for it.
    pub evaluations: u64,
    pub first_us: i64,
    pub last_us: i64,
    /// Number of the client library in the chunk; `ABSENT` if there was no call.
    pub client: u32,
}

const NEVER: Sightings = Sightings { evaluations: 0, first_us: i64::MAX, last_us: i64::MIN, client: ABSENT };

impl Sightings {
    fn add(&mut self, evaluations: u64, time_us: i64) {
        self.evaluations += evaluations;
        self.first_us = self.first_us.min(time_us);
        self.last_us = self.last_us.max(time_us);
    }
}

/// The sightings of one class.
#[derive(Debug, Default)]
pub(super) struct SeenContexts {
    /// By row of the batch's contexts.
    by_row: Vec<Sightings>,
    /// The rows that were seen, in that order.
    rows: Vec<u32>,
}

impl SeenContexts {
    /// Gets ready for a batch with this number of contexts.
    pub fn start(&mut self, contexts: usize) {
        debug_assert!(self.rows.is_empty(), "the last batch was taken out");
        if self.by_row.len() < contexts {
            self.by_row.resize(contexts, NEVER);
        }
    }

    /// Adds a call. Calls by another client library than those before are not put together with them: those are returned.
    #[inline]
    pub fn add(&mut self, row: u32, evaluations: u64, time_us: i64, client: u32) -> Option<Sightings> {
        let sightings = &mut self.by_row[row as usize];
        if sightings.client == client {
            sightings.add(evaluations, time_us);
            return None;
        }
        let before = std::mem::replace(sightings, Sightings { client, ..NEVER });
        sightings.add(evaluations, time_us);
        if before.client == ABSENT {
            self.rows.push(row);
            return None;
        }
        Some(before)
    }

    /// Takes all sightings out, each with its row.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, Sightings)> {
        let by_row = &mut self.by_row;
        self.rows.drain(..).map(|row| (row, std::mem::replace(&mut by_row[row as usize], NEVER)))
    }
}
