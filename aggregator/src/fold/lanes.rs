//! Many sketches side by side, kept by row instead of by sketch.
//!
//! A sketch is a column of thousands of small numbers; one call touches the same row (its register, its latency's bucket) of the sketches of
//! all flags that it decides. Kept sketch by sketch, each of those would be a cache line of its own, and thousands of flags are in no cache;
//! kept by row they are one or two lines. Rows that nobody touched take no memory.

/// Columns that are taken out together: of a row of bytes, one cache line.
pub(super) const LANES: usize = 64;

/// Rows whose places are kept together.
const PAGE: usize = 64;

/// Any number of columns of `PAGES * 64` numbers.
#[derive(Debug)]
pub(super) struct Lanes<T, const PAGES: usize> {
    /// Index into `pages` plus one; 0 where no row is touched.
    page_of: [u8; PAGES],
    /// Number of each row in `values` plus one; 0 if it is not touched.
    pages: Vec<[u16; PAGE]>,
    /// Rows of `width` values in the order they were touched.
    values: Vec<T>,
    /// Room for columns: a power of two up to [`LANES`], so that few of them take little memory, then a multiple of that.
    width: usize,
}

impl<T: Copy + Default, const PAGES: usize> Default for Lanes<T, PAGES> {
    fn default() -> Self {
        Self { page_of: [0; PAGES], pages: Vec::new(), values: Vec::new(), width: 1 }
    }
}

impl<T: Copy + Default, const PAGES: usize> Lanes<T, PAGES> {
    /// Makes room for a column.
    pub fn widen_to(&mut self, column: usize) {
        if column < self.width {
            return;
        }
        // Every row moves: so there is room for a quarter more, and with it for what comes next.
        let needed = column + 1;
        let width = match needed {
            ..=LANES => needed.next_power_of_two(),
            _ => needed.max(self.width + self.width / 4).next_multiple_of(LANES),
        };
        let narrow = std::mem::take(&mut self.values);
        self.values = Vec::with_capacity(narrow.len() / self.width * width);
        for row in narrow.chunks_exact(self.width) {
            self.values.extend_from_slice(row);
            self.values.resize(self.values.len() + width - self.width, T::default());
        }
        self.width = width;
    }

    /// A row, as wide as the columns that there is room for or wider.
    #[inline]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        let number = match usize::from(self.page_of[row / PAGE]) {
            0 => 0,
            page => usize::from(self.pages[page - 1][row % PAGE]),
        };
        let number = if number == 0 { self.add_row(row) } else { number };
        let start = (number - 1) * self.width;
        &mut self.values[start..start + self.width]
    }

    /// A row if it was touched, as it is.
    #[inline]
    pub fn touched(&self, row: usize) -> Option<&[T]> {
        let page = usize::from(self.page_of[row / PAGE]).checked_sub(1)?;
        let start = usize::from(self.pages[page][row % PAGE]).checked_sub(1)? * self.width;
        Some(&self.values[start..start + self.width])
    }

    #[cold]
    fn add_row(&mut self, row: usize) -> usize {
        let page = &mut self.page_of[row / PAGE];
        if *page == 0 {
            self.pages.push([0; PAGE]);
            *page = self.pages.len() as u8;
        }
        self.values.resize(self.values.len() + self.width, T::default());
        let number = self.values.len() / self.width;
        self.pages[usize::from(*page) - 1][row % PAGE] = number as u16;
        number
    }

    /// The rows that were touched, ascending. Whoever wants several columns goes through them once: they share cache lines.
    pub fn rows(&self) -> impl Iterator<Item = (u16, &[T])> {
        let touched = self.page_of.iter().enumerate().filter(|(_, page)| **page > 0);
        let numbers = touched.flat_map(|(at, page)| {
            let page = &self.pages[usize::from(*page) - 1];
            page.iter().enumerate().map(move |(within, number)| (at * PAGE + within, usize::from(*number)))
        });
        let numbers = numbers.filter(|(_, number)| *number > 0);
        numbers.map(|(row, number)| (row as u16, &self.values[(number - 1) * self.width..number * self.width]))
    }
}

impl<const PAGES: usize> Lanes<u8, PAGES> {
    /// Brings whole columns, those of the `block`th [`LANES`] whose bit is set in `wanted`, to their places in `columns`: each row's value, 0 where
    /// it was not touched. What is at other places means nothing. `HEIGHT` is the number of rows.
    pub fn columns<const HEIGHT: usize>(&self, block: usize, wanted: u64, columns: &mut Vec<[u8; HEIGHT]>) {
        const { assert!(HEIGHT == PAGES * PAGE) };
        columns.resize(LANES, [0; HEIGHT]);
        for (at, page) in self.page_of.iter().enumerate() {
            let page = page.checked_sub(1).map(|page| &self.pages[usize::from(page)]);
            for lane in (0..LANES).step_by(8).filter(|lane| wanted >> lane & 0xff != 0) {
                let columns = &mut columns[lane..lane + 8];
                let Some(page) = page else {
                    columns.iter_mut().for_each(|column| column[at * PAGE..][..PAGE].fill(0));
                    continue;
                };
                for (eight, numbers) in page.as_chunks::<8>().0.iter().enumerate() {
                    let mut rows = [0; 8];
                    for (row, number) in rows.iter_mut().zip(numbers) {
                        *row = self.eight(*number, block * LANES + lane);
                    }
                    for (column, values) in columns.iter_mut().zip(transposed(rows)) {
                        column[at * PAGE + eight * 8..][..8].copy_from_slice(&values.to_le_bytes());
                    }
                }
            }
        }
    }

    /// Eight neighbours of a row that is given by its number plus one; zeros for 0 and beyond its width.
    #[inline]
    fn eight(&self, number: u16, first: usize) -> u64 {
        if number == 0 || first >= self.width {
            return 0;
        }
        let row = &self.values[(usize::from(number) - 1) * self.width..][..self.width];
        match row[first..].first_chunk::<8>() {
            Some(values) => u64::from_le_bytes(*values),
            None => row.iter().rev().fold(0, |all, value| all << 8 | u64::from(*value)),
        }
    }
}

/// Eight rows of eight bytes as eight columns, the first byte being the lowest. Source: Warren, "Hacker's Delight" (2nd edition), 7-3, here with bytes for bits.
#[inline]
fn transposed(rows: [u64; 8]) -> [u64; 8] {
    let rows = swapped::<1>(rows, 0x00ff_00ff_00ff_00ff);
    let rows = swapped::<2>(rows, 0x0000_ffff_0000_ffff);
    swapped::<4>(rows, 0x0000_0000_ffff_ffff)
}

/// Swaps squares of `DISTANCE` bytes across the diagonal.
#[inline]
fn swapped<const DISTANCE: usize>(mut rows: [u64; 8], mask: u64) -> [u64; 8] {
    for upper in (0..8).filter(|row| row & DISTANCE == 0) {
        let moved = (rows[upper] >> (8 * DISTANCE) ^ rows[upper + DISTANCE]) & mask;
        rows[upper + DISTANCE] ^= moved;
        rows[upper] ^= moved << (8 * DISTANCE);
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// More than two blocks of them, so that there are rows of every width.
    const COLUMNS: usize = 150;

    proptest! {
        #[test]
        fn columns_hold_what_was_put_in_their_rows(touches in prop::collection::vec((0usize..256, 0..COLUMNS, 1u32..9), 0..300)) {
            let mut lanes = Lanes::<u32, 4>::default();
            let mut expected = vec![BTreeMap::<u16, u32>::new(); COLUMNS];
            for (row, column, value) in touches {
                lanes.widen_to(column);
                lanes.row(row)[column] += value;
                *expected[column].entry(row as u16).or_default() += value;
            }
            for (column, expected) in expected.into_iter().enumerate() {
                lanes.widen_to(column);
                let values = lanes.rows().map(|(row, values)| (row, values[column]));
                let found: Vec<(u16, u32)> = values.filter(|(_, value)| *value > 0).collect();
                prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            }
        }

        #[test]
        fn whole_columns_are_what_rows_hold(
            touches in prop::collection::vec((0usize..256, 0..COLUMNS, 1u8..9), 0..300), width in 1..=COLUMNS, wanted: u64,
        ) {
            let mut lanes = Lanes::<u8, 4>::default();
            lanes.widen_to(width - 1);
            let mut expected = vec![[0; 256]; COLUMNS.next_multiple_of(LANES)];
            for (row, column, value) in touches {
                let column = column % width;
                lanes.row(row)[column] += value;
                expected[column][row] += value;
            }
            // What an earlier block left there.
            let mut columns = vec![[77; 256]; LANES];
            for (block, expected) in expected.chunks(LANES).enumerate() {
                lanes.columns(block, wanted, &mut columns);
                for lane in (0..LANES).filter(|lane| wanted >> lane & 1 == 1) {
                    prop_assert_eq!(columns[lane], expected[lane], "lane {} of block {} in {}", lane, block, width);
                }
            }
        }
    }
}
