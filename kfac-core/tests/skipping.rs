//! Bases that are kept while they are good enough.

mod common;

use common::dense::{Matrix, assert_close};
use common::{Room, factor, random};
use kfac_core::error::SettingError;
use kfac_core::evidence::{OutputGradients, Rows};
use kfac_core::linalg::eigh::{self, Eigensolver, Jacobi, Qr};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, Shifted, Skipping};
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;
use kfac_core::{LayerShape, Preconditioner};

const SHAPE: LayerShape = LayerShape::dense(5, 4);
const NET: [LayerShape; 1] = [SHAPE];
const CASES: usize = 9;
const LAMBDA: f64 = 0.02;
/// Flops of the two tests.
const TESTS: u64 = 4 * (6 * 6 * 6 + 4 * 4 * 4);

/// One batch, of which a share of `change` is new.
fn observe<M: FactorMap<f64>, K: Kernel<f64>>(
    kfac: &mut Preconditioner<'_, f64, M, K>,
    change: f64,
    scratch: &mut [f64],
) {
    let mixed = |len: usize, seed: u64| -> Vec<f64> {
        let (old, new): (Vec<f64>, Vec<f64>) = (random(len, seed), random(len, seed + 10));
        old.iter().zip(new).map(|(old, new)| old + change * (new - old)).collect()
    };
    let (a, g) = (mixed(CASES * 5, 1), mixed(CASES * 4, 2));
    let [a, g] = [(&a, 5), (&g, 4)].map(|(x, width)| MatRef::row_major(x, CASES, width).unwrap());
    kfac.observe(CASES).add(0, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
}

fn u<M: FactorMap<f64>, K: Kernel<f64>>(
    kfac: &mut Preconditioner<'_, f64, M, K>,
    scratch: &mut [f64],
) -> Vec<f64> {
    let mut u = random(SHAPE.weights(), 50);
    kfac.precondition_flat(&mut u, scratch).unwrap();
    u
}

fn eigenvectors(factor: &Matrix) -> Matrix {
    let n = factor.rows;
    let (mut q, mut d) = (vec![0.0; n * n], vec![0.0; n]);
    let scratch = &mut vec![0.0; eigh::qr::scratch_len::<f64>(n)];
    let a = MatRef::row_major(&factor.data, n, n).unwrap();
    Qr.cold(Reproducible, a, MatMut::row_major(&mut q, n, n).unwrap(), &mut d, scratch).unwrap();
    Matrix::new(n, n, q)
}

/// `Q diag(QᵀAQ) Qᵀ`.
fn diagonal_in(q: &Matrix, a: &Matrix) -> Matrix {
    let column = |j: usize| (0..q.rows).map(|i| q.at(i, j)).collect::<Vec<f64>>();
    let mut sum = Matrix::zeros(a.rows, a.rows);
    for j in 0..a.rows {
        let q = column(j);
        let rayleigh: f64 = q.iter().zip(a.times(&q)).map(|(x, y)| x * y).sum();
        sum.add_outer(rayleigh, &q, &q);
    }
    sum
}

fn kept_up_to_the_tolerance<S: Eigensolver, K: Kernel<f64>>(solver: S, kernel: K) {
    let map = Eigenbasis { solver: Skipping::new(solver, 0.05).unwrap() };
    let mut room = Room::new::<Eigenbasis<Skipping<S>>, K>(&NET);
    let (kfac, scratch) = room.precondition(&NET, map, kernel);
    let mut kfac = kfac.with_decay(0.0).unwrap();
    kfac.set_damping(LAMBDA).unwrap();
    observe(&mut kfac, 0.0, scratch);
    let cold = kfac.refresh(scratch).unwrap();
    assert_eq!((cold.units, cold.kept), (2, 0), "there is nothing to keep yet");
    let bases = Side::BOTH.map(|side| eigenvectors(&factor(&kfac, 0, side)));

    // The same factors, and factors a little off: their diagonals in the old bases are the eigenvalues.
    for change in [0.0, 0.01] {
        observe(&mut kfac, change, scratch);
        let report = kfac.refresh(scratch).unwrap();
        assert_eq!((report.units, report.kept, report.sweeps, report.flops), (2, 2, 0, TESTS), "{change}");
        assert_eq!(kfac.layer_report(0).unwrap().age, Some(0));
        let [a, g] = Side::BOTH.map(|side| diagonal_in(&bases[side.index()], &factor(&kfac, 0, side)));
        let v = Matrix::new(4, 6, random(24, 50));
        let want = a.kron(&g).shifted(LAMBDA).solve(&v.column_stacked());
        let want = Matrix::from_column_stacked(4, &want).data;
        assert_close(&format!("change of {change}"), &u(&mut kfac, scratch), &want, 1e-12);
    }

    // Factors far off are decomposed.
    observe(&mut kfac, 0.5, scratch);
    let report = kfac.refresh(scratch).unwrap();
    assert_eq!((report.units, report.kept), (2, 0));
    assert!(report.flops > TESTS);
    let [a, g] = Side::BOTH.map(|side| factor(&kfac, 0, side));
    let want = a.kron(&g).shifted(LAMBDA).solve(&Matrix::new(4, 6, random(24, 50)).column_stacked());
    assert_close("decomposed", &u(&mut kfac, scratch), &Matrix::from_column_stacked(4, &want).data, 1e-12);
}

#[test]
fn a_basis_is_kept_up_to_the_tolerance_and_its_eigenvalues_are_renewed() {
    kept_up_to_the_tolerance(Qr, Reproducible);
    kept_up_to_the_tolerance(Qr, Fast::detect());
    kept_up_to_the_tolerance(Jacobi::default(), Reproducible);
}

/// `‖QᵀAQ - diag‖ / ‖QᵀAQ‖`: the norm of `A - Q diag(QᵀAQ) Qᵀ` as a share of that of `A`.
fn residual(q: &Matrix, a: &Matrix) -> f64 {
    let (kept, norm) = (diagonal_in(q, a), |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt());
    let difference: Vec<f64> = a.data.iter().zip(&kept.data).map(|(a, kept)| a - kept).collect();
    norm(&difference) / norm(&a.data)
}

#[test]
fn the_tolerance_is_a_share_of_the_frobenius_norm() {
    for tolerance in [0.04, 0.1, 0.3] {
        let map = Eigenbasis { solver: Skipping::new(Qr, tolerance).unwrap() };
        let mut seen = [0, 0];
        for step in 1..40 {
            let mut room = Room::new::<Eigenbasis<Skipping<Qr>>, Reproducible>(&NET);
            let (kfac, scratch) = room.precondition(&NET, map, Reproducible);
            let mut kfac = kfac.with_decay(0.0).unwrap();
            observe(&mut kfac, 0.0, scratch);
            kfac.refresh(scratch).unwrap();
            let bases = Side::BOTH.map(|side| eigenvectors(&factor(&kfac, 0, side)));
            observe(&mut kfac, 0.02 * f64::from(step), scratch);
            let residuals = Side::BOTH.map(|side| residual(&bases[side.index()], &factor(&kfac, 0, side)));
            let kept = residuals.into_iter().filter(|&residual| residual <= tolerance).count();
            assert_eq!(kfac.refresh(scratch).unwrap().kept as usize, kept, "{residuals:?} at {tolerance}");
            seen[0] += kept;
            seen[1] += 2 - kept;
        }
        assert!(seen.iter().all(|&count| count >= 4), "{seen:?} at {tolerance}");
    }
}

/// The larger side of `Shifted` is always reduced anew.
#[test]
fn shifted_keeps_the_basis_of_the_smaller_side() {
    let map = Shifted { solver: Skipping::new(Qr, 0.05).unwrap() };
    let mut room = Room::new::<Shifted<Skipping<Qr>>, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
    observe(&mut kfac, 0.0, scratch);
    kfac.refresh(scratch).unwrap();
    let report = kfac.refresh(scratch).unwrap();
    assert_eq!((report.units, report.kept), (2, 1));
}

/// Second moments in bases that are kept go on; where one basis is new, they begin anew.
#[test]
fn ekfac_goes_on_in_bases_that_are_kept() {
    let run = |map: Ekfac<Skipping<Qr>>, refreshes: &[bool]| -> Vec<f64> {
        let mut room = Room::new::<Ekfac<Skipping<Qr>>, Reproducible>(&NET);
        let (kfac, scratch) = room.precondition(&NET, map, Reproducible);
        let schedule = Schedule { statistics_every: 1, refresh_every: 1 };
        let mut kfac = kfac.with_schedule(schedule).unwrap();
        kfac.set_damping(LAMBDA).unwrap();
        for (step, &refreshes) in refreshes.iter().enumerate() {
            observe(&mut kfac, 0.01 * step as f64, scratch);
            if refreshes {
                kfac.refresh(scratch).unwrap();
            }
        }
        u(&mut kfac, scratch)
    };
    let keeping = Ekfac { solver: Skipping::new(Qr, 0.2).unwrap() };
    let never = Ekfac { solver: Skipping::new(Qr, 0.0).unwrap() };
    let once = run(keeping, &[true, false, false]);
    assert_eq!(run(keeping, &[true, true, true]), once);
    assert_ne!(run(never, &[true, true, true]), once);
}

#[test]
fn tolerances_out_of_range_are_refused() {
    for tolerance in [-0.1, 1.0, f64::INFINITY] {
        let refused = Skipping::new(Qr, tolerance).err();
        assert_eq!(refused, Some(SettingError { setting: "tolerance", value: tolerance }));
    }
    assert!(Skipping::new(Qr, f64::NAN).is_err());
}
