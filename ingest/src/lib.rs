//! Puts decisions into the log: the recorder, pseudonyms, the spool.
