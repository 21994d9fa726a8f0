//! Which precision of rows answers which part of a question's range.

use std::ops::Range;

use flagmint_schemas::rollup::Table;

use crate::Period;
use crate::limits::{DAY_US, HOUR_US};

/// The parts of a question's range that each level answers, disjoint and together the whole range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) base: Vec<Range<i64>>,
    pub(crate) hour: Vec<Range<i64>>,
    pub(crate) day: Vec<Range<i64>>,
}

impl Parts {
    /// Whole days from day rows and whole hours from hour rows, as far as the period allows.
    pub(crate) fn new(table: Table, range: &Range<i64>, period: Period) -> Self {
        if !table.has_coarse_rows() {
            return Self { base: non_empty([range.clone()]), hour: vec![], day: vec![] };
        }
        if let Period::Spans([_, second]) = period
            && range.start < second
            && second < range.end
        {
            // Rows of a day or an hour that both spans have a part of belong to neither.
            let mut parts = Self::new(table, &(range.start..second), Period::Whole);
            let after = Self::new(table, &(second..range.end), Period::Whole);
            for (list, others) in
                [(&mut parts.base, after.base), (&mut parts.hour, after.hour), (&mut parts.day, after.day)]
            {
                others.into_iter().for_each(|next| join(list, next));
            }
            return parts;
        }
        let hours = whole(range, HOUR_US);
        let days = if period == Period::Hour { hours.end..hours.end } else { whole(&hours, DAY_US) };
        Self {
            base: non_empty([range.start..hours.start, hours.end..range.end]),
            hour: non_empty([hours.start..days.start, days.end..hours.end]),
            day: non_empty([days]),
        }
    }
}

/// The largest range inside `range` with both ends on a step; empty at its end if there is none.
fn whole(range: &Range<i64>, step: i64) -> Range<i64> {
    let up = |us: i64| us.checked_add(step - 1).map_or(i64::MAX, |us| us.div_euclid(step) * step);
    let (start, end) = (up(range.start), range.end.div_euclid(step).saturating_mul(step));
    if start < end { start..end } else { range.end..range.end }
}

/// Adds a range, to the one before if they touch.
pub(crate) fn join(ranges: &mut Vec<Range<i64>>, next: Range<i64>) {
    match ranges.last_mut() {
        Some(before) if before.end == next.start => before.end = next.end,
        _ => ranges.push(next),
    }
}

fn non_empty<const N: usize>(ranges: [Range<i64>; N]) -> Vec<Range<i64>> {
    ranges.into_iter().filter(|range| range.start < range.end).collect()
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are what is tested")]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_range() {
        let (h, d) = (HOUR_US, DAY_US);
        let check = |range: Range<i64>, period, base: &[Range<i64>], hour: &[Range<i64>], day: &[Range<i64>]| {
            let parts = Parts::new(Table::Decisions, &range, period);
            assert_eq!((&*parts.base, &*parts.hour, &*parts.day), (base, hour, day), "{range:?} {period:?}");
            let all = [&parts.base, &parts.hour, &parts.day].into_iter().flatten();
            let length: i64 = all.map(|range| range.end - range.start).sum();
            assert_eq!(length, (range.end - range.start).max(0), "{range:?} {period:?}");
        };
        check(5..h - 5, Period::Whole, &[5..h - 5], &[], &[]);
        check(h - 5..h + 5, Period::Whole, &[h - 5..h + 5], &[], &[]);
        check(5..2 * h, Period::Whole, &[5..h], &[h..2 * h], &[]);
        check(h..3 * d + 5, Period::Day, &[3 * d..3 * d + 5], &[h..d], &[d..3 * d]);
        check(h..3 * d + 5, Period::Hour, &[3 * d..3 * d + 5], &[h..3 * d], &[]);
        check(-d - 1..d, Period::Whole, &[-d - 1..-d], &[], &[-d..d]);
        check(9..9, Period::Whole, &[], &[], &[]);
        let spans = |second| Period::Spans([0, second]);
        check(0..4 * d, spans(2 * d), &[], &[], &[0..4 * d]);
        check(0..4 * d, spans(2 * d + h), &[], &[2 * d..3 * d], &[0..2 * d, 3 * d..4 * d]);
        check(d..2 * d, spans(d + h + 5), &[d + h..d + 2 * h], &[d..d + h, d + 2 * h..2 * d], &[]);
        check(5..2 * d, spans(9 * d), &[5..h], &[h..d], &[d..2 * d]);
        check(d..2 * d, spans(d), &[], &[], &[d..2 * d]);
    }
}
