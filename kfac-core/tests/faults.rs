//! Faults at every step of a run of thirty, in every layer, in `a`, `g` and `V`: the ten steps after each are equal to the bit
//! to those of a run in which that one call was not made.

mod common;

use common::bad::{Body, for_every_map, infinity, nan};
use common::run::{self, CASES, Evidence, Mark, NET};
use common::{Room, saved};
use kfac_core::error::Quantity;
use kfac_core::linalg::{Reproducible, Scalar};
use kfac_core::map::FactorMap;
use kfac_core::schedule::Schedule;
use kfac_core::{LayerErrorKind, Preconditioner};

const STEPS: usize = 30;
const AFTER: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Inputs,
    OutputGradients,
    Gradient,
}

/// A run whose state can be put back.
struct Run<'r, T, M: FactorMap<T>>
where
    T: Scalar,
{
    kfac: Preconditioner<'r, T, M, Reproducible>,
    scratch: &'r mut [T],
}

impl<T: Scalar, M: FactorMap<T>> Run<'_, T, M> {
    /// One step in which something is wrong in `layer`, or, if it is not `called`, what would be wrong is left out.
    fn faulty_step(&mut self, step: usize, layer: usize, fault: Fault, called: bool) {
        let Self { kfac, scratch } = self;
        let mut spoilt = Evidence::<T>::at(step, layer);
        let at = spoilt.shape.features() * (CASES - 1);
        match fault {
            Fault::Inputs => spoilt.inputs[at] = nan(),
            Fault::OutputGradients => spoilt.gradients[step % spoilt.shape.outputs()] = infinity(),
            Fault::Gradient => (),
        }
        if kfac.wants_statistics() {
            let mut observation = kfac.observe(CASES);
            for other in 0..NET.len() {
                if other != layer || fault == Fault::Gradient {
                    Evidence::at(step, other).add(&mut observation, other, scratch).unwrap();
                } else if called {
                    let error = spoilt.add(&mut observation, layer, scratch).unwrap_err();
                    assert!(matches!(error.kind, LayerErrorKind::NotFinite { .. }), "{error}");
                    assert_eq!(error.layer, layer);
                }
            }
        }
        kfac.set_damping(T::from_f64(0.1 / (1 + step) as f64)).unwrap();
        kfac.refresh(scratch).unwrap();
        if called && fault == Fault::Gradient && run::has_all_inverses(kfac) {
            let mut v = run::gradients::<T>(step);
            let before: usize = NET[..layer].iter().map(|shape| shape.weights()).sum();
            v[before + step % NET[layer].weights()] = nan();
            let kept: Vec<u64> = common::bits(&v);
            let error = kfac.precondition_flat(&mut v, scratch).unwrap_err();
            assert!(
                matches!(error.kind, LayerErrorKind::NotFinite { quantity: Quantity::Gradient, .. }),
                "{error}"
            );
            assert_eq!((error.layer, common::bits(&v)), (layer, kept));
        }
    }

    fn steps_after(&mut self, step: usize) -> Vec<Mark> {
        (1..=AFTER).map(|after| run::step(&mut self.kfac, step + after, self.scratch)).collect()
    }
}

struct Injected(Schedule);

impl Body for Injected {
    fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
        let mut rooms = [(); 3].map(|()| Room::<T>::new::<M, Reproducible>(&NET));
        let [mut whole, mut faulty, mut without] = rooms.each_mut().map(|room| {
            let (kfac, scratch) = room.precondition(&NET, map, Reproducible);
            Run { kfac: kfac.with_schedule(self.0).unwrap(), scratch }
        });
        for step in 0..STEPS {
            let start = saved(&whole.kfac);
            for layer in 0..NET.len() {
                for fault in [Fault::Inputs, Fault::OutputGradients, Fault::Gradient] {
                    for (run, called) in [(&mut faulty, true), (&mut without, false)] {
                        run.kfac.verify(&start).unwrap().restore();
                        run.faulty_step(step, layer, fault, called);
                    }
                    let what = format!("{}: {fault:?} in layer {layer} at step {step}", M::NAME);
                    assert_eq!(saved(&faulty.kfac), saved(&without.kfac), "{what}");
                    assert!(faulty.steps_after(step) == without.steps_after(step), "{what}");
                }
            }
            run::step(&mut whole.kfac, step, whole.scratch);
        }
    }
}

#[test]
fn a_fault_leaves_no_trace_with_everything_at_every_step() {
    for_every_map(&Injected(Schedule::EVERY_STEP));
}

#[test]
fn a_fault_leaves_no_trace_with_statistics_and_refreshes_dealt_over_steps() {
    for_every_map(&Injected(Schedule { statistics_every: 2, refresh_every: 3 }));
}
