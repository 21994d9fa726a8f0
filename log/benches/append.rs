//! How fast the local log takes frames of 32 kB: one fdatasync per frame against group commit.
//!
//! `cargo bench -p flagmint-log` prints time per frame, frames/s and MiB/s for the disk that holds the temporary directory.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flagmint_log::{Append, DecisionLog, LocalLog, Options};
use futures::future::try_join_all;
use tokio::runtime::Runtime;

/// About 1000 to 8000 decisions as an Arrow batch.
const FRAME_BYTES: usize = 32 << 10;

fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let payload = Bytes::from(vec![0xa5; FRAME_BYTES]);
    let mut group = criterion.benchmark_group("append_32kB");
    for in_flight in [1_usize, 8, 32, 256] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut options = Options::new(directory.path(), 1);
        if in_flight == 1 {
            // Alone there is nobody to wait for: this measures the bare write and fdatasync.
            options.group_linger = std::time::Duration::ZERO;
        }
        let log = LocalLog::open(options).expect("open");
        group.throughput(Throughput::Bytes((in_flight * FRAME_BYTES) as u64));
        group.bench_function(BenchmarkId::new("in_flight", in_flight), |bencher| {
            bencher.iter(|| {
                let append = || log.append(Append { partition: 0, header: Bytes::new(), payload: payload.clone() });
                let offsets = runtime.block_on(try_join_all((0..in_flight).map(|_| append()))).expect("append");
                // Keeps the disk from filling up while measuring.
                if offsets[0] % 8192 < in_flight as u64 {
                    runtime.block_on(log.trim(i64::MAX, &[offsets[0]])).expect("trim");
                }
            });
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    const FRAMES: u64 = 1024;
    let runtime = Runtime::new().expect("runtime");
    let directory = tempfile::tempdir().expect("temporary directory");
    let log = LocalLog::open(Options::new(directory.path(), 1)).expect("open");
    let payload = Bytes::from(vec![0xa5; FRAME_BYTES]);
    let append = |_| log.append(Append { partition: 0, header: Bytes::new(), payload: payload.clone() });
    runtime.block_on(try_join_all((0..FRAMES).map(append))).expect("append");
    let mut group = criterion.benchmark_group("read_32kB");
    group.throughput(Throughput::Bytes(FRAMES * FRAME_BYTES as u64));
    group.bench_function("pages_of_1MiB", |bencher| {
        bencher.iter(|| {
            let mut next = 0;
            while next < FRAMES {
                next += runtime.block_on(log.read(0, next, 1 << 20)).expect("read").len() as u64;
            }
        });
    });
    group.finish();
}

/// Opening a log whose last segment is full: the most recovery ever has to read of one partition.
fn recover(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = || LocalLog::open(Options::new(directory.path(), 1)).expect("open");
    let log = open();
    let payload = Bytes::from(vec![0xa5; FRAME_BYTES]);
    let append = |_| log.append(Append { partition: 0, header: Bytes::new(), payload: payload.clone() });
    runtime.block_on(try_join_all((0..2000).map(append))).expect("append");
    drop(log);
    criterion.bench_function("open_with_64MiB_segment", |bencher| bencher.iter(|| drop(open())));
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = append, read, recover }
criterion_main!(benches);
