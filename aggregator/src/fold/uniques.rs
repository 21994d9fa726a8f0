//! Distinct users of flags and variations, and distinct contexts of environments, by day: HyperLogLog registers under construction.
//!
//! All sketches of one environment and day lie side by side on a board, since a call brings one user, and so one register, to the
//! sketches of all its flags. A flag's own sketch is the union of its variations', and that of all users the union of the flags'; both are raised
//! when a variation's is, which soon is seldom.

use flagmint_schemas::ids::{FlagId, VariationId};
use flagmint_schemas::sketch::unique::{self, REGISTERS, register_of};
use indexmap::{IndexMap, IndexSet};

use super::hash::Seeded;
use super::lanes::{LANES, Lanes};

/// Stands for the sketch that nobody asks for: decisions that do not count in analytics go there, so that all go the same way.
pub(super) const NOBODY: u32 = 0;

/// The column of an environment's distinct contexts, and that of the users of all its flags.
const ONLY: u32 = 0;

/// What one hash does to a sketch: computed once per context, applied once per decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    register: u16,
    value: u8,
}

impl Mark {
    /// The mark of a hash.
    #[inline]
    pub fn of(hash: u64) -> Self {
        let (register, value) = register_of(hash);
        Self { register, value }
    }
}

/// The sketches of a chunk.
#[derive(Debug)]
pub(super) struct Uniques {
    hashing: Seeded,
    /// By environment and day.
    boards: IndexMap<(u32, i64), Board, Seeded>,
    sketches: usize,
    dirty: Vec<u32>,
    /// Columns of variations just raised, then those of their flags; empty between calls.
    raised: Vec<u32>,
    /// Columns of flags just raised; empty between calls.
    raised_flags: Vec<u32>,
    /// Sketches on their way out of their lanes.
    scratch: Vec<[u8; REGISTERS]>,
}

/// Who a sketch counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counted {
    /// Users of a variation; `NONE` for the flag as a whole, and flag `NONE` for all contexts of the environment.
    Of(FlagId, VariationId),
    /// Users of any flag.
    Users,
}

/// A sketch that has changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub environment: u32,
    pub counted: Counted,
    pub day_us: i64,
    /// The stored form.
    pub registers: Vec<u8>,
}

#[derive(Debug)]
struct Board {
    is_dirty: bool,
    /// The index is the column in `flag_columns`.
    flags: IndexSet<FlagId, Seeded>,
    /// By flag's column and variation. The index plus one is the column in `variation_columns`; column 0 is [`NOBODY`]'s.
    variations: IndexSet<(u32, VariationId), Seeded>,
    flag_columns: Columns,
    variation_columns: Columns,
    user_columns: Columns,
    context_columns: Columns,
}

/// Any number of sketches, [`LANES`] by [`LANES`].
#[derive(Debug, Default)]
struct Columns {
    blocks: Vec<Block>,
}

#[derive(Debug, Default)]
struct Block {
    lanes: Lanes<u8, { REGISTERS / 64 }>,
    /// A bit for each column.
    dirty: u64,
}

impl Columns {
    fn make(&mut self, column: u32) {
        let (block, lane) = place(column);
        if block == self.blocks.len() {
            self.blocks.push(Block::default());
        }
        self.blocks[block].lanes.widen_to(lane);
    }

    /// Adds a mark to several sketches; those that this changed are told to `raised`.
    #[inline]
    fn raise(&mut self, mark: Mark, columns: impl Iterator<Item = u32>, mut raised: impl FnMut(u32)) {
        let (mut current, mut row) = (0, self.blocks[0].lanes.row(mark.register.into()));
        for column in columns {
            let (block, lane) = place(column);
            if block != current {
                (current, row) = (block, self.blocks[block].lanes.row(mark.register.into()));
            }
            let register = &mut row[lane];
            if *register < mark.value {
                *register = mark.value;
                raised(column);
            }
        }
    }

    /// Adds a mark to one sketch; true if that changed it.
    fn raise_one(&mut self, column: u32, mark: Mark) -> bool {
        let mut is_raised = false;
        self.raise(mark, std::iter::once(column), |_| is_raised = true);
        if is_raised {
            self.soil(column);
        }
        is_raised
    }

    /// Takes note that a sketch has changed.
    fn soil(&mut self, column: u32) {
        let (block, lane) = place(column);
        self.blocks[block].dirty |= 1 << lane;
    }

    /// The sketches changed since the last time, in their stored form; `scratch` is used on the way.
    fn take_dirty(&mut self, scratch: &mut Vec<[u8; REGISTERS]>) -> Vec<(u32, Vec<u8>)> {
        let mut changed = Vec::new();
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let dirty = std::mem::take(&mut block.dirty);
            if dirty == 0 {
                continue;
            }
            block.lanes.columns(dirty, scratch);
            for lane in (0..LANES).filter(|lane| dirty >> lane & 1 == 1) {
                changed.push(((number * LANES + lane) as u32, unique::encode(&scratch[lane])));
            }
        }
        changed
    }
}

const fn place(column: u32) -> (usize, usize) {
    (column as usize / LANES, column as usize % LANES)
}

impl Board {
    fn new(hashing: Seeded) -> Self {
        let mut board = Self {
            is_dirty: false,
            flags: IndexSet::with_hasher(hashing),
            variations: IndexSet::with_hasher(hashing),
            flag_columns: Columns::default(),
            variation_columns: Columns::default(),
            user_columns: Columns::default(),
            context_columns: Columns::default(),
        };
        board.variation_columns.make(NOBODY);
        board
    }
}

impl Uniques {
    /// No sketches.
    pub fn new(hashing: Seeded) -> Self {
        Self {
            hashing,
            boards: IndexMap::with_hasher(hashing),
            sketches: 0,
            dirty: Vec::new(),
            raised: Vec::new(),
            raised_flags: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// How many sketches there are, those that are unions of others not counted.
    pub fn len(&self) -> usize {
        self.sketches
    }

    /// The number of the board of an environment's day.
    pub fn board(&mut self, environment: u32, day_us: i64) -> u32 {
        let entry = self.boards.entry((environment, day_us));
        let number = entry.index() as u32;
        entry.or_insert_with(|| Board::new(self.hashing));
        number
    }

    /// The column on a board of a variation's users.
    pub fn column(&mut self, board: u32, flag: FlagId, variation: VariationId) -> u32 {
        let board = &mut self.boards[board as usize];
        let (of_flag, is_new) = board.flags.insert_full(flag);
        if is_new {
            board.flag_columns.make(of_flag as u32);
        }
        let (number, is_new) = board.variations.insert_full((of_flag as u32, variation));
        let column = number as u32 + 1;
        if is_new {
            if column == NOBODY + 1 {
                board.user_columns.make(ONLY);
            }
            board.variation_columns.make(column);
            self.sketches += 1;
        }
        column
    }

    /// Adds one user's mark to variations, given by their columns.
    #[inline]
    pub fn raise(&mut self, board: u32, mark: Mark, columns: impl Iterator<Item = u32>) {
        let of_variations = &mut self.boards[board as usize].variation_columns;
        of_variations.raise(mark, columns, |column| self.raised.push(column));
        if !self.raised.is_empty() {
            self.note_raised(board, mark);
        }
    }

    #[cold]
    fn note_raised(&mut self, number: u32, mark: Mark) {
        self.raised.retain(|column| *column != NOBODY);
        if self.raised.is_empty() {
            return;
        }
        let board = &mut self.boards[number as usize];
        for column in &mut self.raised {
            board.variation_columns.soil(*column);
            *column = board.variations[*column as usize - 1].0;
        }
        let mut flags = std::mem::take(&mut self.raised_flags);
        board.flag_columns.raise(mark, self.raised.drain(..), |of_flag| flags.push(of_flag));
        // A flag is raised no higher than one of its variations, nor all flags than one of them.
        if !flags.is_empty() {
            board.user_columns.raise_one(ONLY, mark);
        }
        flags.drain(..).for_each(|of_flag| board.flag_columns.soil(of_flag));
        self.raised_flags = flags;
        if !std::mem::replace(&mut board.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    /// Adds a context's mark to those of its environment.
    pub fn raise_contexts(&mut self, number: u32, mark: Mark) {
        let board = &mut self.boards[number as usize];
        if board.context_columns.blocks.is_empty() {
            board.context_columns.make(ONLY);
            self.sketches += 1;
        }
        if board.context_columns.raise_one(ONLY, mark) && !std::mem::replace(&mut board.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    /// The sketches changed since the last call.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        let mut changed = Vec::new();
        self.dirty.sort_unstable();
        for number in std::mem::take(&mut self.dirty) {
            let (&(environment, day_us), board) =
                self.boards.get_index_mut(number as usize).expect("boards are never removed");
            board.is_dirty = false;
            let mut add = |counted, registers| changed.push(Changed { environment, counted, day_us, registers });
            for (column, registers) in board.variation_columns.take_dirty(&mut self.scratch) {
                let (of_flag, variation) = board.variations[column as usize - 1];
                // Without a variation it is the flag's own sketch, or a part of that.
                if !variation.is_none() {
                    add(Counted::Of(board.flags[of_flag as usize], variation), registers);
                }
            }
            for (column, registers) in board.flag_columns.take_dirty(&mut self.scratch) {
                add(Counted::Of(board.flags[column as usize], VariationId::NONE), registers);
            }
            for (_, registers) in board.user_columns.take_dirty(&mut self.scratch) {
                add(Counted::Users, registers);
            }
            for (_, registers) in board.context_columns.take_dirty(&mut self.scratch) {
                add(Counted::Of(FlagId::NONE, VariationId::NONE), registers);
            }
        }
        changed
    }
}
