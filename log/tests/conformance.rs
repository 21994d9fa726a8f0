//! The local log keeps the contract of a decision log.

use flagmint_log::conformance::{PARTITIONS, Subject};
use flagmint_log::{LocalLog, Options};
use tempfile::TempDir;

/// Small segments, so that every case crosses several.
const SEGMENT_BYTES: u64 = 8 << 10;

struct Local {
    directory: TempDir,
    segment_bytes: u64,
}

impl Local {
    fn new(segment_bytes: u64) -> Self {
        Self { directory: tempfile::tempdir().expect("temporary directory"), segment_bytes }
    }

    fn open_now(&self) -> LocalLog {
        let options = Options { segment_bytes: self.segment_bytes, ..Options::new(self.directory.path(), PARTITIONS) };
        LocalLog::open(options).expect("open")
    }
}

impl Subject for Local {
    type Log = LocalLog;

    async fn open(&self) -> LocalLog {
        self.open_now()
    }

    fn too_large_bytes(&self) -> usize {
        Self::new(self.segment_bytes).open_now().max_record_bytes() + 1
    }
}

mod small_segments {
    use super::*;
    flagmint_log::conformance_suite!(Local::new(SEGMENT_BYTES));
}

mod default_segments {
    use super::*;
    flagmint_log::conformance_suite!(Local::new(flagmint_log::limits::SEGMENT_BYTES));
}
