//! The Laplace posterior against its dense precision matrix.

mod common;

use common::dense::{Matrix, assert_close, dot};
use common::{Room, factor, random};
use kfac_core::error::{Quantity, SettingError};
use kfac_core::evidence::{OutputGradients, Rows};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, SpectralMap};
use kfac_core::posterior::Posterior;
use kfac_core::shape::Side;
use kfac_core::{LayerErrorKind, LayerShape, Preconditioner};

const NET: [LayerShape; 2] = [LayerShape::dense(3, 2), LayerShape::dense(2, 5).without_bias()];
/// The layer that is looked at.
const LAYER: usize = 1;
const SHAPE: LayerShape = NET[LAYER];
const CASES: f64 = 120.0;
const PRIOR: f64 = 0.7;

fn observe<M: FactorMap<f64>, K: Kernel<f64>>(
    kfac: &mut Preconditioner<'_, f64, M, K>,
    seed: u64,
    scratch: &mut [f64],
) {
    let (a, mut g) = (random(7 * SHAPE.features(), seed), random(7 * SHAPE.outputs(), seed + 1));
    g.iter_mut().for_each(|g: &mut f64| *g *= 10.0);
    let a = MatRef::row_major(&a, 7, SHAPE.features()).unwrap();
    let g = MatRef::row_major(&g, 7, SHAPE.outputs()).unwrap();
    kfac.observe(7).add(LAYER, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
}

/// `N F + τ I`, column by column, from a preconditioner that divides by `F + τ/N I`.
fn precision<M: FactorMap<f64>, K: Kernel<f64>>(
    kfac: &mut Preconditioner<'_, f64, M, K>,
    scratch: &mut [f64],
) -> Matrix {
    let size = SHAPE.weights();
    kfac.set_damping(PRIOR / CASES).unwrap();
    let mut inverse = Matrix::zeros(size, size);
    for column in 0..size {
        let mut v = vec![0.0; size];
        v[column] = 1.0;
        let v_view = kfac_core::linalg::MatMut::row_major(&mut v, SHAPE.outputs(), SHAPE.inputs()).unwrap();
        kfac.precondition(&mut [kfac_core::LayerGradient::joint(LAYER, v_view)], scratch).unwrap();
        (0..size).for_each(|row| *inverse.at_mut(row, column) = v[row] / CASES);
    }
    let columns: Vec<Vec<f64>> = (0..size)
        .map(|column| {
            inverse.solve(&(0..size).map(|row| f64::from(u8::from(row == column))).collect::<Vec<_>>())
        })
        .collect();
    Matrix::from_fn(size, size, |row, column| columns[column][row])
}

/// `ln |det A|` by Gaussian elimination.
fn log_determinant(matrix: &Matrix) -> f64 {
    let (n, mut a) = (matrix.rows, matrix.clone());
    let mut sum = 0.0;
    for k in 0..n {
        sum += a.at(k, k).abs().ln();
        for i in k + 1..n {
            let ratio = a.at(i, k) / a.at(k, k);
            for j in k..n {
                *a.at_mut(i, j) -= ratio * a.at(k, j);
            }
        }
    }
    sum
}

/// Against the dense matrix in every respect.
fn agrees<M: FactorMap<f64> + SpectralMap<f64>, K: Kernel<f64>>(
    kfac: &mut Preconditioner<'_, f64, M, K>,
    precision: &Matrix,
    scratch: &mut [f64],
) {
    let size = SHAPE.weights();
    let unit = |at: usize| (0..size).map(|i| f64::from(u8::from(i == at))).collect::<Vec<f64>>();
    let mut posterior = Posterior::new(kfac, CASES, PRIOR).unwrap();
    let covariance: Vec<Vec<f64>> = (0..size).map(|at| precision.solve(&unit(at))).collect();
    let variance: f64 = (0..size).map(|at| covariance[at][at]).sum();
    let want = [log_determinant(precision), precision.trace(), variance];
    let got = [
        posterior.log_determinant(LAYER).unwrap(),
        posterior.trace(LAYER).unwrap(),
        posterior.variance(LAYER).unwrap(),
    ];
    for ((got, want), what) in got.iter().zip(&want).zip(["log determinant", "trace", "variance"]) {
        assert_close(&format!("{} {what}", M::NAME), &[*got], &[*want], 1e-12);
    }
    let v = random::<f64>(size, 77);
    let mut x = v.clone();
    posterior.solve(LAYER, &mut x, scratch).unwrap();
    assert_close("solution", &x, &precision.solve(&v), 1e-11);

    // What makes samples of standard normal numbers is a root of the covariance: S Sᵀ.
    let columns: Vec<Vec<f64>> = (0..size)
        .map(|at| {
            let mut noise = unit(at);
            posterior.sample(LAYER, &mut noise, scratch).unwrap();
            noise
        })
        .collect();
    let row = |i: usize| columns.iter().map(|column| column[i]).collect::<Vec<_>>();
    for (i, want) in covariance.iter().enumerate() {
        let got: Vec<f64> = (0..size).map(|j| dot(&row(i), &row(j))).collect();
        assert_close("covariance of the samples", &got, want, 1e-10);
    }
}

fn checked<K: Kernel<f64>>(kernel: K) {
    let mut room = Room::new::<Eigenbasis, K>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Eigenbasis::full(), kernel);
    observe(&mut kfac, 1, scratch);
    kfac.refresh(scratch).unwrap();
    let [a, g] = Side::BOTH.map(|side| factor(&kfac, LAYER, side));
    // Row-major weights: the factors the other way round.
    let dense = g.kron(&a).scaled(CASES).shifted(PRIOR);
    agrees(&mut kfac, &dense, scratch);

    let mut room = Room::new::<Ekfac, K>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Ekfac::full(), kernel);
    observe(&mut kfac, 1, scratch);
    kfac.refresh(scratch).unwrap();
    agrees(&mut kfac, &dense, scratch);
    observe(&mut kfac, 3, scratch);
    let dense = precision(&mut kfac, scratch);
    agrees(&mut kfac, &dense, scratch);
}

#[test]
fn the_posterior_is_that_of_the_dense_precision() {
    checked(Reproducible);
    checked(Fast::detect());
}

#[test]
fn what_it_cannot_do_is_refused_by_name() {
    let mut room = Room::new::<Eigenbasis, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Eigenbasis::full(), Reproducible);
    for (cases, prior, setting, value) in
        [(-1.0, 1.0, "cases", -1.0), (f64::INFINITY, 1.0, "cases", f64::INFINITY), (1.0, 0.0, "prior", 0.0)]
    {
        let found = Posterior::new(&mut kfac, cases, prior).err();
        assert_eq!(found, Some(SettingError { setting, value }));
    }
    let mut posterior = Posterior::new(&mut kfac, CASES, PRIOR).unwrap();
    assert_eq!(posterior.log_determinant(LAYER).unwrap_err().kind, LayerErrorKind::NotReady);
    assert_eq!(posterior.trace(2).unwrap_err().kind, LayerErrorKind::NoSuchLayer { layers: 2 });

    observe(&mut kfac, 1, scratch);
    kfac.refresh(scratch).unwrap();
    let mut posterior = Posterior::new(&mut kfac, CASES, PRIOR).unwrap();
    let size = SHAPE.weights();
    let mut v = vec![1.0; size];
    v[3] = f64::NAN;
    let not_finite = LayerErrorKind::NotFinite { quantity: Quantity::Gradient, row: 1, column: 1 };
    assert_eq!(posterior.solve(LAYER, &mut v, scratch).unwrap_err().kind, not_finite);
    assert!(matches!(
        posterior.sample(LAYER, &mut v[1..], scratch).unwrap_err().kind,
        LayerErrorKind::Shape { quantity: Quantity::Gradient, .. }
    ));
    v[3] = 1.0;
    let before = v.clone();
    assert!(matches!(
        posterior.solve(LAYER, &mut v, &mut scratch[..3]).unwrap_err().kind,
        LayerErrorKind::Scratch(_)
    ));
    assert_eq!(v, before);
    let mut overflowing = Posterior::new(&mut kfac, f64::MAX, PRIOR).unwrap();
    assert!(matches!(overflowing.trace(LAYER).unwrap_err().kind, LayerErrorKind::Apply(_)));
    assert!(matches!(overflowing.solve(LAYER, &mut v, scratch).unwrap_err().kind, LayerErrorKind::Apply(_)));
    assert!(matches!(overflowing.variance(LAYER).unwrap_err().kind, LayerErrorKind::Apply(_)));
    assert_eq!(v, before);
    // Next to no prior: the inverse precision is no number.
    let mut nothing = Posterior::new(&mut kfac, 0.0, 1e-310).unwrap();
    assert!(nothing.solve(LAYER, &mut v, scratch).is_err());
    assert_eq!(v, before);
}
