//! What every crate shares: ids, decisions, batch codecs, rollup cells, sketches, limits. Pure.

pub mod decision;
