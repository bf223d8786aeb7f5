//! Forgetting: after a shift of the data the next statistic is taken whole, and nothing breaks before.

mod common;

use common::run::{self, NET};
use common::{Room, bits, saved};
use kfac_core::linalg::{Reproducible, Scalar};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, Factored, Shifted};

fn checked<T: Scalar, M: FactorMap<T>>(map: M) {
    let mut room = Room::<T>::new::<M, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
    for step in 0..4 {
        run::step(&mut kfac, step, scratch);
    }
    let u = |kfac: &mut kfac_core::Preconditioner<'_, T, M, _>, scratch: &mut [T]| {
        let mut u = run::gradients(50);
        kfac.precondition_flat(&mut u, scratch).unwrap();
        bits(&u)
    };
    let before = u(&mut kfac, scratch);
    kfac.forget();
    let report = kfac.refresh(scratch).unwrap();
    assert_eq!((report.units, report.failures), (0, 0), "{}", M::NAME);
    assert!(report.without_statistics > 0 && kfac.is_ready());
    assert_eq!(u(&mut kfac, scratch), before, "{}: the inverse stays in force", M::NAME);

    // What is to be forgotten survives a save.
    let bytes = saved(&kfac);
    let mut room = Room::<T>::new::<M, Reproducible>(&NET);
    let (mut resumed, other) = room.precondition(&NET, map, Reproducible);
    resumed.verify(&bytes).unwrap().restore();
    assert_eq!(saved(&resumed), bytes);

    let mut room = Room::<T>::new::<M, Reproducible>(&NET);
    let (mut fresh, space) = room.precondition(&NET, map, Reproducible);
    for step in [9, 10] {
        let want = run::step(&mut fresh, step, space).u;
        assert_ne!(want, before);
        assert_eq!(run::step(&mut kfac, step, scratch).u, want, "{} at {step}", M::NAME);
        assert_eq!(run::step(&mut resumed, step, other).u, want, "{} at {step}", M::NAME);
    }
}

#[test]
fn what_is_forgotten_leaves_no_trace_once_new_statistics_are_there() {
    checked::<f64, _>(Factored);
    checked::<f32, _>(Factored);
    checked::<f64, _>(Eigenbasis::full());
    checked::<f64, _>(Shifted::full());
    checked::<f64, _>(Ekfac::full());
    checked::<f32, _>(Ekfac::full());
}
