//! Folds the log into rollup cells.
