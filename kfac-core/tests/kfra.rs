//! The recursion for `G` against plain loops, where it is exact and where it is not, and how its moments are added.

mod common;

use common::dense::{Matrix, assert_close};
use common::golden::Array;
use common::net::{Activation, DenseNet, Layer, Loss, LossTerms, Model};
use common::recursion::{distance, kflr_factors, kfra_factors};
use common::{Room, factor, random, saved, widened};
use kfac_core::error::Quantity;
use kfac_core::evidence::{Rows, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar, ShapeError};
use kfac_core::losses;
use kfac_core::map::{Factored, MomentMap};
use kfac_core::shape::Side;
use kfac_core::statistics::kfra::{self, KfraError};
use kfac_core::{LayerError, LayerErrorKind, LayerShape, Preconditioner};

const LOSSES: [losses::Loss; 3] = [losses::Loss::Square, losses::Loss::Softmax, losses::Loss::Bernoulli];
/// Of the loss: no two of the scales here are equal.
const WEIGHT: f64 = 3.0;

/// 4 -> 5 -> 6 -> 3, the second layer without a bias.
fn net<T: Scalar>(activation: Activation, cases: usize) -> DenseNet<T> {
    let layer = |rows, cols, bias, activation, seed| {
        let w = Array { shape: vec![rows, cols], data: random::<T>(rows * cols, seed) };
        Layer::new(&w, bias, activation)
    };
    let layers = vec![
        layer(5, 5, true, activation, 1),
        layer(6, 5, false, activation, 2),
        layer(3, 7, true, Activation::Identity, 3),
    ];
    let x = Array { shape: vec![cases, 4], data: random(cases * 4, 4) };
    DenseNet::new(layers, LossTerms::PerPosition, &x)
}

fn loss<T: Scalar>(kind: losses::Loss) -> Loss<T> {
    Loss { kind, factor: T::from_f64(WEIGHT) }
}

/// A promise in both number types on both kernels.
trait Promise {
    fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K);
}

fn on_every_kernel(promise: &impl Promise) {
    promise.check::<f64, _>(Reproducible);
    promise.check::<f64, _>(Fast::detect());
    promise.check::<f32, _>(Reproducible);
    promise.check::<f32, _>(Fast::detect());
}

/// 1e-13 in `f64`: some hundred roundings.
fn tolerance<T: Scalar>() -> f64 {
    450.0 * T::EPSILON.to_f64()
}

fn hessian<T: Scalar>(kind: losses::Loss, weight: f64, outputs: &[T], cases: usize) -> Matrix {
    let m = outputs.len() / cases;
    let mut g_bar = vec![T::from_f64(f64::NAN); m * m];
    let rows = MatRef::row_major(outputs, cases, m).unwrap();
    let into = MatMut::row_major(&mut g_bar, m, m).unwrap();
    let mut scratch = vec![T::from_f64(f64::NAN); kfra::mean_loss_hessian_scratch_len(m)];
    kfra::mean_loss_hessian(kind, T::from_f64(weight), rows, into, &mut scratch).unwrap();
    Matrix::new(m, m, widened(&g_bar))
}

#[test]
fn the_recursion_begins_at_the_mean_over_the_cases_of_the_weighted_loss_hessian() {
    for kind in LOSSES {
        let (outputs, cases) = (random::<f64>(7 * 4, 9), 7);
        let mut want = Matrix::zeros(4, 4);
        for f in outputs.chunks(4) {
            for column in 0..4 {
                let mut root = [0.0; 4];
                kind.hessian_column(f, column, &mut root).unwrap();
                want.add_outer(WEIGHT / cases as f64, &root, &root);
            }
        }
        let found = hessian(kind, WEIGHT, &outputs, cases);
        assert_close(&format!("{kind:?}"), &found.data, &want.data, 1e-15 * 20.0);
    }
}

/// One class is certain to more digits than the numbers have: what is left is tiny and still positive semidefinite.
#[test]
fn the_hessian_of_a_saturated_loss_keeps_its_small_curvature() {
    let softmax = hessian::<f32>(losses::Loss::Softmax, 1.0, &[30.0, 0.0, 1.0], 1);
    let top = 1.0 + (-30.0_f64).exp() + (-29.0_f64).exp();
    let p = [1.0 / top, (-30.0_f64).exp() / top, (-29.0_f64).exp() / top];
    for (i, row) in softmax.data.chunks(3).enumerate() {
        let others: f64 = p.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, p)| p).sum();
        assert!((row[i] / (p[i] * others) - 1.0).abs() < 1e-5, "{row:?}");
        let sum: f64 = row.iter().sum();
        assert!(sum.abs() <= 1e-6 * row[i], "row {i} does not sum to zero: {row:?}");
    }
    let bernoulli = hessian::<f32>(losses::Loss::Bernoulli, 1.0, &[40.0], 1);
    assert!((bernoulli.at(0, 0) / (-40.0_f64).exp() - 1.0).abs() < 1e-5, "{bernoulli:?}");
}

#[test]
fn for_one_case_recursion_exact_fisher_and_gauss_newton_block_are_the_same() {
    struct Same;
    impl Promise for Same {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            for kind in LOSSES {
                let (net, loss) = (net::<T>(Activation::Tanh, 1), loss(kind));
                let (kfra, kflr) = (kfra_factors(kernel, &net, loss), kflr_factors(kernel, &net, loss));
                for (layer, [a, g]) in kfra.iter().enumerate() {
                    let what = format!("{kind:?}, layer {layer}");
                    assert_close(&what, &g.data, &kflr[layer][1].data, tolerance::<T>());
                    let block = net.gauss_newton_block(loss, layer);
                    assert_close(&what, &a.kron(g).data, &block.data, tolerance::<T>());
                }
            }
        }
    }
    on_every_kernel(&Same);
}

#[test]
fn for_linear_nets_the_recursion_is_the_exact_fisher_whatever_the_batch() {
    struct Same;
    impl Promise for Same {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            for kind in LOSSES {
                let (net, loss) = (net::<T>(Activation::Identity, 7), loss(kind));
                let (kfra, kflr) = (kfra_factors(kernel, &net, loss), kflr_factors(kernel, &net, loss));
                for (layer, [a, g]) in kfra.iter().enumerate() {
                    let what = format!("{kind:?}, layer {layer}");
                    assert_close(&what, &a.data, &kflr[layer][0].data, tolerance::<T>());
                    assert_close(&what, &g.data, &kflr[layer][1].data, tolerance::<T>());
                }
            }
        }
    }
    on_every_kernel(&Same);
}

#[test]
fn with_nonlinearities_and_several_cases_the_recursion_is_an_approximation_but_for_the_last_layer() {
    let (net, loss) = (net::<f64>(Activation::Tanh, 7), loss(losses::Loss::Softmax));
    let (kfra, kflr) = (kfra_factors(Reproducible, &net, loss), kflr_factors(Reproducible, &net, loss));
    for layer in 0..2 {
        let apart = distance(&kfra[layer][1], &kflr[layer][1]);
        assert!(apart > 0.01, "layer {layer}: {apart:e}");
    }
    assert_close("the last layer", &kfra[2][1].data, &kflr[2][1].data, tolerance::<f64>());
}

/// 2 + 5 cases at two positions, one of them masked in places: `G` weighs cases, `A` positions.
#[test]
fn moments_added_for_parts_of_a_batch_weigh_as_their_cases_and_as_the_ramp_says() {
    struct Weighs;
    impl Promise for Weighs {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            let shape = LayerShape::dense(3, 2);
            let net = [shape];
            let mut room = Room::<T>::new::<Factored, K>(&net);
            let (kfac, scratch) = room.precondition(&net, Factored, kernel);
            let mut kfac = kfac.with_decay(T::from_f64(0.75)).unwrap();
            // Case 3 has no position, and is no case.
            let lengths = [2, 1, 2, 0, 1, 2, 2];
            let (mut a, mut a_weight) = (Matrix::zeros(4, 4), 0.0);
            let (mut g, mut g_weight) = (Matrix::zeros(2, 2), 0.0);
            for update in 1..=6_u64 {
                let epsilon = (1.0 - 1.0 / update as f64).min(0.75);
                let mut observation = kfac.observe(7);
                (a, g) = (a.scaled(epsilon), g.scaled(epsilon));
                (a_weight, g_weight) = (a_weight * epsilon, g_weight * epsilon);
                for (part, seed) in [(0..2, 10 * update), (2..7, 10 * update + 1)] {
                    let rows: Vec<T> = random(2 * part.len() * 3, seed);
                    let [x, y, z] = random::<T>(3, seed + 100)[..] else { unreachable!() };
                    let moment = [T::ONE + x * x, T::from_f64(f64::NAN), y, T::ONE + z * z];
                    let lengths = &lengths[part.clone()];
                    let view = MatRef::row_major(&rows, 2 * part.len(), 3).unwrap();
                    let inputs = Sequence::with_lengths(view, 2, lengths).unwrap();
                    let g_bar = MatRef::row_major(&moment, 2, 2).unwrap();
                    observation.add_with_output_moment(0, &inputs, g_bar, scratch).unwrap();

                    let share = (1.0 - epsilon) / 7.0;
                    for (case, positions) in rows.chunks(6).enumerate() {
                        for row in positions.chunks(3).take(lengths[case]) {
                            let with_one = [widened(row), vec![1.0]].concat();
                            a.add_outer(share, &with_one, &with_one);
                            a_weight += share;
                        }
                        if lengths[case] > 0 {
                            let lower = |i: usize, j: usize| {
                                moment[if i < j { 2 * j + i } else { 2 * i + j }].to_f64()
                            };
                            g = Matrix::from_fn(2, 2, |i, j| g.at(i, j) + share * lower(i, j));
                            g_weight += share;
                        }
                    }
                }
                let [found_a, found_g] = Side::BOTH.map(|side| factor(&kfac, 0, side));
                let what = format!("update {update}");
                let tolerance = 50.0 * T::EPSILON.to_f64();
                assert_close(&what, &found_a.data, &a.scaled(1.0 / a_weight).data, tolerance);
                assert_close(&what, &found_g.data, &g.scaled(1.0 / g_weight).data, tolerance);
            }
        }
    }
    on_every_kernel(&Weighs);
}

/// The moments of a batch, handed in as rows and a matrix or as two matrices, are the same statistic.
#[test]
fn a_matrix_beside_rows_is_the_same_as_two_matrices() {
    fn check<T: Scalar, M: MomentMap<T>>(map: M) {
        let net = [LayerShape::dense(3, 2)];
        let (rows, g) = (random::<T>(5 * 3, 1), [2.0, 0.5, 0.5, 1.0].map(T::from_f64));
        let g = MatRef::row_major(&g, 2, 2).unwrap();
        let rows = Rows(MatRef::row_major(&rows, 5, 3).unwrap());
        let mut room = Room::<T>::new::<M, Reproducible>(&net);
        let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
        kfac.observe(5).add_with_output_moment(0, &rows, g, scratch).unwrap();
        let a: Vec<T> = factor(&kfac, 0, Side::Input).data.into_iter().map(T::from_f64).collect();
        let want = factor(&kfac, 0, Side::Output);

        let mut room = Room::<T>::new::<M, Reproducible>(&net);
        let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
        let a = MatRef::row_major(&a, 4, 4).unwrap();
        let moments = kfac_core::evidence::Moments { a, g, positions: T::ONE };
        kfac.observe(5).add_moments(0, moments, scratch).unwrap();
        assert_close("G", &factor(&kfac, 0, Side::Output).data, &want.data, 4.0 * T::EPSILON.to_f64());
    }
    check::<f64, _>(Factored);
    check::<f32, _>(kfac_core::map::Shifted::full());
}

#[test]
fn a_refused_moment_is_named_and_leaves_its_layer_as_it_was() {
    let net = [LayerShape::dense(1, 1), LayerShape::dense(3, 2)];
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Factored, Reproducible);
    let rows = random::<f64>(4 * 3, 1);
    let [good, no_case, narrow] =
        [[4, 3], [0, 3], [4, 2]].map(|[rows_, width]| MatRef::row_major(&rows, rows_, width).unwrap());
    let mut bad_rows = rows.clone();
    bad_rows[7] = f64::INFINITY;
    let bad_rows = MatRef::row_major(&bad_rows, 4, 3).unwrap();
    let moment = |values: [f64; 4]| Matrix::new(2, 2, values.to_vec());
    let identity = moment([1.0, 0.0, 0.0, 1.0]);
    let shape = |quantity, expected, found| LayerErrorKind::Shape {
        quantity,
        error: ShapeError::new(expected, found),
    };
    let not_finite = |quantity, row, column| LayerErrorKind::NotFinite { quantity, row, column };
    let g = Quantity::OutputMoment;
    for round in 0..2 {
        let before = saved(&kfac);
        let mut add = |layer: usize, cases: usize, rows: MatRef<'_, f64>, g_bar: &Matrix, kind| {
            let view = MatRef::row_major(&g_bar.data, g_bar.rows, g_bar.cols).unwrap();
            let added = kfac.observe(cases).add_with_output_moment(layer, &Rows(rows), view, scratch);
            assert_eq!(added, Err(LayerError { layer, kind }), "round {round}");
            assert_eq!(saved(&kfac), before, "{kind} touched the state");
        };
        add(2, 4, good, &identity, LayerErrorKind::NoSuchLayer { layers: 2 });
        add(1, 4, good, &Matrix::zeros(3, 3), shape(g, [2, 2], [3, 3]));
        add(1, 4, narrow, &identity, shape(Quantity::Inputs, [4, 3], [4, 2]));
        add(1, 4, no_case, &identity, LayerErrorKind::EmptyBatch);
        add(1, 0, good, &identity, LayerErrorKind::EmptyBatch);
        add(1, 3, good, &identity, LayerErrorKind::TooManyCases { announced: 3, found: 4 });
        add(1, 4, bad_rows, &identity, not_finite(Quantity::Inputs, 2, 1));
        add(1, 4, good, &moment([1.0, 0.0, f64::NAN, 1.0]), not_finite(g, 1, 0));
        add(1, 4, good, &moment([1.0, 0.0, 0.0, f64::INFINITY]), not_finite(g, 1, 1));
        let overflow = LayerErrorKind::Overflow { quantity: g, largest: f64::MAX };
        add(1, 4, good, &moment([1.0, 0.0, f64::MAX, 1.0]), overflow);
        let view = MatRef::row_major(&identity.data, 2, 2).unwrap();
        let short = kfac.observe(4).add_with_output_moment(1, &Rows(good), view, &mut []).unwrap_err();
        assert!(matches!(short.kind, LayerErrorKind::Scratch(_)), "{short}");
        assert_eq!(saved(&kfac), before);
        kfac.observe(4).add_with_output_moment(1, &Rows(good), view, scratch).unwrap();
    }
    // The accepted ones count, and can be refreshed from.
    fn updates<T: Scalar, K: Kernel<T>>(kfac: &Preconditioner<'_, T, Factored, K>) -> u32 {
        kfac.layer_report(1).unwrap().updates
    }
    assert_eq!(updates(&kfac), 2);
}

/// A step that writes to a moment.
type Step<'s> = dyn Fn(MatMut<'_, f64>, &mut [f64]) -> Result<(), KfraError> + 's;

#[test]
fn a_step_of_the_recursion_that_cannot_be_taken_is_named_and_writes_nothing() {
    let numbers = random::<f64>(64, 1);
    let view = |rows, cols| MatRef::row_major(&numbers, rows, cols).unwrap();
    let mut g_bar = [7.0; 9];
    let mut scratch = [0.0; 4000];
    let shape = |expected, found| Err(KfraError::Shape(ShapeError::new(expected, found)));
    let mut check = |what: &str, step: &Step<'_>, size, len, error| {
        let moment = MatMut::row_major(&mut g_bar, size, size).unwrap();
        assert_eq!(step(moment, &mut scratch[..len]), error, "{what}");
        assert_eq!(g_bar, [7.0; 9], "{what}");
    };
    let begin = |rows, weight| {
        move |g: MatMut<'_, f64>, scratch: &mut [f64]| {
            kfra::mean_loss_hessian(losses::Loss::Softmax, weight, rows, g, scratch)
        }
    };
    check("outputs", &begin(view(4, 3), 1.0), 2, 4000, shape([3, 3], [2, 2]));
    check("no case", &begin(view(0, 3), 1.0), 3, 4000, Err(KfraError::EmptyBatch));
    for weight in [0.0, -1.0, f64::INFINITY] {
        check("weight", &begin(view(4, 3), weight), 3, 4000, Err(KfraError::Weight { weight }));
    }
    let short = |needed: usize| {
        Err(KfraError::Scratch(kfac_core::linalg::ScratchError { needed, found: needed - 1 }))
    };
    check("scratch", &begin(view(4, 3), 1.0), 3, 5, short(6));

    let activation = |rows| {
        move |g: MatMut<'_, f64>, scratch: &mut [f64]| {
            kfra::through_activation(Reproducible, rows, g, scratch)
        }
    };
    check("derivatives", &activation(view(4, 3)), 2, 4000, shape([3, 3], [2, 2]));
    check("no case", &activation(view(0, 3)), 3, 4000, Err(KfraError::EmptyBatch));
    let needed = kfra::through_activation_scratch_len::<f64>(4, 3);
    check("scratch", &activation(view(4, 3)), 3, needed - 1, short(needed));

    let linear = |w, above| {
        move |below: MatMut<'_, f64>, scratch: &mut [f64]| {
            kfra::through_linear(Reproducible, w, above, below, scratch)
        }
    };
    check("above", &linear(view(4, 3), view(3, 3)), 3, 4000, shape([4, 4], [3, 3]));
    check("below", &linear(view(4, 3), view(4, 4)), 2, 4000, shape([3, 3], [2, 2]));
    let needed = kfra::through_linear_scratch_len::<f64>(4, 3);
    check("scratch", &linear(view(4, 3), view(4, 4)), 3, needed - 1, short(needed));
}
