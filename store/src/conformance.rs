//! What every rollup store must do, as tests that each backend runs: random emissions against a naive model.
//!
//! Emissions come in order, twice, split, late and stale; the store is settled and opened again in between. Whatever
//! happens, answers are the model's. All randomness comes from a seed that is printed.

mod model;
mod world;

use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::{Column, Role, Table};
use uuid::Uuid;

use crate::limits::{DAY_US, HOUR_US};
use crate::{Filter, Having, Page, Period, RollupQuery, RollupStore, StoreError};
pub use model::Model;
use model::answered;
pub use world::Value;
use world::{DAYS, Random, START_US, Tick, dimension, from_batch, ticks};

/// A place where a store keeps its data.
pub trait Backend {
    /// The store.
    type Store: RollupStore;

    /// Opens it: empty the first time, then with what was durable when the one before was dropped.
    fn open(&self) -> impl Future<Output = Self::Store>;

    /// Lets the store do all the maintenance that it does from time to time; `now_us` is the time, microseconds.
    fn settle(&self, store: &Self::Store, now_us: i64) -> impl Future<Output = ()>;
}

/// Runs every test, each on a place of its own.
///
/// # Panics
/// If the store does not conform.
pub async fn run<B: Backend>(fresh: impl Fn() -> B, seed: u64) {
    println!("conformance seed {seed}");
    answers_like_the_model(&fresh(), seed).await;
    converges_after_every_reopening(&fresh(), seed).await;
    replay_into_a_full_store_changes_nothing(&fresh(), seed).await;
    refuses_what_cannot_be_right(&fresh()).await;
    watermark_never_goes_back(&fresh(), seed).await;
}

/// In order, with repetitions, splits and stale emissions, and maintenance in between.
async fn answers_like_the_model<B: Backend>(backend: &B, seed: u64) {
    let mut random = Random(seed);
    let (store, mut model) = (backend.open().await, Model::default());
    let ticks = ticks(&mut random);
    for (at, tick) in ticks.iter().enumerate() {
        model.upsert(tick);
        if random.one_in(2) {
            upsert(&store, tick).await;
        } else {
            for part in tick.split(&mut random) {
                upsert(&store, &part).await;
            }
        }
        if random.one_in(3) {
            upsert(&store, &ticks[random.below(at as u64 + 1) as usize]).await;
        }
        if random.one_in(4) {
            backend.settle(&store, now_us(tick)).await;
        }
        if at % 4 == 3 {
            compare(&store, &model, &mut random, 3).await;
        }
    }
    compare(&store, &model, &mut random, 25).await;
    backend.settle(&store, START_US + DAYS * DAY_US).await;
    compare(&store, &model, &mut random, 25).await;
}

/// Dropped at random moments; each time the log is folded again from where the store says.
async fn converges_after_every_reopening<B: Backend>(backend: &B, seed: u64) {
    let mut random = Random(seed ^ 1);
    let (mut store, mut model) = (backend.open().await, Model::default());
    let ticks = ticks(&mut random);
    for (at, tick) in ticks.iter().enumerate() {
        model.upsert(tick);
        upsert(&store, tick).await;
        if random.one_in(3) {
            backend.settle(&store, now_us(tick)).await;
        }
        if random.one_in(4) {
            drop(store);
            store = backend.open().await;
            let positions = store.resume_positions().await.expect("positions are readable");
            for tick in &ticks[..=at] {
                upsert(&store, &after(tick, &positions)).await;
            }
            compare(&store, &model, &mut random, 3).await;
        }
    }
    compare(&store, &model, &mut random, 10).await;
}

/// The offsets were lost, the log was not.
async fn replay_into_a_full_store_changes_nothing<B: Backend>(backend: &B, seed: u64) {
    let mut random = Random(seed ^ 2);
    let (store, mut model) = (backend.open().await, Model::default());
    let ticks = ticks(&mut random);
    for tick in &ticks {
        model.upsert(tick);
        upsert(&store, tick).await;
    }
    backend.settle(&store, START_US + DAYS * DAY_US).await;
    let before = store.resume_positions().await.expect("positions are readable");
    for tick in &ticks {
        upsert(&store, tick).await;
        if random.one_in(10) {
            backend.settle(&store, START_US + DAYS * DAY_US).await;
            compare(&store, &model, &mut random, 3).await;
        }
    }
    compare(&store, &model, &mut random, 10).await;
    assert_eq!(store.resume_positions().await.expect("positions are readable"), before);
}

async fn refuses_what_cannot_be_right<B: Backend>(backend: &B) {
    let store = backend.open().await;
    let good = whole(Table::Decisions);
    let wrong = [
        RollupQuery { group_by: vec!["nothing"], ..good.clone() },
        RollupQuery { group_by: vec!["flag", "flag"], ..good.clone() },
        RollupQuery { group_by: vec!["count"], ..good.clone() },
        RollupQuery { values: Some(vec![]), ..good.clone() },
        RollupQuery { period: Period::Spans([good.time_us.start, good.time_us.start]), ..good.clone() },
        RollupQuery { period: Period::Spans([good.time_us.start + 1, good.time_us.end]), ..good.clone() },
        RollupQuery { values: Some(vec!["flag"]), ..good.clone() },
        RollupQuery {
            values: Some(vec!["count"]),
            page: Some(Page { order_by: vec![("latency_us", true)], offset: 0, limit: 1 }),
            ..whole(Table::Latency)
        },
        RollupQuery { filters: vec![Filter::IdIn("reason", vec![])], ..good.clone() },
        RollupQuery { filters: vec![Filter::CodeIn("flag", vec![1])], ..good.clone() },
        RollupQuery { table: Table::Chunks, organization: Some(OrganizationId::NONE), ..good.clone() },
        RollupQuery { page: Some(Page { order_by: vec![("flag", true)], offset: 0, limit: 1 }), ..good.clone() },
        RollupQuery {
            having: Some(Having { columns: vec!["count"], contains: String::new(), or_equals: vec![] }),
            ..good.clone()
        },
    ];
    for query in wrong {
        let answer = store.query(&query).await;
        assert!(matches!(answer, Err(StoreError::Refuse(_))), "{query:?}: {answer:?}");
    }
    assert_eq!(store.query(&good).await.expect("a store without cells answers").total, 0);
}

async fn watermark_never_goes_back<B: Backend>(backend: &B, seed: u64) {
    let mut random = Random(seed ^ 3);
    let mut store = backend.open().await;
    assert_eq!(store.complete_through_us(), None);
    let ticks = ticks(&mut random);
    let mut latest = None;
    for (at, tick) in ticks.iter().enumerate() {
        upsert(&store, tick).await;
        upsert(&store, &ticks[random.below(at as u64 + 1) as usize]).await;
        let said = store.complete_through_us();
        assert!(said >= latest, "{said:?} after {latest:?}");
        assert_eq!(said, tick.positions.iter().map(|position| position.complete_through_us).min());
        latest = said;
        if random.one_in(5) {
            backend.settle(&store, now_us(tick)).await;
            drop(store);
            store = backend.open().await;
            assert!(store.complete_through_us() >= latest);
        }
    }
}

async fn upsert(store: &impl RollupStore, tick: &Tick) {
    store.upsert(tick.emission()).await.expect("the store takes good cells");
}

fn now_us(tick: &Tick) -> i64 {
    tick.positions[0].complete_through_us + 1_000_000
}

/// What a fold that starts at `positions` emits of a tick.
fn after(tick: &Tick, positions: &[crate::Position]) -> Tick {
    let from = |epoch, partition| {
        let known = positions.iter().find(|known| (known.epoch, known.partition) == (epoch, partition));
        known.map_or(0, |known| known.chunk)
    };
    let is_folded = |(table, row): &&(Table, Vec<Value>)| {
        let mut chunk = table.columns().iter().zip(row).filter(|(column, _)| column.role == Role::Chunk);
        let mut next = || chunk.next().expect("three columns name the chunk").1;
        match (next(), next(), next()) {
            (Value::U64(epoch), Value::U32(partition), Value::U64(chunk)) => *chunk >= from(*epoch, *partition),
            other => unreachable!("{other:?} names no chunk"),
        }
    };
    let moved = tick.positions.iter().filter(|position| position.chunk >= from(position.epoch, position.partition));
    Tick { cells: tick.cells.iter().filter(is_folded).cloned().collect(), positions: moved.copied().collect() }
}

/// Asks random questions of every table.
async fn compare(store: &impl RollupStore, model: &Model, random: &mut Random, questions: usize) {
    for table in Table::ALL {
        check(store, model, &whole(table)).await;
        for _ in 0..questions {
            check(store, model, &question(table, random)).await;
        }
    }
}

async fn check(store: &impl RollupStore, model: &Model, query: &RollupQuery) {
    let (mut expected, total) = model.query(query);
    let answer = store.query(query).await.unwrap_or_else(|error| panic!("{query:?}: {error}"));
    let schema = answer.batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, answered(query), "{query:?}");
    let mut rows = from_batch(&answer.batch);
    if query.page.is_none() {
        rows.sort();
        expected.sort();
    }
    assert_eq!(rows, expected, "{query:?}");
    assert_eq!(answer.total, total, "{query:?}");
}

fn whole(table: Table) -> RollupQuery {
    RollupQuery {
        table,
        organization: None,
        time_us: START_US - DAY_US..START_US + (DAYS + 1) * DAY_US,
        filters: vec![],
        group_by: vec![],
        period: Period::Whole,
        values: None,
        having: None,
        page: None,
    }
}

fn question(table: Table, random: &mut Random) -> RollupQuery {
    let dimensions: Vec<&Column> = table.columns().iter().filter(|column| column.role == Role::Dimension).collect();
    let mut query = whole(table);
    if !dimensions.is_empty() && random.one_in(2) {
        query.organization = Some(OrganizationId(Uuid::from_bytes([random.below(3) as u8; 16])));
    }
    let unit = [table.step_us(), HOUR_US, DAY_US][random.below(3) as usize].max(table.step_us());
    let mut time = || START_US + random.range(-DAY_US..(DAYS + 1) * DAY_US).div_euclid(unit) * unit;
    let (a, b) = (time(), time());
    query.time_us = a.min(b)..a.max(b);
    let second = time().max(query.time_us.start + table.step_us());
    let spans = Period::Spans([query.time_us.start, second]);
    query.period = [Period::Whole, Period::Hour, Period::Day, spans][random.below(4) as usize];
    for column in &dimensions {
        if random.one_in(3) {
            query.group_by.push(column.name);
        }
        if random.one_in(8) {
            let values: Vec<Value> = (0..random.below(3)).map(|_| dimension(column, random)).collect();
            query.filters.extend(filter(column.name, values));
        }
    }
    if random.one_in(4) {
        let values = table.columns().iter().filter(|column| !column.role.is_key() && random.one_in(2));
        query.values = Some(values.map(|column| column.name).collect()).filter(|values: &Vec<_>| !values.is_empty());
    }
    let texts = answered(&query)
        .into_iter()
        .filter(|name| table.column(name).is_some_and(|column| column.data_type() == arrow::datatypes::DataType::Utf8));
    let texts: Vec<&str> = texts.collect();
    if !texts.is_empty() && random.one_in(3) {
        let or_equals = if random.one_in(2) { vec![String::new()] } else { vec![] };
        query.having = Some(Having { columns: texts, contains: "BÖH".to_owned(), or_equals });
    }
    if random.one_in(3) {
        // All keys, so that there is one right order.
        let mut order: Vec<(&str, bool)> = answered(&query).into_iter().map(|name| (name, random.one_in(2))).collect();
        let count = order.len() as u64;
        order.rotate_left(random.below(count) as usize);
        query.page = Some(Page { order_by: order, offset: random.below(4) as usize, limit: random.below(6) as usize });
    }
    query
}

fn filter(name: &'static str, values: Vec<Value>) -> Option<Filter> {
    let mut values = values.into_iter().peekable();
    match values.peek()? {
        Value::Id(_) => {
            let id = |value| if let Value::Id(id) = value { Some(Uuid::from_bytes(id)) } else { None };
            Some(Filter::IdIn(name, values.filter_map(id).collect()))
        }
        Value::Code(_) => {
            let code = |value| if let Value::Code(code) = value { Some(code) } else { None };
            Some(Filter::CodeIn(name, values.filter_map(code).collect()))
        }
        Value::Text(text) => Some(Filter::TextIs(name, text.clone())),
        other => unreachable!("{other:?} is no dimension"),
    }
}
