//! Which batches are repetitions: those whose (producer, sequence) occurred within the previous records of the partition.

use std::collections::VecDeque;

use indexmap::IndexMap;

use super::hash::Seeded;

type Name = (u128, u64);

/// The names of the last records of a partition; records without a readable header take a place, too.
#[derive(Debug)]
pub(super) struct DuplicateWindow {
    capacity: usize,
    order: VecDeque<Option<Name>>,
    /// How often each name is in `order`. Never iterated.
    names: IndexMap<Name, u32, Seeded>,
}

impl DuplicateWindow {
    /// A window over `capacity` records.
    pub fn new(capacity: usize, hashing: Seeded) -> Self {
        Self { capacity, order: VecDeque::new(), names: IndexMap::with_hasher(hashing) }
    }

    /// Takes the next record in; true if its name is in the window already.
    pub fn push(&mut self, name: Option<Name>) -> bool {
        self.order.push_back(name);
        let is_known = name.is_some_and(|name| {
            let times = self.names.entry(name).or_default();
            *times += 1;
            *times > 1
        });
        if self.order.len() > self.capacity {
            self.forget_oldest();
        }
        is_known
    }

    fn forget_oldest(&mut self) {
        let Some(Some(name)) = self.order.pop_front() else { return };
        let times = self.names.get_mut(&name).expect("every name in order is counted");
        *times -= 1;
        if *times == 0 {
            self.names.swap_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_previous_records_and_no_more() {
        let mut window = DuplicateWindow::new(3, Seeded(0));
        let pushes = [
            (Some((1, 0)), false),
            (Some((1, 0)), true),
            (Some((2, 0)), false),
            (Some((1, 0)), true), // the second one is two back
            (None, false),
            (Some((2, 0)), true), // three back
            (Some((3, 0)), false),
            (Some((1, 0)), false), // four back
        ];
        for (at, (name, duplicate)) in pushes.into_iter().enumerate() {
            assert_eq!(window.push(name), duplicate, "record {at}");
        }
    }
}
