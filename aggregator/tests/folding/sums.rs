//! Rows of flags and of all flags are what the rows of decisions and latencies add up to: cell by cell, in every chunk.

use std::collections::BTreeMap;

use crate::support::merged::{Merged, Value};
use crate::support::{EPOCH, LIMITS, World, seed};
use flagmint_aggregator::fold::{PartitionFold, Resume};
use flagmint_schemas::decision::Reason;
use flagmint_schemas::rollup::{Role, Table, measure};
use flagmint_schemas::sketch::latency::Histogram;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const HOUR_US: i128 = 3_600_000_000;

/// By the cell's key, from the organization to the chunk.
type Tallies = BTreeMap<Vec<Value>, [i128; 5]>;
/// Latency, time in the evaluator, histogram.
type Times = BTreeMap<Vec<Value>, (i128, i128, Histogram)>;

fn rows(cells: &Merged, table: Table) -> impl Iterator<Item = BTreeMap<&'static str, Value>> {
    let of = move |keys: bool| {
        table.columns().iter().filter(move |column| column.role.is_key() == keys).map(|column| column.name)
    };
    let rows = cells.0.iter().filter(move |((other, _), _)| *other == table);
    rows.map(move |((_, key), values)| of(true).zip(key.clone()).chain(of(false).zip(values.clone())).collect())
}

/// The key of another table that a row belongs to; its time is that of the row, rounded down to a step.
fn key(row: &BTreeMap<&'static str, Value>, table: Table, step_us: i128) -> Vec<Value> {
    let part = |column: &flagmint_schemas::rollup::Column| match column.role {
        Role::Time => Value::Number(row[column.name].number().div_euclid(step_us) * step_us),
        _ => row[column.name].clone(),
    };
    table.columns().iter().filter(|column| column.role.is_key()).map(part).collect()
}

fn added_up(cells: &Merged, table: Table, step_us: i128) -> Tallies {
    let mut sums = Tallies::new();
    for row in rows(cells, Table::Decisions).filter(|row| row["flag"] != Value::Bytes(vec![0; 16])) {
        let (count, of) = (row["count"].number(), row["measure"].number() as u8);
        let sum = sums.entry(key(&row, table, step_us)).or_default();
        let is_error = row["reason"].number() as u8 == Reason::Error.code();
        let place = match of {
            measure::SERVED => 0,
            measure::REPORTED => 1,
            measure::APP_ERROR => 3,
            measure::GOAL => 4,
            other => panic!("measure {other}"),
        };
        sum[place] += count;
        sum[2] += if of == measure::SERVED && is_error { count } else { 0 };
    }
    sums
}

fn found(cells: &Merged, table: Table) -> Tallies {
    let of = |row: &BTreeMap<_, Value>| {
        ["served", "reported", "errors", "app_errors", "goals"].map(|name| row[name].number())
    };
    rows(cells, table).map(|row| (key(&row, table, 1), of(&row))).collect()
}

fn times(cells: &Merged, table: Table) -> Times {
    let mut sums = Times::new();
    for row in rows(cells, table) {
        let sum = sums.entry(key(&row, Table::Totals, 1)).or_default();
        sum.0 += row["latency_us"].number();
        sum.1 += row["evaluation_ns"].number();
        let Value::Bytes(buckets) = &row["buckets"] else { panic!("no histogram") };
        sum.2.merge_sum(&Histogram::decode(buckets).unwrap());
    }
    // A minute of reports alone has a row of all flags, but no latency.
    sums.retain(|_, (_, _, histogram)| histogram.count() > 0);
    sums
}

#[test]
fn rows_of_all_flags_are_the_sums_of_rows_by_flag() {
    let seed = seed();
    for round in 0..10 {
        let world = World::generate(seed ^ round, 300);
        let mut random = StdRng::seed_from_u64(!seed ^ round);
        let mut fold = PartitionFold::new(EPOCH, 3, Resume { chunk: 0, complete_through_us: i64::MIN }, LIMITS);
        let mut cells = Merged::default();
        for record in &world.records {
            fold.fold(record);
            // Whatever is emitted, and when, all tables are of the same records.
            if random.random_ratio(1, 30) {
                cells.upsert(&fold.emit().unwrap().0.to_batches());
                check(&cells);
            }
        }
        fold.emit().into_iter().for_each(|(emitted, _)| cells.upsert(&emitted.to_batches()));
        check(&cells);
        assert!(times(&cells, Table::Totals).len() > 10, "round {round}");
    }
}

fn check(cells: &Merged) {
    assert_eq!(found(cells, Table::Flags), added_up(cells, Table::Flags, HOUR_US));
    assert_eq!(found(cells, Table::Totals), added_up(cells, Table::Totals, 1));
    assert_eq!(times(cells, Table::Totals), times(cells, Table::Latency));
}
