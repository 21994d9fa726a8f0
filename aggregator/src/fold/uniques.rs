//! Distinct users of flags and variations, and distinct contexts of environments, by day: HyperLogLog registers under construction.
//!
//! All sketches of one environment and day lie side by side on a board, since a call brings one user, and so one register, to the
//! sketches of all its flags. A flag's own sketch is the union of its variations', made when it is emitted.

use flagmint_schemas::ids::{FlagId, VariationId};
use flagmint_schemas::sketch::unique::{self, REGISTERS, register_of};
use indexmap::{IndexMap, IndexSet};

use super::hash::Seeded;
use super::lanes::{LANES, Lanes};

/// Stands for the sketch that nobody asks for: decisions that do not count in analytics go there, so that all go the same way.
pub(super) const NOBODY: u32 = 0;

type Registers = Lanes<u8, { REGISTERS / 64 }>;

/// What one hash does to a sketch: computed once per context, applied once per decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    register: u16,
    value: u8,
}

impl Mark {
    /// The mark of nobody, which changes no sketch.
    pub const NONE: Self = Self { register: 0, value: 0 };

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
    /// Sketches on their way out of their lanes.
    columns: Vec<[u8; REGISTERS]>,
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
    /// By flag: what the registers of its sketch added up to when it was last emitted. They never fall, so it has changed if and only if that has.
    flags: IndexMap<FlagId, u64, Seeded>,
    /// By flag's index and variation. The index plus one is the column in `registers`; column 0 is [`NOBODY`]'s.
    variations: IndexSet<(u32, VariationId), Seeded>,
    registers: Registers,
    /// By column: 1 if it has changed since it was last emitted.
    raised: Vec<u8>,
    users: Sketch,
    /// Distinct contexts; counted as a sketch once there is one.
    contexts: Sketch,
    has_contexts: bool,
}

/// A sketch by itself.
#[derive(Debug, Default)]
struct Sketch {
    registers: Registers,
    is_dirty: bool,
}

impl Sketch {
    /// Adds a mark; true if that changed it.
    #[inline]
    fn raise(&mut self, mark: Mark) -> bool {
        let register = &mut self.registers.row(mark.register.into())[0];
        let is_raised = *register < mark.value;
        *register = (*register).max(mark.value);
        self.is_dirty |= is_raised;
        is_raised
    }

    /// Its stored form if it has changed since the last time.
    fn take_changed(&mut self, scratch: &mut Vec<[u8; REGISTERS]>) -> Option<Vec<u8>> {
        std::mem::take(&mut self.is_dirty).then(|| {
            self.registers.columns(0, 1, scratch);
            unique::encode(&scratch[0])
        })
    }
}

/// One register of all sketches of variations on a board, and who is brought to them.
#[derive(Debug)]
pub(super) struct Row<'a> {
    registers: &'a mut [u8],
    raised: &'a mut [u8],
    value: u8,
    has_raised: bool,
    /// Some bits of the columns that were given.
    columns: u32,
}

impl Row<'_> {
    /// Brings the user to the sketch in a column. Without a branch, since it cannot be told which register rises.
    #[inline]
    pub fn raise(&mut self, column: u32) {
        let register = &mut self.registers[column as usize];
        let is_raised = *register < self.value;
        *register = (*register).max(self.value);
        self.raised[column as usize] |= u8::from(is_raised);
        self.has_raised |= is_raised;
        self.columns |= column;
    }

    /// Whether a sketch has changed, and whether one was not [`NOBODY`]'s.
    #[inline]
    pub const fn finish(self) -> (bool, bool) {
        (self.has_raised, self.columns != NOBODY)
    }
}

impl Board {
    fn new(hashing: Seeded) -> Self {
        Self {
            is_dirty: false,
            flags: IndexMap::with_hasher(hashing),
            variations: IndexSet::with_hasher(hashing),
            registers: Registers::default(),
            raised: vec![0],
            users: Sketch::default(),
            contexts: Sketch::default(),
            has_contexts: false,
        }
    }

    /// Hands over the sketches changed since the last time; `columns` and `unions` are used on the way.
    fn take_changed(
        &mut self,
        columns: &mut Vec<[u8; REGISTERS]>,
        unions: &mut Vec<[u8; REGISTERS]>,
        mut add: impl FnMut(Counted, Vec<u8>),
    ) {
        self.is_dirty = false;
        self.raised[NOBODY as usize] = 0;
        // Places in `unions` of the flags that a variation of has changed.
        let mut union_of = vec![None; self.flags.len()];
        unions.clear();
        for (&(of_flag, _), _) in self.variations.iter().zip(&self.raised[1..]).filter(|(_, raised)| **raised == 1) {
            union_of[of_flag as usize].get_or_insert_with(|| {
                unions.push([0; REGISTERS]);
                unions.len() - 1
            });
        }
        for block in 0..self.raised.len().div_ceil(LANES) {
            let first = block * LANES;
            let end = self.raised.len().min(first + LANES);
            // A flag's union needs all of its variations.
            let wanted: Vec<(usize, usize)> = (first.max(1)..end)
                .filter_map(|column| Some((column, union_of[self.variations[column - 1].0 as usize]?)))
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let bits = wanted.iter().fold(0, |bits, (column, _)| bits | 1 << (column - first));
            self.registers.columns(block, bits, columns);
            for (column, union) in wanted {
                let registers = &columns[column - first];
                unions[union].iter_mut().zip(registers).for_each(|(all, one)| *all = (*all).max(*one));
                let (of_flag, variation) = self.variations[column - 1];
                // Without a variation it is the flag's own sketch, or a part of that.
                if std::mem::take(&mut self.raised[column]) == 1 && !variation.is_none() {
                    let (flag, _) = self.flags.get_index(of_flag as usize).expect("flags are never removed");
                    add(Counted::Of(*flag, variation), unique::encode(registers));
                }
            }
        }
        for ((flag, emitted), union) in self.flags.iter_mut().zip(union_of) {
            let Some(union) = union else { continue };
            let sum = unions[union].iter().map(|value| u64::from(*value)).sum();
            if std::mem::replace(emitted, sum) != sum {
                add(Counted::Of(*flag, VariationId::NONE), unique::encode(&unions[union]));
            }
        }
        if let Some(registers) = self.users.take_changed(columns) {
            add(Counted::Users, registers);
        }
        if let Some(registers) = self.contexts.take_changed(columns) {
            add(Counted::Of(FlagId::NONE, VariationId::NONE), registers);
        }
    }
}

impl Uniques {
    /// No sketches.
    pub fn new(hashing: Seeded) -> Self {
        Self { hashing, boards: IndexMap::with_hasher(hashing), sketches: 0, dirty: Vec::new(), columns: Vec::new() }
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
        let (of_flag, _) = board.flags.insert_full(flag, 0);
        let (number, is_new) = board.variations.insert_full((of_flag as u32, variation));
        let column = number + 1;
        if is_new {
            board.registers.widen_to(column);
            board.raised.push(0);
            self.sketches += 1;
        }
        column as u32
    }

    /// Where a user is brought to sketches of variations; [`Self::raised`] is told what came of it.
    #[inline]
    pub fn row(&mut self, board: u32, mark: Mark) -> Row<'_> {
        let Board { registers, raised, .. } = &mut self.boards[board as usize];
        Row {
            registers: registers.row(mark.register.into()),
            raised,
            value: mark.value,
            has_raised: false,
            columns: NOBODY,
        }
    }

    /// The registers that a mark would go to, as they are, if any is above 0.
    #[inline]
    pub fn touched(&self, board: u32, mark: Mark) -> &[u8] {
        self.boards[board as usize].registers.touched(mark.register.into()).unwrap_or_default()
    }

    /// Takes note of what [`Row::finish`] says about a row.
    #[inline]
    pub fn raised(&mut self, number: u32, mark: Mark, (has_raised, is_counted): (bool, bool)) {
        let board = &mut self.boards[number as usize];
        // All users are the union of the variations'.
        let has_raised = has_raised | (is_counted && board.users.raise(mark));
        if has_raised && !std::mem::replace(&mut board.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    /// Adds a context's mark to those of its environment.
    pub fn raise_contexts(&mut self, number: u32, mark: Mark) {
        let board = &mut self.boards[number as usize];
        self.sketches += usize::from(!std::mem::replace(&mut board.has_contexts, true));
        if board.contexts.raise(mark) && !std::mem::replace(&mut board.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    /// The sketches changed since the last call.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        let (mut changed, mut unions) = (Vec::new(), Vec::new());
        self.dirty.sort_unstable();
        for number in std::mem::take(&mut self.dirty) {
            let (&(environment, day_us), board) =
                self.boards.get_index_mut(number as usize).expect("boards are never removed");
            let add = |counted, registers| changed.push(Changed { environment, counted, day_us, registers });
            board.take_changed(&mut self.columns, &mut unions, add);
        }
        changed
    }
}
