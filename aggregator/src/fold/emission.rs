//! Rows on their way to the store: of one partition or of several together.

use arrow::array::RecordBatch;
use flagmint_schemas::rollup::{
    Cell, ChunkCell, ContextPage, DecisionCell, FlagCell, LatencyCell, LedgerCell, Table, TotalCell, UniqueCell,
    UsageCell, UserCell,
};

/// Which of an open chunk's changed cells are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that are short and asked about by the minute: decisions, latencies, totals and meters.
    Counts,
    /// Contexts, which take memory while they wait, and of which each call may bring one.
    Contexts,
}

/// Cells to be emitted, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Rows of `decisions`.
    pub decisions: Vec<DecisionCell>,
    /// Rows of `latency`.
    pub latency: Vec<LatencyCell>,
    /// Rows of `flags`.
    pub flags: Vec<FlagCell>,
    /// Rows of `totals`.
    pub totals: Vec<TotalCell>,
    /// Rows of `usage`.
    pub usage: Vec<UsageCell>,
    /// Rows of `uniques`.
    pub uniques: Vec<UniqueCell>,
    /// Rows of `users`.
    pub users: Vec<UserCell>,
    /// Cells of `contexts`, in pages.
    pub contexts: Vec<ContextPage>,
    /// Rows of `ledger`.
    pub ledger: Vec<LedgerCell>,
    /// Rows of `chunks`.
    pub chunks: Vec<ChunkCell>,
}

impl Emitted {
    /// Number of cells.
    #[must_use]
    pub fn len(&self) -> usize {
        self.decisions.len()
            + self.latency.len()
            + self.flags.len()
            + self.totals.len()
            + self.usage.len()
            + self.uniques.len()
            + self.users.len()
            + self.contexts.iter().map(ContextPage::len).sum::<usize>()
            + self.ledger.len()
            + self.chunks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all rows of `other` behind these.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        self.decisions.append(&mut other.decisions);
        self.latency.append(&mut other.latency);
        self.flags.append(&mut other.flags);
        self.totals.append(&mut other.totals);
        self.usage.append(&mut other.usage);
        self.uniques.append(&mut other.uniques);
        self.users.append(&mut other.users);
        self.contexts.append(&mut other.contexts);
        self.ledger.append(&mut other.ledger);
        self.chunks.append(&mut other.chunks);
    }

    /// One Arrow batch per table that has cells, in the tables' schemas, contexts in pages.
    #[must_use]
    pub fn to_batches(&self) -> Vec<(Table, RecordBatch)> {
        let batches = [
            batch(&self.decisions),
            batch(&self.latency),
            batch(&self.flags),
            batch(&self.totals),
            batch(&self.usage),
            batch(&self.uniques),
            batch(&self.users),
            pages(&self.contexts),
            batch(&self.ledger),
            batch(&self.chunks),
        ];
        batches.into_iter().flatten().collect()
    }
}

fn batch<C: Cell>(rows: &[C]) -> Option<(Table, RecordBatch)> {
    (!rows.is_empty()).then(|| (C::TABLE, C::to_batch(rows)))
}

fn pages(pages: &[ContextPage]) -> Option<(Table, RecordBatch)> {
    (!pages.is_empty()).then(|| (Table::Contexts, ContextPage::to_batch(pages)))
}
