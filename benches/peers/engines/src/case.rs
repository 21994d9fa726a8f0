//! One way of asking one engine for one decision, ready to be called for every user of a scenario.

use std::hint::black_box;

use crate::users::splitmix64;

/// Decides for the next `rounds` users and returns how many decisions were "on".
pub type Run = Box<dyn FnMut(usize) -> usize>;

/// An engine and one of its entry points.
pub struct Case {
    /// Name and version.
    pub engine: &'static str,
    /// The public function that is timed.
    pub entry: &'static str,
    /// What its result tells the caller.
    pub carries: &'static str,
    /// The timed part.
    pub run: Run,
}

/// Drives `decide` over `users` in a fixed shuffled order, so that walking them is not a linear scan of the heap. `decide` returns
/// the number of "on" decisions.
pub fn rotate<U: 'static>(users: Vec<U>, mut decide: impl FnMut(&mut U) -> usize + 'static) -> Run {
    let mut users = shuffled(users);
    let mut next = 0;
    Box::new(move |rounds| {
        let mut on = 0;
        for _ in 0..rounds {
            on += decide(black_box(&mut users[next]));
            next += 1;
            if next == users.len() {
                next = 0;
            }
        }
        on
    })
}

/// Fisher-Yates with a fixed seed: every engine sees the same order.
fn shuffled<U>(mut users: Vec<U>) -> Vec<U> {
    for last in (1..users.len()).rev() {
        let other = splitmix64(last as u64) % (last as u64 + 1);
        users.swap(last, other as usize);
    }
    users
}
