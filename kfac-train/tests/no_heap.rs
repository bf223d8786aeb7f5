//! No heap in the steady state: once a batch size has been seen, a whole step (drawing the batch, all passes,
//! statistics, refresh, update) allocates nothing, as a counting allocator sees it.
//!
//! This holds under both kernels, but for `Fast` where it takes its products from the `matrixmultiply` crate (no vector
//! instructions of our own), which allocates a packing buffer in every product.

use kfac_train::data::adding::Adding;
use kfac_train::data::{Batch, Sampled, Source, digits};
use kfac_train::kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_train::kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_train::kfac_core::schedule::Schedule;
use kfac_train::kfac_core::step::{KlClip, StepBound};
use kfac_train::kfac_linalg::{Fast, Kernel, Reproducible};
use kfac_train::layer::Nonlinearity;
use kfac_train::model::{ConvolutionStage, Init, Network, autoencoder, cnn, rnn};
use kfac_train::optimizer::{
    Adam, AdamSettings, IterateAverage, Kfac, KfacSettings, MapChoice, Optimizer, Sgd, SgdSettings, StepRule,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a thread-local cell that
// needs neither allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `body` returns, and the allocations of this thread meanwhile.
fn allocations_of<R>(body: impl FnOnce() -> R) -> (R, usize) {
    let before = ALLOCATIONS.get();
    let result = body();
    (result, ALLOCATIONS.get() - before)
}

type Net<K> = Network<f64, K>;

/// What is done with a network, under its name and beside its data.
type Run<'a, K> = &'a mut dyn FnMut(&str, Net<K>, &mut dyn Source<f64>);

/// Every kind of network with its data: dense, convolutional, recurrent.
fn tasks<K: Kernel<f64>>(kernel: K, run: Run<'_, K>) {
    let network = autoencoder(&[64, 12, 3], Nonlinearity::Tanh, kernel).unwrap();
    run("autoencoder", network, &mut Sampled::new(&digits::load().autoencoding(), 1).unwrap());
    let stages = [(2, 2), (3, 2)].map(|(channels, stride)| ConvolutionStage { channels, stride });
    let network = cnn(8, &stages, 10, kernel).unwrap();
    run("convolutional net", network, &mut Sampled::new(&digits::load(), 1).unwrap());
    let network = rnn(2, 6, 5, kernel).unwrap();
    run("recurrent net", network, &mut Adding::new(5, 1).unwrap());
}

/// Every optimizer by name: both baselines, both maps under both rules.
fn optimizers<K: Kernel<f64> + 'static>(network: &Net<K>) -> Vec<(String, Box<dyn Optimizer<f64, K>>)> {
    let sgd = Sgd::new(SgdSettings { rate: 0.01, momentum: 0.9, clip: 1.0 }).unwrap();
    let mut all: Vec<(String, Box<dyn Optimizer<f64, K>>)> = vec![
        ("SGD".to_owned(), Box::new(sgd)),
        ("Adam".to_owned(), Box::new(Adam::new(AdamSettings::at_rate(0.01)).unwrap())),
    ];
    let damping = LevenbergMarquardt::new(0.1, AdaptationRule::recurrent()).unwrap();
    let clip = ClippedStep { rate: 0.1, clip: KlClip::new(0.1).unwrap() };
    let rules = [
        ("clipped", StepRule::Clipped { step: clip, momentum: 0.9, damping: 0.1 }),
        ("adaptive", StepRule::Adaptive(AdaptiveStep::new(damping).with_bound(StepBound::recurrent()))),
    ];
    for map in MapChoice::ALL {
        for (name, rule) in rules {
            let schedule = Schedule { statistics_every: 2, refresh_every: 3 };
            let settings = KfacSettings { map, schedule, decay: 0.95, l2: 1e-4, rule, seed: 1 };
            all.push((format!("K-FAC {map:?} {name}"), Box::new(Kfac::new(network, settings).unwrap())));
        }
    }
    all
}

/// One step and what surrounds it.
fn step<K: Kernel<f64>>(
    (network, weights): (&mut Net<K>, &mut [f64]),
    (source, cases, batch): (&mut dyn Source<f64>, usize, &mut Batch<f64>),
    optimizer: &mut dyn Optimizer<f64, K>,
    average: &mut IterateAverage<f64>,
) {
    source.next_batch(cases, batch);
    optimizer.step(network, weights, batch).unwrap();
    average.add(weights);
    assert_eq!(average.mean().len(), weights.len());
}

#[test]
fn the_counter_counts() {
    let (vector, allocations) = allocations_of(|| vec![1, 2, 3]);
    assert_eq!((vector.len(), allocations), (3, 1));
}

#[test]
fn a_whole_step_of_every_optimizer_on_every_kind_of_network_allocates_nothing() {
    no_step_allocates(Reproducible);
    if Fast::detect().instructions().is_fused() {
        no_step_allocates(Fast::detect());
    }
}

fn no_step_allocates<K: Kernel<f64> + 'static>(kernel: K) {
    tasks(kernel, &mut |name, mut network, source| {
        for (optimizer_name, mut optimizer) in optimizers(&network) {
            let mut weights = network.initial_weights(1, |_| Init::ScaledNormal).unwrap();
            let (mut batch, mut average) = (Batch::default(), IterateAverage::new(0.9).unwrap());
            // Two steps: an adaptive bound looks back from the second one on.
            for _ in 0..2 {
                step((&mut network, &mut weights), (source, 20, &mut batch), &mut *optimizer, &mut average);
            }
            // Six steps: every part of the schedule; smaller batches fit into the same buffers.
            for cases in [20, 7, 20, 1, 20, 20] {
                let ((), allocations) = allocations_of(|| {
                    step(
                        (&mut network, &mut weights),
                        (source, cases, &mut batch),
                        &mut *optimizer,
                        &mut average,
                    );
                });
                assert_eq!(allocations, 0, "{optimizer_name} on a {name}, {cases} cases");
            }
        }
    });
}
