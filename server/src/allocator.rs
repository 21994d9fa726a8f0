//! The process's allocator, and what an aggregator asks of it.

use std::ffi::{c_int, c_long};

/// A tenth of a request's time went into the system's allocator (docs/performance.md), which this one halves.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An option of mimalloc 3 by its number in `mimalloc.h`, as no crate names it: how long memory that is not used is kept.
const PURGE_DELAY_MS: c_int = 15;

/// What an emission takes the next one asks for again, at most ten seconds later.
const KEPT_MS: c_long = 15_000;

/// Bytes from which the system's allocator takes memory from the kernel for each piece: as many as it allows. Kafka's client, which is in C, has its memory from there, and pieces of
/// megabytes for each answer of a broker and for what it unpacks of it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PIECE_BYTES: c_int = 32 << 20;

/// Bytes that the system's allocator keeps at the end of each of its heaps: more than the client holds at a time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: c_int = 64 << 20;

unsafe extern "C" {
    safe fn mi_option_set(option: c_int, value: c_long);
}

/// Gets ready for columns and bodies of many megabytes that come and go: memory that was freed is kept for a while instead of being given back and cleared again
/// by the kernel, and is taken in small pages, since clearing two megabytes at a time took a fifth of the time of folding (docs/performance.md).
pub fn expect_emissions() {
    mi_option_set(PURGE_DELAY_MS, KEPT_MS);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !keep_pieces() {
        tracing::debug!("the system's allocator does not let this process keep what Kafka's client frees");
    }
    #[cfg(target_os = "linux")]
    if !small_pages() {
        tracing::debug!("the kernel does not let this process do without huge pages");
    }
}

/// Has the system's allocator keep what Kafka's client frees, a third of all pages that this process got from the kernel; whether it does.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_pieces() -> bool {
    let options = [(libc::M_MMAP_THRESHOLD, PIECE_BYTES), (libc::M_TRIM_THRESHOLD, KEPT_BYTES)];
    // SAFETY: these options take a number each and change nothing but where memory comes from and when it is given back.
    options.into_iter().all(|(option, value)| unsafe { libc::mallopt(option, value) } == 1)
}

/// Has the kernel use no huge pages for this process, though the allocator has asked for them at its start; whether it does.
#[cfg(target_os = "linux")]
fn small_pages() -> bool {
    let (on, unused): (c_long, c_long) = (1, 0);
    // SAFETY: this option takes four numbers and no pointers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        safe fn mi_option_get(option: c_int) -> c_long;
    }

    #[test]
    fn memory_is_kept_in_small_pages() {
        // Another version of the allocator may number its options differently; this is the default of this one.
        assert_eq!(mi_option_get(PURGE_DELAY_MS), 1000);
        expect_emissions();
        assert_eq!(mi_option_get(PURGE_DELAY_MS), KEPT_MS);
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        assert!(keep_pieces());
        #[cfg(target_os = "linux")]
        {
            let status = std::fs::read_to_string("/proc/self/status").expect("what the kernel says about this process");
            assert!(status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"])), "{status}");
        }
    }
}
