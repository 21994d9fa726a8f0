//! Asking for memory ahead of its use.
//!
//! A fold of busy environments waits for memory more than it computes: what a call touches was touched last hundreds of batches ago. Which memory the next call
//! will touch is known while this one is worked on, so it can be on its way meanwhile.

/// Has a value fetched if it exists, without waiting for it.
#[inline]
pub(super) fn prefetch<T>(values: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = values.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint to the processor, which neither reads the value nor faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}
