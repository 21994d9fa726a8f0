//! Answers questions about decisions from the rollups.
