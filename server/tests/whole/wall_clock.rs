//! A wall clock of one process that is set while the process runs. libfaketime, preloaded, adds what a file says at that moment.

use std::path::{Path, PathBuf};

pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    pub fn new(directory: &Path) -> Self {
        let libraries = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
        let in_place = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = in_place.into_iter().find(|path| path.exists());
        let library = library.expect("libfaketime is missing: run `make setup`, which installs the package faketime");
        let clock = Self { file: directory.join("clock"), library };
        clock.set(0);
        clock
    }

    /// Adds so many seconds to the true time. Renamed into place, so that nobody reads half of it.
    pub fn set(&self, offset_s: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset_s:+}")).expect("a file");
        std::fs::rename(&new, &self.file).expect("the same directory");
    }

    /// The environment of a process that has this clock; its steady clock stays the machine's.
    pub fn settings(&self) -> [(&'static str, String); 5] {
        let on = || "1".to_owned();
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", on()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", on()),
            ("NO_FAKE_STAT", on()),
        ]
    }
}
