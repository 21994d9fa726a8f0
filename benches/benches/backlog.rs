//! Folding a backlog, in decisions per second of one core: the load that `benches/peers/pipeline/compare --per-call 12` counts, without Kafka and
//! without a store.
//!
//! 20 environments with 200 flags each, asked for by Zipf's law, 100,000 users each, nearly all of them seen for the first time; batches of 1,000
//! decisions in four partitions, some 100 of one partition after the other. `fold`: until the end, nothing is emitted; `emit`: every 4,000 batches all
//! that changed is, and made into columns. To profile one: `cargo bench --workspace --bench backlog -- --profile-time 10 fold` under `perf record`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flagmint_aggregator::fold::{FoldLimits, PartitionFold, Resume};
use flagmint_aggregator::limits::CHUNK_CELLS_CLICKHOUSE;
use flagmint_benches::batches;
use flagmint_benches::events::{Events, PARTITIONS};
use flagmint_log::Record;
use flagmint_schemas::batch::BatchHeader;

/// As the server has it, since what is emitted comes and goes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DECISIONS: u64 = 8_000_000;
/// Batches of one partition before those of the next.
const TURN: usize = 100;
/// Such turns of all partitions between two emissions.
const EMISSION_TURNS: usize = 10;

/// The log, by partition.
fn partitions() -> Vec<Vec<Record>> {
    let mut partitions = vec![Vec::new(); PARTITIONS as usize];
    batches::each(Events::new(DECISIONS, 12, 100_000), |append| {
        let records = &mut partitions[append.partition as usize];
        let header = BatchHeader::decode(&append.header).expect("made here");
        records.push(Record {
            partition: append.partition,
            offset: records.len() as u64,
            append_time_us: header.event_time_max_us,
            header: append.header,
            payload: append.payload,
        });
    });
    partitions
}

fn fold_all(partitions: &[Vec<Record>], emits: bool) -> u64 {
    let resume = Resume { chunk: 0, complete_through_us: i64::MIN };
    let limits = FoldLimits { chunk_cells: CHUNK_CELLS_CLICKHOUSE, ..FoldLimits::default() };
    let new = |partition| PartitionFold::new(1, partition, resume, limits);
    let mut folds: Vec<PartitionFold> = (0..PARTITIONS).map(new).collect();
    let turns = partitions.iter().map(|records| records.len().div_ceil(TURN)).max().unwrap_or_default();
    for turn in 0..turns {
        for (fold, records) in folds.iter_mut().zip(partitions) {
            let records = records.chunks(TURN).nth(turn).unwrap_or_default();
            records.iter().for_each(|record| drop(black_box(fold.fold(record))));
        }
        if emits && (turn % EMISSION_TURNS == EMISSION_TURNS - 1 || turn == turns - 1) {
            for fold in &mut folds {
                black_box(fold.emit().map(|(cells, _)| cells.to_batches()));
            }
        }
    }
    folds.iter().map(PartitionFold::next_offset).sum()
}

fn backlog(criterion: &mut Criterion) {
    let partitions = partitions();
    let mut group = criterion.benchmark_group("backlog");
    group.sample_size(10);
    group.throughput(Throughput::Elements(DECISIONS));
    for (name, emits) in [("fold", false), ("emit", true)] {
        group.bench_with_input(name, &partitions, |bencher, partitions| bencher.iter(|| fold_all(partitions, emits)));
    }
    group.finish();
}

criterion_group!(benches, backlog);
criterion_main!(benches);
