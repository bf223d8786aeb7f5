//! Factors that no second moment has: the last good inverse stays in force, the failure is counted, the third in a row
//! is returned.

mod common;

use common::run::{CASES, Evidence, NET};
use common::{Room, bits, random};
use kfac_core::damping::split::DampingError;
use kfac_core::evidence::Moments;
use kfac_core::linalg::cholesky::CholeskyError;
use kfac_core::linalg::eigh::Jacobi;
use kfac_core::linalg::eigh::jacobi::Budget;
use kfac_core::linalg::{MatMut, MatRef, Reproducible};
use kfac_core::map::{Eigenbasis, Factored, MapError};
use kfac_core::shape::Side;
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, LayerShape, Preconditioner};

/// Layers 0 and 2 are fine; layer 1 gets an indefinite `G`, taken whole (decay 0).
struct Indefinite<'r> {
    kfac: Preconditioner<'r, f64, Factored, Reproducible>,
    scratch: &'r mut [f64],
}

impl Indefinite<'_> {
    fn observe(&mut self, g: [f64; 5]) {
        let mut a = vec![0.0; 9];
        a.iter_mut().step_by(4).for_each(|x| *x = 1.0);
        let mut moment = vec![0.0; 25];
        moment.iter_mut().step_by(6).zip(g).for_each(|(x, g)| *x = g);
        let [a, g] = [(&a, 3), (&moment, 5)].map(|(x, size)| MatRef::row_major(x, size, size).unwrap());
        let mut observation = self.kfac.observe(CASES);
        observation.add_moments(1, Moments { a, g, positions: 1.0 }, self.scratch).unwrap();
        for layer in [0, 2] {
            Evidence::at(0, layer).add(&mut observation, layer, self.scratch).unwrap();
        }
    }

    /// `U` of layer 1.
    fn u(&mut self) -> (Vec<u64>, usize) {
        let mut u = random(15, 9);
        let gradient = LayerGradient::joint(1, MatMut::row_major(&mut u, 5, 3).unwrap());
        let report = self.kfac.precondition(&mut [gradient], self.scratch).unwrap();
        (bits(&u), report.stale_layers)
    }

    fn failures(&self) -> u8 {
        self.kfac.layer_report(1).unwrap().failures
    }
}

const GOOD: [f64; 5] = [1.0, 2.0, 1.0, 3.0, 1.0];
/// `Ĝ = G + 0.3 I` or so: pivot 3 is the first that is negative.
const BAD: [f64; 5] = [1.0, 2.0, 1.0, -3.0, 1.0];

#[test]
fn a_factor_that_is_not_positive_definite_keeps_the_last_inverse_and_is_returned_the_third_time() {
    let mut room = Room::new::<Factored, Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let mut layer = Indefinite { kfac: kfac.with_decay(0.0).unwrap(), scratch };
    layer.observe(GOOD);
    layer.kfac.refresh(layer.scratch).unwrap();
    let (good, stale) = layer.u();
    assert_eq!(stale, 0);

    layer.observe(BAD);
    for failures in 1..=2 {
        let report = layer.kfac.refresh(layer.scratch).unwrap();
        assert_eq!((report.failures, report.units), (1, 2));
        assert_eq!(layer.failures(), failures);
        assert_eq!(layer.u(), (good.clone(), 1), "after {failures} failures");
    }
    let LayerError { layer: 1, kind: LayerErrorKind::ThirdFailure(error) } =
        layer.kfac.refresh(layer.scratch).unwrap_err()
    else {
        panic!("layer 1 failed for the third time")
    };
    let MapError::Inverse {
        side: Side::Output,
        error: CholeskyError::NotPositiveDefinite { pivot: 3, value },
    } = error
    else {
        panic!("{error}")
    };
    // Trace 2 of 5 rows against 3 of 3: √λ/π = √0.1 √0.4.
    assert!((value - (-3.0 + (0.1_f64 * 0.4).sqrt())).abs() < 1e-12, "{value}");
    // The other layers were renewed all the same, and the last good inverse stays in force.
    assert_eq!(layer.u(), (good.clone(), 1));
    assert_eq!([0, 1, 2].map(|l| layer.kfac.layer_report(l).unwrap().age), [Some(0), Some(3), Some(0)]);
    // It is returned again until it succeeds.
    assert!(layer.kfac.refresh(layer.scratch).is_err());

    layer.observe(GOOD);
    layer.kfac.refresh(layer.scratch).unwrap();
    assert_eq!((layer.failures(), layer.u()), (0, (good, 0)));
    layer.observe(BAD);
    assert_eq!(layer.kfac.refresh(layer.scratch).unwrap().failures, 1);
    assert_eq!(layer.failures(), 1);
}

#[test]
fn a_negative_trace_is_refused_by_name() {
    let mut room = Room::new::<Factored, Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let mut layer = Indefinite { kfac: kfac.with_decay(0.0).unwrap(), scratch };
    layer.observe([1.0, 1.0, 1.0, -4.0, 0.5]);
    let error = (0..3).find_map(|_| layer.kfac.refresh(layer.scratch).err()).unwrap();
    let kind = LayerErrorKind::ThirdFailure(MapError::Damping(DampingError::Trace(-0.5)));
    assert_eq!(error, LayerError { layer: 1, kind });
}

/// Rounding makes such eigenvalues; what is left of them in the damped system is the damping.
#[test]
fn negative_eigenvalues_count_as_zero() {
    let net = [LayerShape::dense(1, 2).without_bias()];
    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Eigenbasis::full(), Reproducible);
    let (a, g) = ([2.0], [1.5, 0.0, 0.0, -0.5]);
    let [a, g] = [(&a[..], 1), (&g, 2)].map(|(x, size)| MatRef::row_major(x, size, size).unwrap());
    kfac.observe(1).add_moments(0, Moments { a, g, positions: 1.0 }, scratch).unwrap();
    kfac.set_damping(0.25).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u = [1.0, 1.0];
    kfac.precondition_flat(&mut u, scratch).unwrap();
    assert_eq!(u, [1.0 / (2.0 * 1.5 + 0.25), 1.0 / 0.25]);
}

/// Where each side is a unit of its own, the success of one does not excuse the other.
#[test]
fn a_side_that_fails_three_times_is_returned_though_the_other_side_succeeds() {
    // One sweep, and nothing but convergence is accepted: a full matrix fails, a diagonal one does not.
    let map = Eigenbasis { solver: Jacobi { budget: Budget { sweeps: 1, tolerance: 0.5, accept: 0.0 } } };
    let net = [LayerShape::dense(5, 2).without_bias()];
    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
    let rows: Vec<f64> = random(8 * 5, 1);
    let mut full = vec![0.0; 25];
    for (at, x) in full.iter_mut().enumerate() {
        *x = rows.chunks(5).map(|row| row[at / 5] * row[at % 5]).sum();
    }
    let diagonal = [1.0, 0.0, 0.0, 2.0];
    let a = MatRef::row_major(&full, 5, 5).unwrap();
    let g = MatRef::row_major(&diagonal, 2, 2).unwrap();
    kfac.observe(1).add_moments(0, Moments { a, g, positions: 1.0 }, scratch).unwrap();
    for failures in 1..=2 {
        let report = kfac.refresh(scratch).unwrap();
        assert_eq!((report.units, report.failures), (1, 1));
        assert_eq!(kfac.layer_report(0).unwrap().failures, failures);
    }
    let error = kfac.refresh(scratch).unwrap_err();
    let LayerErrorKind::ThirdFailure(MapError::Eigh { side: Side::Input, .. }) = error.kind else {
        panic!("{error}")
    };
}
