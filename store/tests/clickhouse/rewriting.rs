//! Closed hours and days are rewritten beside everything that can come late or again: each cell is counted once, always.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use flagmint_schemas::rollup::{ContextPage, Table};
use flagmint_store::clickhouse::ClickHouseStore;
use flagmint_store::{Emission, Period, RollupStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{self, DAY_US, HOUR_US, MINUTE_US, START_US, check_others, counts, emission, position, sql};

/// A chunk of the made-up log: flag, minute, count.
type Cells = Vec<(u128, i64, u64)>;

/// Chunks that each last 50 minutes, with events up to 24 hours late.
fn log(random: &mut StdRng, chunks: u64) -> Vec<Cells> {
    let chunk = |number: u64| {
        let now_us = START_US + (number as i64 + 1) * 50 * MINUTE_US;
        let mut cells = BTreeMap::new();
        for _ in 0..12 {
            let late_us =
                if random.random_bool(0.25) { random.random_range(0..24 * 60) } else { random.random_range(0..50) };
            let time_us = (now_us - (late_us + 1) * MINUTE_US).max(START_US);
            cells.insert((random.random_range(1..4u128), time_us), random.random_range(1..50));
        }
        cells.into_iter().map(|((flag, time_us), count)| (flag, time_us, count)).collect()
    };
    (0..chunks).map(chunk).collect()
}

fn sums(log: &[Cells], step_us: i64) -> BTreeMap<(u128, i64), u64> {
    let mut sums = BTreeMap::new();
    for (flag, time_us, count) in log.iter().flatten() {
        *sums.entry((*flag, time_us.div_euclid(step_us) * step_us)).or_default() += count;
    }
    sums
}

async fn compare(store: &ClickHouseStore, log: &[Cells]) {
    assert_eq!(counts(store, Period::Hour).await, sums(log, HOUR_US));
    assert_eq!(counts(store, Period::Day).await, sums(log, DAY_US));
    // All of it is after 1970 and before 2100.
    let whole = counts(store, Period::Whole).await;
    assert_eq!(whole, sums(log, 1 << 60).into_iter().map(|((flag, _), sum)| ((flag, 0), sum)).collect());
    let cells: Vec<(u64, u128, i64, u64)> = (0u64..)
        .zip(log)
        .flat_map(|(chunk, cells)| cells.iter().map(move |&(flag, time_us, count)| (chunk * 100, flag, time_us, count)))
        .collect();
    check_others(store, &whole, &cells).await;
}

/// All cells of a chunk with some of their counts, as they were emitted before its end.
fn earlier(cells: &Cells) -> Cells {
    cells.iter().map(|&(flag, time_us, count)| (flag, time_us, count.div_ceil(2))).collect()
}

#[tokio::test]
async fn late_repeated_and_stale_emissions_are_counted_once() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let log = log(&mut random, 90);
    let options = support::database();
    let stores = [support::store(&options).await, support::store(&options).await];
    for (at, cells) in log.iter().enumerate() {
        let (chunk, store) = (at as u64 * 100, &stores[random.random_range(0..2)]);
        let complete_us = START_US + (at as i64 + 1) * 50 * MINUTE_US;
        store
            .upsert(emission(chunk, &earlier(cells), Some(position(chunk, complete_us - HOUR_US))))
            .await
            .expect("taken");
        if random.random_bool(0.3) {
            store.maintain(complete_us).await.expect("maintained with a chunk open");
        }
        store.upsert(emission(chunk, cells, Some(position(chunk + 100, complete_us)))).await.expect("taken");
        if random.random_bool(0.4) {
            // A zombie: what was emitted long ago, some of it twice, with the position of that time.
            let old = random.random_range(0..=at);
            let again = emission(old as u64 * 100, &earlier(&log[old]), Some(position(old as u64 * 100, 0)));
            stores[random.random_range(0..2)].upsert(again).await.expect("taken");
        }
        if random.random_bool(0.3) {
            let [a, b] = &stores;
            let (a, b) = futures::future::join(a.maintain(complete_us), b.maintain(complete_us)).await;
            a.and(b).expect("maintained by two at once");
        }
        if at % 15 == 14 {
            compare(&stores[random.random_range(0..2)], &log[..=at]).await;
        }
    }
    // Whatever the seed chose, what has closed by the end is rewritten.
    for store in &stores {
        store.maintain(START_US + 90 * 50 * MINUTE_US).await.expect("maintained at the end");
        compare(store, &log).await;
    }
    let days = sql(&options, "SELECT uniqExact(intDiv(time_us, 86400000000)) FROM decisions_day").await;
    assert!(days.parse::<u64>().expect("a number") >= 3, "{days} days were rewritten");
}

/// All evaluators were off for days: when they are back, the log's time jumps, while chunks begun before are still open.
#[tokio::test]
async fn cells_of_an_open_chunk_are_counted_however_old_they_are() {
    let log = log(&mut StdRng::seed_from_u64(6), 1);
    let options = support::database();
    let store = support::store(&options).await;
    store.upsert(emission(0, &log[0], Some(position(0, START_US + HOUR_US)))).await.expect("taken");
    store.maintain(START_US + 3 * HOUR_US).await.expect("maintained");
    compare(&store, &log).await;
    let back_us = START_US + 5 * DAY_US;
    for (chunk, complete_us) in
        [(0, back_us), (0, back_us + HOUR_US), (100, back_us + 2 * HOUR_US), (100, back_us + 3 * DAY_US)]
    {
        store.upsert(emission(0, &[], Some(position(chunk, complete_us)))).await.expect("taken");
        store.maintain(complete_us).await.expect("maintained");
        compare(&store, &log).await;
    }
}

#[tokio::test]
async fn old_generations_and_old_cells_go_and_answers_stay() {
    let mut random = StdRng::seed_from_u64(4);
    let log = log(&mut random, 60);
    let options = support::database();
    flagmint_store::clickhouse::migrate(&options).await.expect("a schema");
    // Commits must come within half of it, however busy the machine is; what is older goes.
    let grace = Duration::from_secs(4);
    let store = ClickHouseStore::open_with(&options, grace).await.expect("the store opens");
    let parts = async |table: &str| {
        let count = format!(
            "SELECT uniqExact(partition) FROM system.parts WHERE active AND database = currentDatabase() AND table = '{table}'"
        );
        sql(&options, &count).await.parse::<u64>().expect("a number")
    };
    for (at, cells) in log.iter().enumerate() {
        let complete_us = START_US + (at as i64 + 1) * 50 * MINUTE_US;
        store
            .upsert(emission(at as u64 * 100, cells, Some(position(at as u64 * 100 + 100, complete_us))))
            .await
            .expect("taken");
        if at % 20 == 19 {
            store.maintain(complete_us).await.expect("maintained");
        }
    }
    compare(&store, &log).await;
    let later_us = START_US + 20 * DAY_US;
    store.upsert(emission(9000, &[], Some(position(9100, later_us)))).await.expect("taken");
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    // The clock may be anywhere: only the log's own time counts, and that says 20 days.
    while parts("decisions").await > 0 {
        assert!(std::time::Instant::now() < deadline, "minute cells of 20 days ago are still there");
        store.maintain(i64::MAX).await.expect("maintained");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(counts(&store, Period::Day).await, sums(&log, DAY_US));
    assert_eq!(counts(&store, Period::Hour).await, sums(&log, HOUR_US));
    let generations = "SELECT max(n) FROM (SELECT count() AS n FROM (SELECT DISTINCT partition, \
        splitByChar(',', partition)[1] AS day FROM system.parts WHERE active AND database = currentDatabase() \
        AND table = 'decisions_hour') GROUP BY day)";
    assert_eq!(sql(&options, generations).await, "1", "of each day one generation is left");
    // A zombie with cells of days that are gone: nothing changes, now or after the next rewriting.
    store.upsert(emission(0, &earlier(&log[0]), Some(position(0, 0)))).await.expect("taken");
    for hour in 1..3 {
        let complete_us = later_us + hour * HOUR_US;
        store.upsert(emission(9100, &[], Some(position(9200, complete_us)))).await.expect("taken");
        store.maintain(complete_us).await.expect("maintained");
        assert_eq!(counts(&store, Period::Day).await, sums(&log, DAY_US));
        assert_eq!(counts(&store, Period::Hour).await, sums(&log, HOUR_US));
    }
}

#[tokio::test]
async fn pages_of_complete_chunks_go_and_answers_stay() {
    let options = support::database();
    let store = support::store(&options).await;
    let now_us = START_US + 3 * HOUR_US;
    let complete_us = |chunk: u64| now_us + chunk as i64 * MINUTE_US;
    let emit = async |chunk: u64, complete: u8, seen: &[(u128, u64)], next: u64| {
        let page = support::page(chunk, complete, seen);
        let cells = vec![(Table::Contexts, ContextPage::to_batch(&[page]))];
        let positions = vec![position(next, complete_us(next))];
        store.upsert(Emission { cells, positions }).await.expect("pages are taken");
    };
    let sums = async || {
        let rows = store.query(&support::question(Table::Contexts, Period::Whole)).await.expect("an answer").batch;
        let (keys, counts) = (rows["key"].as_string::<i32>(), rows["evaluations"].as_primitive::<UInt64Type>());
        (0..rows.num_rows()).map(|row| (keys.value(row).to_owned(), counts.value(row))).collect::<BTreeMap<_, _>>()
    };
    emit(0, 0, &[(1, 3), (2, 1)], 0).await;
    emit(0, 0, &[(2, 5)], 0).await;
    emit(0, 1, &[(1, 3), (2, 6), (3, 1)], 1).await;
    emit(1, 0, &[(1, 7), (3, 2)], 1).await;
    let expected: BTreeMap<String, u64> =
        [(1, 10), (2, 6), (3, 3)].map(|(number, sum)| (format!("p1_{number:032x}"), sum)).into();
    assert_eq!(sums().await, expected);
    store.maintain(now_us).await.expect("maintained");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let left = "SELECT groupArray((chunk, complete)) FROM (SELECT chunk, complete FROM contexts ORDER BY chunk)";
    while sql(&options, left).await != "[(0,1),(1,0)]" {
        assert!(std::time::Instant::now() < deadline, "pages that were told again are still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sums().await, expected);
    // A zombie: the next rewriting deletes it, too.
    emit(0, 0, &[(2, 5)], 0).await;
    assert_eq!(sums().await, expected);
}
