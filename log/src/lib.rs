//! The decision log: append, read, watch, trim.
