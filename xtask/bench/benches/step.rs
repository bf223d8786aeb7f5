//! A whole training step of an MLP 784-400-200-10, batch 128, f32, one thread: K-FAC beside plain SGD, in turns.

use criterion::{Criterion, criterion_group, criterion_main};
use kfac_bench::rows;
use kfac_bench::step::{Contender, GROUP, Workload, row};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn steps(criterion: &mut Criterion) {
    rows::write(&[row()]).expect("the rows can be written");
    let mut group = criterion.benchmark_group(GROUP);
    group.sample_size(15);
    for contender in Contender::ALL {
        let (mut workload, mut rival) = (Workload::new(contender), Workload::new(contender.rival()));
        group.bench_function(contender.id(), |bencher| {
            bencher.iter_custom(|periods| {
                let mut total = Duration::ZERO;
                for _ in 0..periods {
                    // The rival's turn is not counted: it keeps the machine as it is for both.
                    black_box(rival.run_period());
                    let start = Instant::now();
                    black_box(workload.run_period());
                    total += start.elapsed();
                }
                total
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
