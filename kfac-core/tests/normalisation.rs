//! Scale and shift of a normalisation: the gradient of a case against finite differences, the diagonal and the full block
//! against the gradients one by one.

mod common;

use common::dense::{assert_close, relative_difference};
use common::layer::{OneLayer, fisher_block, over_diagonal};
use common::{Room, random, saved, widened};
use kfac_core::error::Quantity;
use kfac_core::evidence::{EvidenceError, Inputs, Normalised, OutputGradients, Reduced};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar, ShapeError};
use kfac_core::map::{Diagonal, Eigenbasis, Ekfac, Factored, Shifted};
use kfac_core::{LayerErrorKind, LayerShape};

const FEATURES: usize = 3;
const SHAPE: LayerShape = LayerShape::normalisation(FEATURES);
const LAMBDA: f64 = 0.03;
/// Seven cases of up to five positions.
const LENGTHS: [usize; 7] = [5, 2, 4, 1, 5, 3, 5];
const POSITIONS: usize = 5;
const ROWS: usize = 35;

/// Rows `x̂` and `g`, with rubbish in the padding.
fn rows<T: Scalar>() -> [Vec<T>; 2] {
    let mut rows = [random(ROWS * FEATURES, 1), random(ROWS * FEATURES, 2)];
    for row in 0..ROWS {
        if row % POSITIONS >= LENGTHS[row / POSITIONS] {
            rows.iter_mut().for_each(|x| x[row * FEATURES..][..FEATURES].fill(T::from_f64(f64::NAN)));
        }
    }
    rows
}

/// `[Σ g ∘ x̂; Σ g]` of every case.
fn case_gradients<T: Scalar>([x, g]: &[Vec<T>; 2]) -> Vec<Vec<f64>> {
    let case = |(case, &length): (usize, &usize)| {
        let mut gradient = vec![0.0; 2 * FEATURES];
        for at in (0..length * FEATURES).map(|at| case * POSITIONS * FEATURES + at) {
            gradient[at % FEATURES] += g[at].to_f64() * x[at].to_f64();
            gradient[FEATURES + at % FEATURES] += g[at].to_f64();
        }
        gradient
    };
    LENGTHS.iter().enumerate().map(case).collect()
}

fn matrix<T: Scalar>(rows: &[T]) -> MatRef<'_, T> {
    MatRef::row_major(rows, rows.len() / FEATURES, FEATURES).unwrap()
}

/// With the loss `Σ tanh(y) c` over the positions of a case, by central differences in `γ` and `β`.
#[test]
fn the_gradient_of_a_case_is_that_of_its_loss_in_scale_and_shift() {
    let (x, c) = (random::<f64>(ROWS * FEATURES, 1), random::<f64>(ROWS * FEATURES, 2));
    let theta = random::<f64>(2 * FEATURES, 3);
    let (positions, y) = (
        |case: usize| (0..LENGTHS[case] * FEATURES).map(move |at| case * POSITIONS * FEATURES + at),
        |theta: &[f64], at: usize| theta[at % FEATURES] * x[at] + theta[FEATURES + at % FEATURES],
    );
    let loss =
        |theta: &[f64], case: usize| -> f64 { positions(case).map(|at| c[at] * y(theta, at).tanh()).sum() };
    let g: Vec<f64> = (0..ROWS * FEATURES).map(|at| c[at] * (1.0 - y(&theta, at).tanh().powi(2))).collect();
    let inputs = Normalised::with_lengths(matrix(&x), POSITIONS, &LENGTHS).unwrap();
    let gradients = OutputGradients::per_case(matrix(&g));
    for case in 0..7 {
        let mut found = [f64::NAN; 2 * FEATURES];
        inputs.write_gradient(&gradients, (case, 0), &mut found);
        let difference = |weight: usize| {
            let at = |step: f64| {
                let mut theta = theta.clone();
                theta[weight] += step;
                loss(&theta, case)
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        let want: Vec<f64> = (0..2 * FEATURES).map(difference).collect();
        assert_close(&format!("case {case}"), &found, &want, 1e-8);
    }
}

fn blocks<T: Scalar, K: Kernel<T>>(kernel: K) {
    let rows @ [x, g] = &rows::<T>();
    let block = fisher_block(&case_gradients(rows));
    let v = random::<T>(2 * FEATURES, 5);
    let inputs = Normalised::with_lengths(matrix(x), POSITIONS, &LENGTHS).unwrap();
    let (what, tolerance) = (std::any::type_name::<(T, K)>(), 2e3 * T::EPSILON.to_f64());
    for (gradients, factor) in [
        (OutputGradients::per_case(matrix(g)), 1.0),
        (OutputGradients::of_mean_loss(matrix(g), 7), 49.0),
        (OutputGradients::of_weighted_nll(matrix(g), T::from_f64(3.0)), 1.0 / 3.0),
    ] {
        let layer = OneLayer { shape: SHAPE, inputs: &inputs, gradients, lambda: LAMBDA };
        let block = block.scaled(factor);
        let diagonal = layer.precondition(kernel, Diagonal, &v);
        assert_close(what, &widened(&diagonal), &over_diagonal(&block, LAMBDA, &widened(&v)), tolerance);
        let full = block.shifted(LAMBDA).solve(&widened(&v));
        // `A = [1]`: also `Factored` has all its damping on `G`.
        for u in [
            layer.precondition(kernel, Factored, &v),
            layer.precondition(kernel, Eigenbasis::full(), &v),
            layer.precondition(kernel, Shifted::full(), &v),
            layer.precondition(kernel, Ekfac::full(), &v),
        ] {
            assert_close(what, &widened(&u), &full, 10.0 * tolerance);
        }
        assert!(relative_difference(&widened(&diagonal), &full) > 0.01, "{what}");
    }
}

#[test]
fn the_block_of_scale_and_shift_is_the_second_moment_of_the_gradients_of_the_cases() {
    blocks::<f64, _>(Reproducible);
    blocks::<f64, _>(Fast::detect());
    blocks::<f32, _>(Reproducible);
    blocks::<f32, _>(Fast::detect());
}

/// A batch normalisation before a dense layer: one position.
#[test]
fn one_position_and_cases_one_by_one_make_the_same_block() {
    let (x, g, v) = (random::<f64>(7 * FEATURES, 1), random::<f64>(7 * FEATURES, 2), random::<f64>(6, 3));
    let case = |case: usize| {
        let (x, g) = (&x[case * FEATURES..][..FEATURES], &g[case * FEATURES..][..FEATURES]);
        x.iter().zip(g).map(|(x, g)| x * g).chain(g.iter().copied()).collect()
    };
    let block = fisher_block(&(0..7).map(case).collect::<Vec<_>>());
    let net = [SHAPE];
    for parts in [&[7][..], &[2, 5], &[1; 7]] {
        let mut room = Room::new::<Eigenbasis, Reproducible>(&net);
        let (mut kfac, scratch) = room.precondition(&net, Eigenbasis::full(), Reproducible);
        kfac.set_damping(LAMBDA).unwrap();
        let mut observation = kfac.observe(7);
        let mut first = 0;
        for &part in parts {
            let [x, g] = [&x, &g].map(|rows| matrix(&rows[first * FEATURES..][..part * FEATURES]));
            let inputs = Normalised::new(x, 1).unwrap();
            observation.add(0, &inputs, OutputGradients::per_case(g), scratch).unwrap();
            first += part;
        }
        kfac.refresh(scratch).unwrap();
        let mut u = v.clone();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        assert_close("in parts", &u, &block.shifted(LAMBDA).solve(&v), 1e-12);
    }
}

/// There is nothing to reduce: the gradient of a case is one row already.
#[test]
fn reduced_it_is_the_same() {
    let [x, g] = &rows::<f64>();
    let inputs = Normalised::with_lengths(matrix(x), POSITIONS, &LENGTHS).unwrap();
    let (gradients, v) = (OutputGradients::per_case(matrix(g)), random::<f64>(6, 3));
    let plain = OneLayer { shape: SHAPE, inputs: &inputs, gradients, lambda: LAMBDA };
    let reduced = OneLayer { shape: SHAPE, inputs: &Reduced(&inputs), gradients, lambda: LAMBDA };
    let [plain, reduced] =
        [plain.precondition(Reproducible, Factored, &v), reduced.precondition(Reproducible, Factored, &v)];
    assert_close("reduced", &reduced, &plain, 1e-14);
}

#[test]
fn a_case_without_a_position_is_no_case() {
    let [x, g] = [random::<f64>(4 * FEATURES, 1), random::<f64>(4 * FEATURES, 2)];
    let u = |lengths: &[usize], rows: usize| {
        let inputs = Normalised::with_lengths(matrix(&x[..rows * FEATURES]), 2, lengths).unwrap();
        let gradients = OutputGradients::per_case(matrix(&g[..rows * FEATURES]));
        let layer = OneLayer { shape: SHAPE, inputs: &inputs, gradients, lambda: LAMBDA };
        layer.precondition(Reproducible, Factored, &[1.0; 6])
    };
    assert_close("a case of length 0", &u(&[2, 0], 4), &u(&[2], 2), 1e-14);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let x = random::<f64>(6 * FEATURES, 1);
    let shape = |expected, found| Some(EvidenceError::Shape(ShapeError::new(expected, found)));
    assert_eq!(Normalised::new(matrix(&x), 4).err(), shape([4, 3], [6, 3]));
    assert_eq!(Normalised::new(matrix(&x), 0).err(), shape([0, 3], [6, 3]));
    assert_eq!(Normalised::with_lengths(matrix(&x), 3, &[1, 4]).err(), shape([3, 3], [4, 3]));
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut bad = x.clone();
        bad[4 * FEATURES + 1] = value;
        let error = EvidenceError::NotFinite { row: 4, column: 1 };
        assert_eq!(Normalised::new(matrix(&bad), 3).err(), Some(error));
        assert_eq!(error.to_string(), "a number is not finite: row 4, column 1");
        assert!(
            Normalised::with_lengths(matrix(&bad), 3, &[3, 1]).is_ok(),
            "what is masked is not looked at"
        );
    }

    let inputs = Normalised::new(matrix(&x), 3).unwrap();
    let g = [0.5; 6 * 7];
    let rows = |columns: usize| MatRef::row_major(&g[..6 * columns], 6, columns).unwrap();
    let mut spoilt = [0.5; 18];
    spoilt[3 * 3 + 2] = f64::NAN;
    let bad = MatRef::row_major(&spoilt, 6, 3).unwrap();
    let of_shape = |expected, found| LayerErrorKind::Shape {
        quantity: Quantity::OutputGradients,
        error: ShapeError::new(expected, found),
    };
    let of_inputs = |expected, found| LayerErrorKind::Shape {
        quantity: Quantity::Inputs,
        error: ShapeError::new(expected, found),
    };
    let not_finite = LayerErrorKind::NotFinite { quantity: Quantity::OutputGradients, row: 1, column: 2 };
    for (shape, gradients, error) in [
        // Gradients of twice the width, as the block has, or of one too many.
        (SHAPE, rows(6), of_shape([6, 3], [6, 6])),
        (SHAPE, rows(4), of_shape([6, 3], [6, 4])),
        // Layers of another width, and one that is no normalisation.
        (LayerShape::normalisation(2), rows(3), of_shape([6, 4], [6, 3])),
        (LayerShape::dense(0, 7), rows(7), of_inputs([2, 0], [2, 1])),
        (LayerShape::dense(1, 7).without_bias(), rows(7), of_shape([6, 7], [6, 7])),
        (SHAPE, bad, not_finite),
    ] {
        let net = [shape];
        let mut room = Room::<f64>::new::<Diagonal, Reproducible>(&net);
        let (mut kfac, scratch) = room.precondition(&net, Diagonal, Reproducible);
        let before = saved(&kfac);
        let refused = kfac.observe(2).add(0, &inputs, OutputGradients::per_case(gradients), scratch);
        assert_eq!(refused.unwrap_err().kind, error, "{shape:?}");
        assert_eq!(saved(&kfac), before);
    }
    assert_eq!((SHAPE.outputs(), SHAPE.inputs(), SHAPE.has_bias()), (6, 1, false));
}
