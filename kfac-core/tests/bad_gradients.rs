//! Gradients that cannot be preconditioned are refused by name; every gradient and the state are left as they were.

mod common;

use common::bad::{Body, for_every_map, huge, infinity, nan, shape_error};
use common::run::{self, LAST, NET};
use common::{Room, bits, saved};
use kfac_core::error::Quantity;
use kfac_core::evidence::{Moments, OutputGradients, Rows};
use kfac_core::linalg::shifted::ShiftedError;
use kfac_core::linalg::{MatMut, MatRef, Reproducible, Scalar};
use kfac_core::map::{Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored, MapError, Shifted};
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, LayerShape};

#[test]
fn a_bad_gradient_in_the_last_row_of_the_last_layer_leaves_every_gradient_and_the_state_alone() {
    struct BadGradient;
    impl Body for BadGradient {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let quantity = Quantity::Gradient;
            let [row, column] = [NET[LAST].outputs() - 1, NET[LAST].inputs() - 1];
            let not_finite = LayerErrorKind::NotFinite { quantity, row, column };
            let overflow = LayerErrorKind::Overflow { quantity, largest: huge::<T>().to_f64() };
            let bad = [
                (nan::<T>(), not_finite),
                (infinity(), not_finite),
                (-infinity::<T>(), not_finite),
                (huge(), overflow),
            ];
            const BAD_STEP: usize = 2;
            let marks = [false, true].map(|with_bad_gradients| -> Vec<run::Mark> {
                let mut room = Room::new::<M, Reproducible>(&NET);
                let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
                let mut step = |step| {
                    let mark = run::step(&mut kfac, step, scratch);
                    if step == BAD_STEP && with_bad_gradients {
                        for (value, kind) in bad {
                            let mut v = run::gradients::<T>(step);
                            *v.last_mut().unwrap() = value;
                            let mut u = v.clone();
                            let error = Err(LayerError { layer: LAST, kind });
                            assert_eq!(kfac.precondition(&mut run::views(&mut u), scratch), error);
                            assert_eq!(kfac.precondition_flat(&mut u, scratch), error);
                            assert_eq!(bits(&u), bits(&v), "{}: {value}", M::NAME);
                        }
                    }
                    mark
                };
                (0..2 * BAD_STEP).map(&mut step).collect()
            });
            assert_eq!(marks[0], marks[1], "{}", M::NAME);
        }
    }
    for_every_map(&BadGradient);
}

#[test]
fn gradients_of_a_wrong_shape_are_refused_with_both_shapes() {
    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Eigenbasis::full(), Reproducible);
    run::step(&mut kfac, 0, scratch);
    let before = saved(&kfac);
    let ones = vec![1.0; 60];
    let mut refused = |layer, [rows, cols]: [usize; 2], bias: Option<usize>, expected, found| {
        let (mut weight, mut bias) = (ones.clone(), bias.map(|len| vec![1.0; len]));
        let view = MatMut::row_major(&mut weight, rows, cols).unwrap();
        let gradient = match &mut bias {
            Some(bias) => LayerGradient::with_bias(layer, view, bias),
            None => LayerGradient::joint(layer, view),
        };
        let kind = shape_error(Quantity::Gradient, expected, found);
        assert_eq!(kfac.precondition(&mut [gradient], scratch), Err(LayerError { layer, kind }));
        assert_eq!(weight, ones);
    };
    refused(0, [3, 4], None, [3, 5], [3, 4]);
    refused(0, [5, 3], None, [3, 5], [5, 3]);
    refused(0, [3, 5], Some(3), [3, 4], [3, 5]);
    refused(0, [3, 4], Some(2), [3, 1], [2, 1]);
    // Layer 1 has no bias.
    refused(1, [5, 3], Some(5), [0, 1], [5, 1]);

    let len = run::gradients::<f64>(0).len();
    let last = NET[LAST].weights();
    for (given, expected, found) in [(len - 1, [last, 1], [last - 1, 1]), (len + 1, [len, 1], [len + 1, 1])] {
        let mut flat = vec![1.0; given];
        let kind = shape_error(Quantity::Gradient, expected, found);
        assert_eq!(kfac.precondition_flat(&mut flat, scratch), Err(LayerError { layer: LAST, kind }));
        assert!(flat.iter().all(|&x| x == 1.0), "{given} numbers");
    }
    assert_eq!(saved(&kfac), before);
}

/// A factor that vanishes leaves `V / λ`, and `1e10 / 1e-30` is no `f32`.
#[test]
fn a_preconditioned_gradient_that_overflows_is_not_written() {
    struct Overflowing;
    impl Overflowing {
        fn check<M: FactorMap<f32>>(map: M) {
            let net = [LayerShape::dense(2, 2).without_bias()];
            let mut room = Room::<f32>::new::<M, Reproducible>(&net);
            let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
            let (a, zeros) = ([1.0, 0.5], [0.0, 0.0]);
            let [a, g] = [&a, &zeros].map(|row| MatRef::row_major(row, 1, 2).unwrap());
            kfac.observe(1).add(0, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
            kfac.set_damping(1e-30).unwrap();
            kfac.refresh(scratch).unwrap();
            let before = saved(&kfac);
            for v in [[1e-3, 0.0, 0.0, 1e10_f32], [0.0, 0.0, 0.0, -1e10]] {
                let mut u = v;
                let error = kfac.precondition_flat(&mut u, scratch).unwrap_err();
                // The rotation of `Eigenbasis` spreads the infinity: any place may be the first. `Shifted` meets it on
                // the way.
                let (LayerErrorKind::NotFinite { quantity: Quantity::Preconditioned, .. }
                | LayerErrorKind::Apply(MapError::Shifted(ShiftedError::Overflow { .. }))) = error.kind
                else {
                    panic!("{}: {error}", M::NAME)
                };
                assert_eq!(bits(&u), bits(&v), "{}", M::NAME);
            }
            // Finite numbers, but their squares are not.
            let mut u = [0.0, 0.0, 0.0, 1.0_f32];
            let LayerErrorKind::Overflow { quantity: Quantity::Preconditioned, largest } =
                kfac.precondition_flat(&mut u, scratch).unwrap_err().kind
            else {
                panic!("{}: no overflow", M::NAME)
            };
            assert!((largest / 1e30 - 1.0).abs() < 1e-5 && u[3] == 1.0, "{}: {largest:e}", M::NAME);
            assert_eq!(saved(&kfac), before, "{}", M::NAME);
        }
    }
    Overflowing::check(Factored);
    Overflowing::check(Eigenbasis::full());
    Overflowing::check(Shifted::full());
    Overflowing::check(Ekfac::full());
    Overflowing::check(Embedding::full());
    Overflowing::check(Diagonal);
}

/// Both factors fit into `f32`, their largest eigenvalues' product does not: `V` over infinity would be 0.
#[test]
fn eigenvalues_without_a_finite_product_are_refused_and_not_taken_for_infinite_curvature() {
    let net = [LayerShape::dense(2, 2).without_bias()];
    let mut room = Room::<f32>::new::<Eigenbasis, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Eigenbasis::full(), Reproducible);
    let large = [1e20, 0.0, 0.0, 1.0];
    let a = MatRef::row_major(&large, 2, 2).unwrap();
    kfac.observe(1).add_moments(0, Moments { a, g: a, positions: 1.0 }, scratch).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u = [1.0; 4];
    let error = kfac.precondition_flat(&mut u, scratch).unwrap_err();
    let LayerErrorKind::Apply(MapError::Range { input, output }) = error.kind else { panic!("{error}") };
    assert!([input, output].iter().all(|d| (d / 1e20 - 1.0).abs() < 1e-6), "{input:e} {output:e}");
    assert_eq!(u, [1.0; 4]);
    let text = error.to_string();
    assert!(
        text.starts_with("layer 0: the gradient cannot be preconditioned: the largest eigenvalues"),
        "{text}"
    );
}
