//! The decisions of a batch put together by class and outcome.
//!
//! Call by call, each decision would touch other cells, and with thousands of flags those are in no cache. Sorted by group (a
//! counting sort: groups are numbered), a group's cells are looked up and touched once, and what is read per decision is a few
//! kilobytes about the batch's calls.

use super::chunk::Latency;
use super::sketch::Mark;

/// What each decision of a call has of the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallShare {
    pub latency_us: u32,
    pub bucket: u16,
    pub evaluation_ns: u64,
    /// Of its user key, if it has one.
    pub mark: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Decision {
    call: u32,
    count: u32,
}

/// Decisions on their way into cells.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Outcomes of the batch: the decisions of class `c` with outcome `o` are group `c * outcomes + o`.
    outcomes: usize,
    calls: Vec<CallShare>,
    /// Decisions in the order of the batch, each with its group.
    unsorted: Vec<(u32, Decision)>,
    sorted: Vec<Decision>,
    /// Per group: how many decisions it has; once sorted, where they end.
    ends: Vec<u32>,
    /// Per group: nanoseconds that the calls' even shares leave over.
    rests_ns: Vec<u64>,
}

/// The decisions of one class with one outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a> {
    pub class: usize,
    /// Row of the batch's outcomes.
    pub outcome: usize,
    rest_ns: u64,
    decisions: &'a [Decision],
    calls: &'a [CallShare],
}

impl Groups {
    /// Gets ready for a batch with this number of outcomes.
    pub fn start(&mut self, outcomes: usize) {
        self.outcomes = outcomes;
    }

    /// Takes in the decisions of one call, of which there is at least one; `rest_ns` goes to the first.
    pub fn push(&mut self, class: usize, share: CallShare, rest_ns: u64, outcomes: &[u32], counts: &[u32]) {
        let first = class * self.outcomes;
        if self.ends.len() < first + self.outcomes {
            self.ends.resize(first + self.outcomes, 0);
            self.rests_ns.resize(first + self.outcomes, 0);
        }
        self.rests_ns[first + outcomes[0] as usize] += rest_ns;
        let call = self.calls.len() as u32;
        self.calls.push(share);
        let ends = &mut self.ends[first..];
        self.unsorted.extend(outcomes.iter().zip(counts).map(|(&outcome, &count)| {
            ends[outcome as usize] += 1;
            (first as u32 + outcome, Decision { call, count })
        }));
    }

    /// Puts the decisions of each group side by side.
    pub fn sort(&mut self) {
        let mut start = 0;
        for end in &mut self.ends {
            start += std::mem::replace(end, start);
        }
        self.sorted.clear();
        self.sorted.resize(self.unsorted.len(), Decision { call: 0, count: 0 });
        for (group, decision) in &self.unsorted {
            let place = &mut self.ends[*group as usize];
            self.sorted[*place as usize] = *decision;
            *place += 1;
        }
    }

    /// The groups that have decisions, once sorted.
    pub fn iter(&self) -> impl Iterator<Item = Group<'_>> {
        let mut start = 0;
        let groups = self.ends.iter().zip(&self.rests_ns).enumerate();
        groups.filter_map(move |(number, (&end, &rest_ns))| {
            let decisions = &self.sorted[std::mem::replace(&mut start, end as usize)..end as usize];
            let (class, outcome) = (number / self.outcomes, number % self.outcomes);
            let group = Group { class, outcome, rest_ns, decisions, calls: &self.calls };
            (!decisions.is_empty()).then_some(group)
        })
    }

    /// Forgets all decisions; keeps the memory.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.unsorted.clear();
        self.ends.clear();
        self.rests_ns.clear();
    }
}

impl Group<'_> {
    /// Evaluations that the decisions stand for.
    pub fn count(&self) -> u64 {
        self.decisions.iter().map(|decision| u64::from(decision.count)).sum()
    }

    /// Adds their latencies to a cell.
    pub fn add_latency(&self, cell: &mut Latency) {
        cell.evaluation_ns += self.rest_ns;
        for decision in self.decisions {
            let (call, count) = (&self.calls[decision.call as usize], u64::from(decision.count));
            cell.count += count;
            cell.latency_us += count * u64::from(call.latency_us);
            cell.evaluation_ns += call.evaluation_ns;
            cell.histogram.add(call.bucket, count);
        }
    }

    /// The marks of their user keys.
    pub fn marks(&self) -> impl Iterator<Item = Mark> {
        self.decisions.iter().filter_map(|decision| self.calls[decision.call as usize].mark)
    }
}
