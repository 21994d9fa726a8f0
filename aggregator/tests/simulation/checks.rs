//! What must hold at any moment, and what must hold at the end.

use std::collections::{BTreeMap, BTreeSet};

use flagmint_schemas::rollup::Table;
use flagmint_schemas::sketch::latency::{BUCKETS, Histogram, bucket_of};
use flagmint_schemas::sketch::unique::Registers;
use flagmint_store::conformance::Value;

use crate::evaluators::{environment_id, outcome, user_hash};
use crate::log::PARTITIONS;
use crate::oracle::{MINUTE_US, Oracle, Totals};
use crate::store::{Store, column, number};

/// One who asks from time to time, and remembers.
#[derive(Debug, Default)]
pub struct Reader {
    seen: BTreeMap<i64, i128>,
    complete_through_us: Option<i64>,
}

impl Reader {
    /// Asks for decisions by minute and for the watermark.
    pub fn look(&mut self, epoch: u64, store: &mut Store, oracle: &Oracle) -> Result<(), String> {
        let told_us = store.complete_through_us(epoch, PARTITIONS);
        if told_us < self.complete_through_us {
            return Err(format!("the watermark went back to {told_us:?}"));
        }
        self.complete_through_us = told_us;
        let counted = by_minute(store);
        let appended = oracle.appended_by_minute();
        for (minute, count) in &counted {
            let most = appended.get(minute).copied().unwrap_or_default();
            if *count > most {
                return Err(format!("counted twice: {count} decisions in minute {minute}, {most} were appended"));
            }
        }
        for (minute, before) in &self.seen {
            let now = counted.get(minute).copied().unwrap_or_default();
            if now < *before {
                return Err(format!("minute {minute} shrank from {before} to {now}"));
            }
        }
        for (minute, least) in oracle.covered_by_minute() {
            let found = counted.get(&minute).copied().unwrap_or_default();
            if told_us.is_some_and(|us| (minute + 1) * MINUTE_US <= us) && found < least {
                return Err(format!("complete through {told_us:?}, but minute {minute} has {found} of {least}"));
            }
        }
        self.seen = counted;
        Ok(())
    }
}

fn by_minute(store: &Store) -> BTreeMap<i64, i128> {
    let group_by = &["time_us"];
    let rows = store.ask(Table::Decisions, group_by);
    let count = |row: &Vec<Value>| number(column(Table::Decisions, group_by, row, "count"));
    rows.iter().map(|row| (number(&row[0]) as i64 / MINUTE_US, count(row))).collect()
}

/// Compares every total with what was sent, once all of it is folded.
pub fn everything(store: &Store, oracle: &Oracle, dead_letters: &BTreeSet<(u64, u32, u64)>) -> Result<(), String> {
    same("ledger", &ledger(store), &oracle.totals())?;
    let (decisions, latency) = expected_decisions(oracle);
    same("decisions by environment and variation", &found_decisions(store), &decisions)?;
    same("latencies by flag", &found_latency(store), &latency)?;
    same("decisions by flag", &found_flags(store), &served_by_flag(&latency))?;
    same("decisions of all flags", &found_total(store), &of_all_flags(&latency))?;
    let users = expected_users(oracle);
    same("users by flag", &found_users(store), &users)?;
    same("users of all flags", &found_all_users(store), &of_all_users(&users))?;
    same("evaluations by context", &found_contexts(store), &expected_contexts(oracle))?;
    let calls: i128 = oracle.appended().map(|batch| batch.calls.len() as i128).sum();
    same("API calls", &sum(store, Table::Usage, "api_calls"), &calls)?;
    same("dead letters", dead_letters, &oracle.poison.iter().copied().collect())?;
    chunks(store, oracle)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:#?}, expected {expected:#?}")) }
}

fn sum(store: &Store, table: Table, name: &str) -> i128 {
    store.ask(table, &[]).iter().map(|row| number(column(table, &[], row, name))).sum()
}

fn ledger(store: &Store) -> Totals {
    let of = |name| sum(store, Table::Ledger, name);
    Totals {
        records: of("records"),
        produced: of("produced"),
        counted: of("counted"),
        calls: of("calls"),
        duplicate_records: of("duplicate_records"),
        duplicate_decisions: of("duplicate_decisions"),
        parked_records: of("parked_records"),
        parked_decisions: of("parked_decisions"),
        gaps: of("gaps"),
        clamped: of("clamped"),
    }
}

type ByVariation = BTreeMap<(Value, Value), i128>;
/// Count, latency, evaluation time and histogram.
type ByFlag = BTreeMap<Value, (i128, i128, i128, Vec<u8>)>;

fn id(uuid: uuid::Uuid) -> Value {
    Value::Id(uuid.into_bytes())
}

fn expected_decisions(oracle: &Oracle) -> (ByVariation, ByFlag) {
    let mut decisions = ByVariation::new();
    let mut latency = BTreeMap::<Value, (i128, i128, i128, Vec<u64>)>::new();
    for batch in oracle.appended() {
        for call in &batch.calls {
            let rows = call.outcomes.len() as u32;
            for (at, number) in call.outcomes.iter().enumerate() {
                let (flag, variation, _) = outcome(*number);
                *decisions.entry((id(environment_id(batch.environment)), id(variation))).or_default() += 1;
                let flag = latency.entry(id(flag)).or_insert_with(|| (0, 0, 0, vec![0; BUCKETS]));
                let rest = if at == 0 { call.evaluation_ns % rows } else { 0 };
                flag.0 += 1;
                flag.1 += i128::from(call.latency_us);
                flag.2 += i128::from(call.evaluation_ns / rows + rest);
                flag.3[usize::from(bucket_of(call.latency_us.into()))] += 1;
            }
        }
    }
    let encode = |(flag, (count, us, ns, dense)): (Value, (i128, i128, i128, Vec<u64>))| {
        (flag, (count, us, ns, Histogram::from_dense(&dense).encode()))
    };
    (decisions, latency.into_iter().map(encode).collect())
}

fn found_decisions(store: &Store) -> ByVariation {
    let (table, group_by) = (Table::Decisions, &["environment", "variation"]);
    let row = |row: &Vec<Value>| ((row[0].clone(), row[1].clone()), number(column(table, group_by, row, "count")));
    store.ask(table, group_by).iter().map(row).collect()
}

fn found_latency(store: &Store) -> ByFlag {
    let (table, group_by) = (Table::Latency, &["flag"]);
    let row = |row: &Vec<Value>| {
        let of = |name| number(column(table, group_by, row, name));
        let Value::Bytes(buckets) = column(table, group_by, row, "buckets") else { panic!("no histogram") };
        (row[0].clone(), (of("count"), of("latency_us"), of("evaluation_ns"), buckets.clone()))
    };
    store.ask(table, group_by).iter().map(row).collect()
}

fn served_by_flag(latency: &ByFlag) -> BTreeMap<Value, i128> {
    latency.iter().map(|(flag, (count, ..))| (flag.clone(), *count)).collect()
}

fn found_flags(store: &Store) -> BTreeMap<Value, i128> {
    let (table, group_by) = (Table::Flags, &["flag"]);
    let row = |row: &Vec<Value>| (row[0].clone(), number(column(table, group_by, row, "served")));
    store.ask(table, group_by).iter().map(row).collect()
}

fn of_all_flags(latency: &ByFlag) -> (i128, i128, i128, Vec<u8>) {
    let mut all = (0, 0, 0, Histogram::default());
    for (count, us, ns, buckets) in latency.values() {
        (all.0, all.1, all.2) = (all.0 + count, all.1 + us, all.2 + ns);
        all.3.merge_sum_encoded(buckets).expect("made by encode");
    }
    (all.0, all.1, all.2, all.3.encode())
}

fn found_total(store: &Store) -> (i128, i128, i128, Vec<u8>) {
    let Some(row) = store.ask(Table::Totals, &[]).pop() else { return of_all_flags(&ByFlag::new()) };
    let of = |name| number(column(Table::Totals, &[], &row, name));
    let Value::Bytes(buckets) = column(Table::Totals, &[], &row, "buckets") else { panic!("no histogram") };
    (of("served"), of("latency_us"), of("evaluation_ns"), buckets.clone())
}

fn of_all_users(users: &BTreeMap<Value, Vec<u8>>) -> Vec<u8> {
    let mut all = Registers::default();
    users.values().for_each(|registers| all.merge_encoded(registers).expect("made by encode"));
    all.encode()
}

fn found_all_users(store: &Store) -> Vec<u8> {
    let Some(row) = store.ask(Table::Users, &[]).pop() else { return Registers::default().encode() };
    let Value::Bytes(registers) = column(Table::Users, &[], &row, "registers") else { panic!("no registers") };
    registers.clone()
}

fn expected_users(oracle: &Oracle) -> BTreeMap<Value, Vec<u8>> {
    let mut users = BTreeMap::<Value, Registers>::new();
    for batch in oracle.appended() {
        for call in batch.calls.iter().filter(|call| call.is_counted) {
            for (flag, _, has_analytics) in call.outcomes.iter().map(|number| outcome(*number)) {
                if has_analytics {
                    users.entry(id(flag)).or_default().insert(user_hash(call.context));
                }
            }
        }
    }
    users.into_iter().map(|(flag, registers)| (flag, registers.encode())).collect()
}

fn found_users(store: &Store) -> BTreeMap<Value, Vec<u8>> {
    let (table, group_by) = (Table::Uniques, &["flag", "variation"]);
    let nil = Value::Id([0; 16]);
    let rows = store.ask(table, group_by).into_iter().filter(|row| row[0] != nil && row[1] == nil);
    let row = |row: Vec<Value>| {
        let Value::Bytes(registers) = column(table, group_by, &row, "registers") else { panic!("no registers") };
        (row[0].clone(), registers.clone())
    };
    rows.map(row).collect()
}

fn expected_contexts(oracle: &Oracle) -> BTreeMap<(Value, Value), i128> {
    let mut contexts = BTreeMap::new();
    for batch in oracle.appended() {
        for call in &batch.calls {
            let key = Value::Text(format!("context-{}", call.context));
            *contexts.entry((id(environment_id(batch.environment)), key)).or_default() += call.outcomes.len() as i128;
        }
    }
    contexts
}

fn found_contexts(store: &Store) -> BTreeMap<(Value, Value), i128> {
    let (table, group_by) = (Table::Contexts, &["environment", "key"]);
    let row =
        |row: &Vec<Value>| ((row[0].clone(), row[1].clone()), number(column(table, group_by, row, "evaluations")));
    store.ask(table, group_by).iter().map(row).collect()
}

/// The chunks of each partition follow each other, and each record is in exactly one.
fn chunks(store: &Store, oracle: &Oracle) -> Result<(), String> {
    let (table, group_by) = (Table::Chunks, &["epoch", "partition", "chunk"]);
    let mut found = BTreeMap::<(u64, u32), Vec<(u64, u64, u64, bool)>>::new();
    for row in store.ask(table, group_by) {
        let of = |name| number(column(table, group_by, &row, name)) as u64;
        let partition = (number(&row[0]) as u64, number(&row[1]) as u32);
        let chunk = (number(&row[2]) as u64, of("next_offset"), of("records"), of("complete") == 1);
        found.entry(partition).or_default().push(chunk);
    }
    for (partition, offsets) in &oracle.offsets {
        let mut chunks = found.remove(partition).unwrap_or_default();
        chunks.sort_unstable();
        let mut left = &offsets[..];
        for (at, (start, end, records, is_complete)) in chunks.iter().enumerate() {
            let inside = left.iter().take_while(|offset| (*start..*end).contains(*offset)).count();
            if inside as u64 != *records || !(*is_complete || at + 1 == chunks.len()) {
                return Err(format!("{partition:?}: chunk {start}..{end} of {records}, but {inside} of {left:?}"));
            }
            left = &left[inside..];
        }
        if !left.is_empty() {
            return Err(format!("{partition:?}: {left:?} are in no chunk of {chunks:?}"));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("chunks of nothing: {found:?}")) }
}
