//! Which calls are under way: the low watermark's foundation.
//!
//! Calls register in the current epoch when they are received, before their event time is read from the clock, and leave
//! it when they have been recorded. The flusher begins a new epoch only when the one before the current is empty, so two
//! counters per shard suffice. At any moment every call received before the start of the oldest epoch with calls under
//! way has been recorded: that start is the watermark.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use flagmint_log::wall_clock_us;

/// Calls under way in the two latest epochs, by parity, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicU64; 2]);

/// The epochs.
#[derive(Debug)]
pub(super) struct Epochs {
    shards: Box<[Shard]>,
    current: AtomicU64,
    /// When the epoch of each parity began, microseconds.
    starts_us: [AtomicI64; 2],
    /// The watermark told last, microseconds.
    told_us: Mutex<i64>,
}

impl Epochs {
    pub(super) fn new(shards: usize) -> Self {
        let now_us = wall_clock_us();
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            current: AtomicU64::new(1),
            starts_us: [AtomicI64::new(now_us), AtomicI64::new(now_us)],
            told_us: Mutex::new(i64::MIN),
        }
    }

    /// Registers a call; returns its parity and event time.
    ///
    /// The epoch is read again after registering: if it is still the current one, the flusher will see the
    /// registration before it reuses the counter (both are sequentially consistent).
    pub(super) fn enter(&self, shard: usize) -> (usize, i64) {
        loop {
            let epoch = self.current.load(Ordering::SeqCst);
            let parity = (epoch % 2) as usize;
            self.shards[shard].0[parity].fetch_add(1, Ordering::SeqCst);
            if self.current.load(Ordering::SeqCst) == epoch {
                // If the clock was set back, the call counts as received when its epoch began.
                return (parity, wall_clock_us().max(self.starts_us[parity].load(Ordering::SeqCst)));
            }
            self.leave(shard, parity);
        }
    }

    pub(super) fn leave(&self, shard: usize, parity: usize) {
        self.shards[shard].0[parity].fetch_sub(1, Ordering::SeqCst);
    }

    fn is_empty(&self, parity: usize) -> bool {
        self.shards.iter().all(|shard| shard.0[parity].load(Ordering::SeqCst) == 0)
    }

    /// Begins a new epoch if possible; returns the low watermark in microseconds, never less than before.
    pub(super) fn advance(&self) -> i64 {
        let mut told_us = self.told_us.lock().unwrap_or_else(PoisonError::into_inner);
        // A call that registers in an epoch just ended, notices and registers anew, makes that epoch look in use for a
        // moment. It is received after what was told already, so that stays true.
        *told_us = self.try_advance().max(*told_us);
        *told_us
    }

    fn try_advance(&self) -> i64 {
        let epoch = self.current.load(Ordering::SeqCst);
        let (current, previous) = ((epoch % 2) as usize, ((epoch + 1) % 2) as usize);
        if !self.is_empty(previous) {
            return self.starts_us[previous].load(Ordering::SeqCst);
        }
        let start_us = wall_clock_us().max(self.starts_us[current].load(Ordering::SeqCst));
        // A call that still registers under this parity notices the change below and registers anew.
        self.starts_us[previous].store(start_us, Ordering::SeqCst);
        self.current.store(epoch + 1, Ordering::SeqCst);
        if self.is_empty(current) { start_us } else { self.starts_us[current].load(Ordering::SeqCst) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_call_under_way_holds_the_watermark() {
        let epochs = Epochs::new(2);
        let (parity, received_us) = epochs.enter(1);
        for _ in 0..5 {
            assert!(epochs.advance() <= received_us);
        }
        epochs.leave(1, parity);
        assert!(epochs.advance() >= received_us);
    }

    /// Whoever leaves after the watermark was taken was received at or after it.
    #[test]
    fn no_call_ends_before_a_watermark_that_passed_it() {
        let (epochs, stop) = (Epochs::new(4), AtomicBool::new(false));
        let published = AtomicI64::new(i64::MIN);
        std::thread::scope(|scope| {
            for shard in 0..4 {
                let (epochs, stop, published) = (&epochs, &stop, &published);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let (parity, received_us) = epochs.enter(shard);
                        let watermark_us = published.load(Ordering::SeqCst);
                        assert!(received_us >= watermark_us, "received {received_us}, watermark {watermark_us}");
                        epochs.leave(shard, parity);
                    }
                });
            }
            let (mut last_us, mut went_back) = (i64::MIN, false);
            for _ in 0..20_000 {
                let watermark_us = epochs.advance();
                went_back |= watermark_us < last_us;
                last_us = watermark_us;
                published.store(watermark_us, Ordering::SeqCst);
            }
            // Before anything is asserted: a panic here would leave the other threads running for ever.
            stop.store(true, Ordering::SeqCst);
            assert!(!went_back, "the watermark went back");
        });
    }
}
