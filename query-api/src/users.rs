//! Distinct users of an answer: its sketches, merged by whatever they are asked by.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use flagmint_schemas::ids::VariationId;
use flagmint_schemas::rollup::CellValue;
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::Rows;

use crate::error::ApiError;
use crate::rows::{column, damaged};

/// All sketches of an answer, merged.
pub(crate) fn whole(rows: &Rows) -> Result<Registers, ApiError> {
    let mut all = Registers::default();
    for registers in column::<Vec<u8>>(rows, "registers")? {
        all.merge_encoded(&registers).map_err(damaged)?;
    }
    Ok(all)
}

/// The sketches of an answer, merged by the values of one of its columns.
pub(crate) fn by<K: CellValue + Ord>(rows: &Rows, key: &str) -> Result<BTreeMap<K, Registers>, ApiError> {
    let mut merged: BTreeMap<K, Registers> = BTreeMap::new();
    for (key, registers) in column::<K>(rows, key)?.into_iter().zip(column::<Vec<u8>>(rows, "registers")?) {
        merged.entry(key).or_default().merge_encoded(&registers).map_err(damaged)?;
    }
    Ok(merged)
}

/// Estimated number of distinct users per key.
pub(crate) fn estimates<K: Ord>(sketches: &BTreeMap<K, Registers>) -> BTreeMap<&K, u64> {
    sketches.iter().map(|(key, registers)| (key, registers.estimate())).collect()
}

/// One flag's sketches by day, of all variations together: the rows whose `variation` is "none".
pub(crate) fn of_flag_by_day(rows: &Rows) -> Result<BTreeMap<i64, Registers>, ApiError> {
    let mut days = BTreeMap::<i64, Registers>::new();
    let keys = column::<VariationId>(rows, "variation")?.into_iter().zip(column::<i64>(rows, "time_us")?);
    for ((variation, day_us), registers) in keys.zip(column::<Vec<u8>>(rows, "registers")?) {
        if variation.is_none() {
            days.entry(day_us).or_default().merge_encoded(&registers).map_err(damaged)?;
        }
    }
    Ok(days)
}
