//! A full disk: appends are told to retry, nothing is corrupted, and the log works on when there is space.
//!
//! A disk is made full twice: by a file size limit of this process, which works everywhere, and by a small tmpfs, which needs the permission
//! to mount. Both are in one test because the limit holds for the whole process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use flagmint_log::{Append, DecisionLog, LocalLog, LogError, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PAYLOAD_BYTES: usize = 16 << 10;
const SEGMENT_BYTES: u64 = 128 << 10;

fn options(directory: &Path) -> Options {
    Options { segment_bytes: SEGMENT_BYTES, group_linger: Duration::ZERO, ..Options::new(directory, 1) }
}

fn record(number: u64) -> Append {
    let payload = number.to_le_bytes().repeat(PAYLOAD_BYTES / 8);
    Append { partition: 0, header: Bytes::new(), payload: payload.into() }
}

/// Appends until the log wants a retry, 1000 records at most; returns the next number.
async fn append_until_full(log: &LocalLog, mut next: u64) -> u64 {
    loop {
        match log.append(record(next)).await {
            Ok(offset) => assert_eq!(offset, next),
            Err(LogError::Retry(text)) => {
                assert!(text.contains(".seg"), "{text}");
                assert!(["No space left", "File too large"].iter().any(|cause| text.contains(cause)), "{text}");
                return next;
            }
            Err(error) => panic!("{error}"),
        }
        next += 1;
        assert!(next < 1000, "the disk is not full");
    }
}

async fn check(log: &LocalLog, end: u64) {
    let bounds = log.bounds(0).await.expect("bounds");
    assert_eq!(bounds.end, end);
    let mut next = bounds.start;
    while next < end {
        for found in log.read(0, next, 1 << 20).await.expect("read") {
            assert_eq!((found.offset, found.payload), (next, record(next).payload));
            next += 1;
        }
    }
}

/// Fills the disk, checks, reopens, checks, makes space, goes on.
async fn survive(directory: &Path, make_space: impl FnOnce()) -> LocalLog {
    let log = LocalLog::open(options(directory)).expect("open");
    let end = append_until_full(&log, 0).await;
    assert!(end > 0);
    assert_eq!(append_until_full(&log, end).await, end, "still full");
    check(&log, end).await;
    drop(log);
    let log = LocalLog::open(options(directory)).expect("a full disk does not keep the log from opening");
    check(&log, end).await;
    assert_eq!(append_until_full(&log, end).await, end, "full after reopening");
    make_space();
    for number in end..end + 20 {
        assert_eq!(log.append(record(number)).await, Ok(number));
    }
    check(&log, end + 20).await;
    log
}

fn limit_file_size(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum })
        .expect("lowering and restoring is allowed");
}

async fn survive_file_size_limit() {
    // SAFETY: no handler is installed, the signal is ignored; then a write beyond the limit fails instead of killing us.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    // The first segment exists before the limit falls; the second cannot be reserved.
    drop(LocalLog::open(options(path)).expect("open"));
    limit_file_size(Some(SEGMENT_BYTES - 1));
    let log = survive(path, || limit_file_size(None)).await;
    drop(log);
}

/// A mounted tmpfs that goes away with this value.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `Err` holds what `mount` said.
    fn mount(bytes: u64) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let size = format!("size={bytes}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self(directory)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

async fn survive_full_tmpfs(tmpfs: &Tmpfs) {
    let path = tmpfs.0.path();
    let ballast = path.join("ballast");
    fs::write(&ballast, vec![1; 512 << 10]).expect("ballast");
    let directory = path.join("log");
    let log = survive(&directory, || fs::remove_file(&ballast).expect("remove")).await;
    let end = append_until_full(&log, log.bounds(0).await.expect("bounds").end).await;
    assert!(log.trim(i64::MAX, &[end]).await.expect("trim") > 0);
    assert_eq!(log.append(record(end)).await, Ok(end), "trimming makes space");
    check(&log, end + 1).await;
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    survive_file_size_limit().await;
    match Tmpfs::mount(1 << 20) {
        Ok(tmpfs) => survive_full_tmpfs(&tmpfs).await,
        Err(refusal) => println!("tmpfs NOT tested, only the file size limit was: mount says {refusal}"),
    }
}
