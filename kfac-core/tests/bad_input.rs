//! Bad input is a value: a named error with the layer and the number, the state untouched, and the steps after it
//! equal to the bit to a run in which the bad call was not made.

mod common;

use common::run::{self, CASES, Evidence, LAST, NET};
use common::{Room, bits, factor, random, saved};
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
use kfac_core::damping::split::DampingError;
use kfac_core::error::{Quantity, SettingError};
use kfac_core::evidence::{Moments, OutputGradients, Patches, Rows, Sequence};
use kfac_core::linalg::cholesky::CholeskyError;
use kfac_core::linalg::eigh::jacobi::Budget;
use kfac_core::linalg::{Kernel, MatMut, MatRef, Reproducible, Scalar, ScratchError, ShapeError};
use kfac_core::map::{Eigenbasis, FactorMap, Factored, Map, MapError};
use kfac_core::memory::{Buffer, LayerSlot, Storage, StorageError, scratch_len, state_len};
use kfac_core::saved::{StateError, saved_len};
use kfac_core::schedule::Schedule;
use kfac_core::shape::{Side, Window};
use kfac_core::step::{KlClip, StepBound};
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, LayerShape, Observation, Preconditioner};
use proptest::prelude::*;

/// Runs a body for every map and number type.
trait Body {
    fn run<T: Scalar, M: FactorMap<T>>(&self, map: M);
}

fn for_every_map(body: &impl Body) {
    body.run::<f64, _>(Factored);
    body.run::<f32, _>(Factored);
    body.run::<f64, _>(Eigenbasis::full());
    body.run::<f32, _>(Eigenbasis::full());
}

/// A number whose square overflows, though it does not.
fn huge<T: Scalar>() -> T {
    T::from_f64(if T::BYTES == 4 { 1e30 } else { 1e200 })
}

fn nan<T: Scalar>() -> T {
    T::from_f64(f64::NAN)
}

fn infinity<T: Scalar>() -> T {
    T::from_f64(f64::INFINITY)
}

fn shape_error(quantity: Quantity, expected: [usize; 2], found: [usize; 2]) -> LayerErrorKind {
    LayerErrorKind::Shape { quantity, error: ShapeError { expected, found } }
}

/// An `add` to the last layer that must be refused.
struct BadAdd<T> {
    what: &'static str,
    inputs: Vec<T>,
    inputs_shape: [usize; 2],
    gradients: Vec<T>,
    gradients_shape: [usize; 2],
    error: LayerErrorKind,
}

impl<T: Scalar> BadAdd<T> {
    fn add<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        observation: &mut Observation<'_, '_, T, M, K>,
        scratch: &mut [T],
    ) {
        let [a, g] = [(&self.inputs, self.inputs_shape), (&self.gradients, self.gradients_shape)]
            .map(|(data, [rows, cols])| MatRef::row_major(data, rows, cols).unwrap());
        let found = observation.add(LAST, &Rows(a), OutputGradients::per_case(g), scratch);
        assert_eq!(found, Err(LayerError { layer: LAST, kind: self.error }), "{}", self.what);
    }
}

/// Wrong shapes, an empty batch, and every kind of bad number in the last row and column.
fn bad_adds<T: Scalar>() -> Vec<BadAdd<T>> {
    let good = Evidence::<T>::at(50, LAST);
    let (n, m) = (good.shape.features(), good.shape.outputs());
    let bad_add = |what, error| BadAdd {
        what,
        inputs: good.inputs.clone(),
        inputs_shape: [CASES, n],
        gradients: good.gradients.clone(),
        gradients_shape: [CASES, m],
        error,
    };
    let mut bad = vec![
        BadAdd {
            inputs_shape: [CASES, n - 1],
            ..bad_add(
                "a column of inputs is missing",
                shape_error(Quantity::Inputs, [CASES, n], [CASES, n - 1]),
            )
        },
        BadAdd {
            gradients_shape: [CASES, m - 1],
            ..bad_add(
                "a column of gradients is missing",
                shape_error(Quantity::OutputGradients, [CASES, m], [CASES, m - 1]),
            )
        },
        BadAdd {
            gradients_shape: [CASES - 1, m],
            ..bad_add(
                "a row of gradients is missing",
                shape_error(Quantity::OutputGradients, [CASES, m], [CASES - 1, m]),
            )
        },
        BadAdd {
            inputs_shape: [0, n],
            gradients_shape: [0, m],
            ..bad_add("no case", LayerErrorKind::EmptyBatch)
        },
    ];
    let row = CASES - 1;
    for (what, value) in [("NaN", nan::<T>()), ("inf", infinity()), ("-inf", -infinity::<T>())] {
        let of = |quantity, column| LayerErrorKind::NotFinite { quantity, row, column };
        let mut inputs = bad_add(what, of(Quantity::Inputs, n - 1));
        *inputs.inputs.last_mut().unwrap() = value;
        let mut gradients = bad_add(what, of(Quantity::OutputGradients, m - 1));
        *gradients.gradients.last_mut().unwrap() = value;
        bad.extend([inputs, gradients]);
    }
    let overflow = |quantity| LayerErrorKind::Overflow { quantity, largest: huge::<T>().to_f64() };
    let mut inputs = bad_add("inputs overflow", overflow(Quantity::Inputs));
    *inputs.inputs.last_mut().unwrap() = huge();
    let mut gradients = bad_add("gradients overflow", overflow(Quantity::OutputGradients));
    *gradients.gradients.last_mut().unwrap() = -huge::<T>();
    bad.extend([inputs, gradients]);
    bad
}

#[test]
fn a_refused_add_leaves_its_layer_as_it_was_and_names_what_is_wrong() {
    struct Refused;
    impl Body for Refused {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let mut room = Room::new::<M, Reproducible>(&NET);
            let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
            // Before the first statistic, and in the middle of a run.
            for step in 0..2 {
                let before = saved(&kfac);
                for bad in bad_adds() {
                    bad.add(&mut kfac.observe(CASES), scratch);
                    assert_eq!(saved(&kfac), before, "{} touched {} at step {step}", bad.what, M::NAME);
                }
                run::step(&mut kfac, step, scratch);
            }
        }
    }
    for_every_map(&Refused);
}

#[test]
fn steps_after_a_refused_add_are_those_of_a_run_in_which_it_was_not_called() {
    struct SameBits;
    impl Body for SameBits {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            const BAD_STEP: usize = 3;
            let marks = [false, true].map(|with_bad_adds| -> Vec<run::Mark> {
                let mut room = Room::new::<M, Reproducible>(&NET);
                let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
                let mut step = |step| {
                    if step != BAD_STEP {
                        return run::step(&mut kfac, step, scratch);
                    }
                    // The last layer's evidence is bad, after half of it was good; the other layers keep theirs.
                    let mut observation = kfac.observe(CASES);
                    for layer in 0..LAST {
                        Evidence::at(step, layer).add(&mut observation, layer, scratch).unwrap();
                    }
                    let half = 0..CASES / 2;
                    Evidence::at(step, LAST).add_cases(&mut observation, LAST, half, scratch).unwrap();
                    if with_bad_adds {
                        bad_adds().iter().for_each(|bad| bad.add(&mut observation, scratch));
                    }
                    run::finish(&mut kfac, step, scratch)
                };
                (0..2 * BAD_STEP).map(&mut step).collect()
            });
            assert_eq!(marks[0], marks[1], "{}", M::NAME);
        }
    }
    for_every_map(&SameBits);
}

#[test]
fn an_update_of_no_cases_and_a_batch_that_is_masked_whole_are_empty() {
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let before = saved(&kfac);
    let empty = Err(LayerError { layer: LAST, kind: LayerErrorKind::EmptyBatch });
    assert_eq!(Evidence::at(0, LAST).add(&mut kfac.observe(0), LAST, scratch), empty);

    let good = Evidence::at(0, LAST);
    let a = MatRef::row_major(&good.inputs, CASES, 5).unwrap();
    let g = OutputGradients::per_case(MatRef::row_major(&good.gradients, CASES, 2).unwrap());
    let masked = Sequence::with_lengths(a, 3, &[0, 0]).unwrap();
    assert_eq!(kfac.observe(2).add(LAST, &masked, g, scratch), empty);
    assert_eq!(saved(&kfac), before);
}

#[test]
fn a_layer_that_does_not_exist_is_named() {
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let none = LayerError { layer: 3, kind: LayerErrorKind::NoSuchLayer { layers: 3 } };
    assert_eq!(Evidence::at(0, LAST).add(&mut kfac.observe(1), 3, scratch), Err(none));
    let mut v = [0.0];
    let gradient = LayerGradient::joint(3, MatMut::row_major(&mut v, 1, 1).unwrap());
    assert_eq!(kfac.precondition(&mut [gradient], scratch), Err(none));
    assert_eq!(none.to_string(), "layer 3: the network has only 3 layers");
    assert!(kfac.factor(3, Side::Input).is_none() && kfac.layer_report(3).is_none());
}

#[test]
fn scratch_that_is_too_short_is_refused_before_anything_is_touched() {
    struct ShortScratch;
    impl Body for ShortScratch {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let mut room = Room::new::<M, Reproducible>(&NET);
            let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
            run::step(&mut kfac, 0, scratch);
            let before = saved(&kfac);
            let v = run::gradients::<T>(1);
            let mut u = v.clone();
            let found = scratch.len() - 1;
            let short = |result: Result<(), LayerError>| {
                let Err(LayerError { kind: LayerErrorKind::Scratch(error), .. }) = result else {
                    panic!("{}: {result:?}", M::NAME)
                };
                assert!(error.found < error.needed && error.needed <= found + 1, "{}: {error}", M::NAME);
            };
            // The longest need is that of refresh or of precondition; a short one is too short for every verb.
            short(kfac.refresh(&mut []).map(|_| ()));
            short(kfac.refresh_all(&mut []).map(|_| ()));
            short(kfac.precondition_flat(&mut u, &mut []).map(|_| ()));
            short(Evidence::at(1, 0).add(&mut kfac.observe(CASES), 0, &mut []));
            let (a, g) = (vec![T::ONE; 25], vec![T::ONE; 9]);
            let [a, g] = [(&a, 5), (&g, 3)].map(|(x, size)| MatRef::row_major(x, size, size).unwrap());
            short(kfac.observe(1).add_moments(0, Moments { a, g, positions: T::ONE }, &mut []));
            assert_eq!(
                kfac.refresh(&mut scratch[..found]),
                Err(LayerError {
                    layer: 0,
                    kind: LayerErrorKind::Scratch(ScratchError { needed: found + 1, found })
                })
            );
            assert_eq!((saved(&kfac), bits(&u)), (before, bits(&v)), "{}", M::NAME);
        }
    }
    for_every_map(&ShortScratch);
}

/// A moment of layer 0 (`A` is 5 x 5, `G` 3 x 3) that must be refused.
struct BadMoment {
    what: &'static str,
    side: Side,
    size: usize,
    /// Element `(2, 1)`.
    value: f64,
    error: LayerErrorKind,
}

fn bad_moments<T: Scalar>() -> Vec<BadMoment> {
    let [input, output] = [Quantity::InputMoment, Quantity::OutputMoment];
    let mut bad = vec![];
    for (side, quantity, size) in [(Side::Input, input, 5), (Side::Output, output, 3)] {
        bad.push(BadMoment {
            what: "a row and a column too many",
            side,
            size: size + 1,
            value: 0.0,
            error: shape_error(quantity, [size, size], [size + 1, size + 1]),
        });
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = LayerErrorKind::NotFinite { quantity, row: 2, column: 1 };
            bad.push(BadMoment { what: "not finite", side, size, value, error });
        }
        let largest = T::MAX.to_f64();
        let error = LayerErrorKind::Overflow { quantity, largest };
        bad.push(BadMoment { what: "overflow", side, size, value: largest, error });
    }
    bad
}

#[test]
fn refused_moments_leave_their_layer_as_it_was() {
    struct Refused;
    impl Body for Refused {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let mut room = Room::new::<M, Reproducible>(&NET);
            let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
            for step in 0..2 {
                let before = saved(&kfac);
                for bad in bad_moments::<T>() {
                    let moment = |side, size| {
                        let size = if side == bad.side { bad.size } else { size };
                        let mut moment = vec![T::ZERO; size * size];
                        moment.iter_mut().step_by(size + 1).for_each(|x| *x = T::ONE);
                        if side == bad.side {
                            moment[2 * size + 1] = T::from_f64(bad.value);
                        }
                        (moment, size)
                    };
                    let moments = [moment(Side::Input, 5), moment(Side::Output, 3)];
                    let [a, g] =
                        moments.each_ref().map(|(data, size)| MatRef::row_major(data, *size, *size).unwrap());
                    let found = kfac.observe(7).add_moments(0, Moments { a, g, positions: T::ONE }, scratch);
                    let what = format!("{} on {:?}", bad.what, bad.side);
                    assert_eq!(found, Err(LayerError { layer: 0, kind: bad.error }), "{what}");
                    assert_eq!(saved(&kfac), before, "{what} touched {}", M::NAME);
                }
                run::step(&mut kfac, step, scratch);
            }
        }
    }
    for_every_map(&Refused);
}

/// What is refused is the sum, not the numbers: two rows that fit one by one, a moment whose trace shows nothing.
#[test]
fn evidence_whose_sum_would_overflow_is_refused_and_what_fits_stays_finite_for_good() {
    let net = [LayerShape::dense(2, 2).without_bias()];
    let mut room = Room::<f32>::new::<Factored, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Factored, Reproducible);

    let large = [0.7e19_f32, 0.0, 0.7e19, 0.0];
    let [one, two] = [1, 2].map(|rows| MatRef::row_major(&large, rows, 2).unwrap());
    for _ in 0..30 {
        let mut observation = kfac.observe(2);
        for _ in 0..2 {
            observation.add(0, &Rows(one), OutputGradients::per_case(one), scratch).unwrap();
        }
    }
    assert!(factor(&kfac, 0, Side::Input).data.iter().all(|x| x.is_finite()));
    let refused = kfac.observe(2).add(0, &Rows(two), OutputGradients::per_case(two), scratch);
    let largest = f64::from(large[0]);
    let kind = LayerErrorKind::Overflow { quantity: Quantity::Inputs, largest };
    assert_eq!(refused, Err(LayerError { layer: 0, kind }));

    let identity = [1.0_f32, 0.0, 0.0, 1.0];
    let no_trace = [6e37_f32, 0.0, 0.0, -6e37];
    let [good, large] = [&identity, &no_trace].map(|moment| MatRef::row_major(moment, 2, 2).unwrap());
    let (mut room, net) = (Room::<f32>::new::<Factored, Reproducible>(&net), net);
    let (mut kfac, scratch) = room.precondition(&net, Factored, Reproducible);
    let refused = kfac.observe(1).add_moments(0, Moments { a: good, g: large, positions: 1.0 }, scratch);
    let largest = f64::from(no_trace[0]);
    let kind = LayerErrorKind::Overflow { quantity: Quantity::OutputMoment, largest };
    assert_eq!(refused, Err(LayerError { layer: 0, kind }));
}

/// Cases beyond those announced are refused whole, and the ones that were announced count as before.
#[test]
fn more_cases_than_announced_are_refused_with_both_numbers() {
    struct TooMany;
    impl Body for TooMany {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let mut room = Room::new::<M, Reproducible>(&NET);
            let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
            let (evidence, identity) = (Evidence::<T>::at(0, 0), Evidence::<T>::at(0, 1));
            let mut observation = kfac.observe(CASES - 1);
            let error = |found| {
                let kind = LayerErrorKind::TooManyCases { announced: CASES - 1, found };
                Err(LayerError { layer: 0, kind })
            };
            assert_eq!(evidence.add(&mut observation, 0, scratch), error(CASES));
            evidence.add_cases(&mut observation, 0, 0..CASES - 2, scratch).unwrap();
            assert_eq!(evidence.add_cases(&mut observation, 0, 0..2, scratch), error(CASES));
            evidence.add_cases(&mut observation, 0, 0..1, scratch).unwrap();
            // Each layer counts its own, and each observation anew.
            identity.add_cases(&mut observation, 1, 0..CASES - 1, scratch).unwrap();
            evidence.add(&mut kfac.observe(CASES), 0, scratch).unwrap();
        }
    }
    for_every_map(&TooMany);
}

#[test]
fn output_gradients_of_an_impossible_scale_are_refused() {
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let good = Evidence::at(0, 0);
    let a = Rows(MatRef::row_major(&good.inputs, CASES, 4).unwrap());
    let g = MatRef::row_major(&good.gradients, CASES, 3).unwrap();
    let before = saved(&kfac);
    let of_weight = |weight| OutputGradients::of_weighted_nll(g, weight);
    for gradients in [
        OutputGradients::of_mean_loss(g, 0),
        of_weight(0.0),
        of_weight(-1.0),
        of_weight(f64::NAN),
        of_weight(f64::INFINITY),
    ] {
        let LayerError { layer: 0, kind: LayerErrorKind::GradientScale { factor } } =
            kfac.observe(CASES).add(0, &a, gradients, scratch).unwrap_err()
        else {
            panic!("not refused by name: {}", gradients.factor())
        };
        assert_eq!(factor.to_bits(), gradients.factor().to_bits());
        assert_eq!(saved(&kfac), before, "{factor}");
    }
}

#[test]
fn evidence_that_does_not_fit_its_own_description_is_a_shape_error() {
    let numbers = [0.0_f64; 30];
    let rows = MatRef::row_major(&numbers, 6, 5).unwrap();
    let found = [6, 5];
    for (sequence, expected, found) in [
        (Sequence::new(rows, 4), [4, 5], found),
        (Sequence::new(rows, 0), [0, 5], found),
        (Sequence::with_lengths(rows, 3, &[1, 2, 3]), [9, 5], found),
        (Sequence::with_lengths(rows, 3, &[1, 4]), [3, 5], [4, 5]),
        (Sequence::with_lengths(rows, 0, &[]), [0, 5], found),
    ] {
        assert_eq!(sequence.err(), Some(ShapeError { expected, found }));
    }
    let window = Window::new(2, [3, 5], [2, 2]);
    assert!(Patches::new(&numbers, window).is_ok());
    assert!(Patches::new(&numbers[1..], window).is_err());
    assert!(Patches::new(&numbers, Window::new(2, [3, 5], [4, 2])).is_err());
    assert!(Patches::new(&numbers, Window::new(0, [3, 5], [2, 2])).is_err());
    assert!(Patches::new(&numbers, window.with_stride([0, 1])).is_err());
    assert!(Patches::new(&numbers, window.with_dilation([1, 0])).is_err());
    assert!(Patches::new(&numbers, Window::new(usize::MAX, [3, 5], [2, 2])).is_err());
    assert!(Patches::new(&numbers, Window::new(2, [3, 5], [usize::MAX, 2])).is_err());
    // Padding is free: the images are whole, but no gradients have that many rows.
    let endless = window.with_padding([[usize::MAX, 0], [0, usize::MAX]]);
    let gradients = MatRef::row_major(&numbers, 10, 3).unwrap();
    let net = [LayerShape::convolution(window, 3)];
    let mut room = Room::new::<Factored, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Factored, Reproducible);
    let patches = Patches::new(&numbers, endless).unwrap();
    let refused = kfac.observe(1).add(0, &patches, OutputGradients::per_case(gradients), scratch);
    let kind = shape_error(Quantity::OutputGradients, [usize::MAX, 3], [10, 3]);
    assert_eq!(refused, Err(LayerError { layer: 0, kind }));
}

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
                // The rotation of `Eigenbasis` spreads the infinity: any place may be the first.
                let LayerErrorKind::NotFinite { quantity: Quantity::Preconditioned, .. } = error.kind else {
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
}

#[test]
fn storage_that_does_not_fit_is_refused() {
    let needed = state_len(&NET, <Factored as Map<f64>>::LAYOUT);
    let new = |net: &[LayerShape], numbers: usize, slots: usize| {
        let (mut numbers, mut slots) = (vec![0.0; numbers], vec![LayerSlot::EMPTY; slots]);
        let storage =
            Storage { numbers: Buffer::Borrowed(&mut numbers), slots: Buffer::Borrowed(&mut slots) };
        Preconditioner::new(net, Factored, Reproducible, storage).map(|_| ())
    };
    assert_eq!(new(&NET, needed, 3), Ok(()));
    assert_eq!(new(&NET, needed + 1, 4), Ok(()));
    let found = needed - 1;
    assert_eq!(new(&NET, found, 3), Err(StorageError::Numbers { needed, found }));
    assert_eq!(new(&NET, needed, 2), Err(StorageError::Slots { needed: 3, found: 2 }));
    for empty in [LayerShape::dense(3, 0), LayerShape::dense(0, 2).without_bias()] {
        assert_eq!(new(&[NET[0], empty], 100, 2), Err(StorageError::EmptyLayer { layer: 1 }));
    }
}

/// Lengths of impossible shapes saturate, and what no storage can hold is refused.
#[test]
fn shapes_beyond_all_memory_are_refused_and_never_wrap_around() {
    let max = usize::MAX;
    for shape in [
        LayerShape::dense(max, 1),
        LayerShape::dense(1, max),
        LayerShape::dense(max, max).without_bias(),
        LayerShape::recurrent(max, max),
        LayerShape::recurrent(max / 2, 3),
        LayerShape::dense(1 << (usize::BITS / 2 + 1), 1 << (usize::BITS / 2 + 1)),
        LayerShape::convolution(Window::new(max, [3, 3], [3, 3]), 2),
    ] {
        fn refused<M: Map<f32>>(shape: LayerShape, map: M) {
            let net = [NET[0], shape, shape];
            let needed = state_len(&net, M::LAYOUT);
            assert_eq!(needed, usize::MAX, "{shape:?}");
            assert_eq!(scratch_len::<f32, Reproducible, M>(&net), usize::MAX, "{shape:?}");
            assert_eq!(saved_len::<f32>(&net, M::LAYOUT), usize::MAX, "{shape:?}");
            let (mut numbers, mut slots) = (vec![0.0; 100], vec![LayerSlot::EMPTY; 3]);
            let storage =
                Storage { numbers: Buffer::Borrowed(&mut numbers), slots: Buffer::Borrowed(&mut slots) };
            let error = Preconditioner::new(&net, map, Reproducible, storage).err();
            assert_eq!(error, Some(StorageError::Numbers { needed, found: 100 }), "{shape:?}");
            #[cfg(feature = "alloc")]
            {
                let refused = Some(StorageError::Numbers { needed, found: 0 });
                let error = Preconditioner::on_heap(&net, map, Reproducible).err();
                assert_eq!(error, refused, "{shape:?}");
                assert_eq!(Storage::<f32>::on_heap(&net, M::LAYOUT).err(), refused, "{shape:?}");
            }
            assert!(Schedule::EVERY_STEP.worst_step_flops(&net, map.cost()) > 0);
        }
        refused(shape, Factored);
        refused(shape, Eigenbasis::full());
    }
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
    let map = Eigenbasis { budget: Budget { sweeps: 1, tolerance: 0.5, accept: 0.0 } };
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

/// A state to restore, of a net with layers that differ, and its bytes.
fn with_saved_state(check: impl FnOnce(&mut Preconditioner<'_, f32, Factored, Reproducible>, Vec<u8>)) {
    let mut room = Room::<f32>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    (0..3).for_each(|step| drop(run::step(&mut kfac, step, scratch)));
    let bytes = saved(&kfac);
    check(&mut kfac, bytes);
}

#[test]
fn saved_bytes_that_are_cut_short_or_too_long_are_refused() {
    with_saved_state(|kfac, bytes| {
        assert_eq!(bytes.len(), kfac.saved_len());
        for len in 0..bytes.len() {
            let error = kfac.verify(&bytes[..len]).err();
            let named = matches!(error, Some(StateError::Magic | StateError::Length { .. }));
            assert!(named, "cut to {len}: {error:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        let (needed, found) = (bytes.len(), longer.len());
        assert_eq!(kfac.verify(&longer).err(), Some(StateError::Length { needed, found }));
        assert_eq!(saved(kfac), bytes);
    });
}

#[test]
fn saved_bytes_with_any_one_byte_changed_are_refused() {
    with_saved_state(|kfac, bytes| {
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                damaged[at] ^= flip;
                assert!(kfac.verify(&damaged).is_err(), "byte {at} of {} flipped by {flip:#x}", bytes.len());
                damaged[at] ^= flip;
            }
        }
        assert_eq!(saved(kfac), bytes);
    });
}

#[test]
fn saved_bytes_of_another_program_map_network_or_number_type_are_refused_by_name() {
    with_saved_state(|kfac, bytes| {
        let with = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            changed
        };
        assert_eq!(kfac.verify(&with(0, b'X')).err(), Some(StateError::Magic));
        assert_eq!(kfac.verify(&with(4, 2)).err(), Some(StateError::Version { found: 2 }));
        assert_eq!(kfac.verify(&with(6, 8)).err(), Some(StateError::NumberType { bytes: 8 }));

        let mut room = Room::<f32>::new::<Eigenbasis, Reproducible>(&NET);
        let (other, _) = room.precondition(&NET, Eigenbasis::full(), Reproducible);
        assert_eq!(kfac.verify(&saved(&other)).err(), Some(StateError::Map { expected: "factored" }));
        let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
        let (other, _) = room.precondition(&NET, Factored, Reproducible);
        assert_eq!(kfac.verify(&saved(&other)).err(), Some(StateError::NumberType { bytes: 8 }));

        let [first, second, third] = NET;
        for (net, error) in [
            (vec![first, second], StateError::Layers { expected: 3, found: 2 }),
            (
                vec![first, LayerShape::dense(4, 5).without_bias(), third],
                StateError::Shape {
                    layer: 1,
                    expected: second,
                    found: LayerShape::dense(4, 5).without_bias(),
                },
            ),
            // The same sizes, with the last input a bias.
            (
                vec![first, LayerShape::dense(2, 5), third],
                StateError::Shape { layer: 1, expected: second, found: LayerShape::dense(2, 5) },
            ),
        ] {
            let mut room = Room::<f32>::new::<Factored, Reproducible>(&net);
            let (other, _) = room.precondition(&net, Factored, Reproducible);
            assert_eq!(kfac.verify(&saved(&other)).err(), Some(error));
        }
        assert_eq!(saved(kfac), bytes);
    });
}

/// FNV-1a over all but the last 8 bytes, which it replaces: damage that the checksum does not see.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len() - 8;
    let hash = bytes[..content].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    bytes[content..].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// Written by a broken program, say: the checksum is right, the numbers are not.
#[test]
fn saved_numbers_that_no_run_leaves_behind_are_refused_with_their_layer() {
    with_saved_state(|kfac, bytes| {
        assert_eq!(with_checksum(bytes.clone()), bytes);
        let step = 19 + 9 * NET.len();
        let slot = |layer: usize| step + 8 + 4 + 46 * layer;
        let numbers = slot(NET.len());
        let (nan, infinity) = (f64::NAN.to_le_bytes(), f64::INFINITY.to_le_bytes());
        for (what, at, value, layer) in [
            ("the step", step, &u64::MAX.to_le_bytes()[..], None),
            ("a damping of 0", step + 8, &0.0_f32.to_le_bytes(), None),
            ("a damping that is not finite", step + 8, &f32::INFINITY.to_le_bytes(), None),
            ("updates without a weight", slot(1) + 4, &0.0_f64.to_le_bytes(), Some(1)),
            ("a negative weight", slot(2) + 12, &(-1.0_f64).to_le_bytes(), Some(2)),
            ("a weight that is not finite", slot(0) + 4, &nan, Some(0)),
            ("a weight without updates", slot(1), &0_u32.to_le_bytes(), Some(1)),
            ("a refresh to come", slot(1) + 28, &1000_u64.to_le_bytes(), Some(1)),
            ("an infinite damping in force", slot(2) + 36, &infinity, Some(2)),
            ("the first number", numbers, &f32::NAN.to_le_bytes(), Some(0)),
            ("the last number", bytes.len() - 12, &f32::NEG_INFINITY.to_le_bytes(), Some(LAST)),
        ] {
            let mut changed = bytes.clone();
            changed[at..at + value.len()].copy_from_slice(value);
            let error = kfac.verify(&with_checksum(changed)).err();
            assert_eq!(error, Some(StateError::Value { layer }), "{what}");
        }
        assert_eq!(saved(kfac), bytes);
    });
    let shapes = [LayerShape::dense(2, 5).without_bias(), LayerShape::dense(1, 5)];
    let [expected, found] = shapes;
    assert_eq!(
        StateError::Shape { layer: 1, expected, found }.to_string(),
        "saved layer 1 is 5 x 2 with bias, the network's is 5 x 2 without bias"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Bytes from anywhere: refused, never a panic, and the state is left alone.
    #[test]
    fn random_bytes_are_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..3_000),
        kept in 0_usize..200,
    ) {
        with_saved_state(|kfac, good| {
            // A true beginning leads further into the reader.
            let kept = kept.min(bytes.len());
            bytes[..kept].copy_from_slice(&good[..kept]);
            assert!(kfac.verify(&bytes).is_err());
            assert_eq!(saved(kfac), good);
        });
    }
}

#[test]
fn settings_out_of_range_are_refused_with_their_name_and_value() {
    let new = |room: &mut Room<f64>, set: &dyn Fn(Kfac<'_>) -> Result<(), SettingError>| {
        set(room.precondition(&NET, Factored, Reproducible).0)
    };
    let mut room = Room::new::<Factored, Reproducible>(&NET);
    let mut refused = |setting, value: f64, set: &dyn Fn(Kfac<'_>) -> Result<(), SettingError>| {
        let error = new(&mut room, set).unwrap_err();
        assert_eq!((error.setting, error.value.to_bits()), (setting, value.to_bits()));
    };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused("damping", bad, &|mut kfac| kfac.set_damping(bad));
    }
    for bad in [1.0, -0.1, f64::NAN] {
        refused("decay", bad, &|kfac| kfac.with_decay(bad).map(|_| ()));
    }
    for bad in [-1e-3, f64::NAN, f64::INFINITY] {
        refused("l2", bad, &|kfac| kfac.with_l2(bad).map(|_| ()));
    }
    for (setting, statistics_every, refresh_every) in [("statistics_every", 0, 1), ("refresh_every", 1, 0)] {
        let schedule = Schedule { statistics_every, refresh_every };
        refused(setting, 0.0, &|kfac| kfac.with_schedule(schedule).map(|_| ()));
    }
    for bad in [0.0, -1.0, f64::NAN] {
        refused("kappa", bad, &|_| KlClip::new(bad).map(|_| ()));
        refused("lambda", bad, &|_| LevenbergMarquardt::new(bad, AdaptationRule::feed_forward()).map(|_| ()));
        refused("floor of the step bound", bad, &|_| StepBound::adaptive(0.1, [bad, 1.0]).map(|_| ()));
    }
    for bad in [0.9e-8, 1.1e6, f64::INFINITY] {
        refused("lambda", bad, &|_| LevenbergMarquardt::new(bad, AdaptationRule::feed_forward()).map(|_| ()));
    }
    let text = SettingError { setting: "decay", value: 1.0 }.to_string();
    assert_eq!(text, "decay is out of its range at 1e0");
}

type Kfac<'r> = Preconditioner<'r, f64, Factored, Reproducible>;

#[test]
fn a_loss_that_is_not_finite_rejects_the_step() {
    for after in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut damping = LevenbergMarquardt::new(1.0, AdaptationRule::feed_forward()).unwrap();
        assert_eq!(damping.judge(-0.1, 1.0, after), Verdict::Rejected, "{after}");
    }
}

#[test]
fn errors_read_as_sentences_with_the_layer_and_the_number() {
    let at = |layer, kind| LayerError { layer, kind }.to_string();
    let quantity = Quantity::OutputGradients;
    assert_eq!(
        at(4, LayerErrorKind::NotFinite { quantity, row: 31, column: 7 }),
        "layer 4: a number of the output gradients is not finite: row 31, column 7"
    );
    assert_eq!(
        at(0, shape_error(Quantity::Inputs, [6, 4], [6, 3])),
        "layer 0: wrong shape of the inputs: 6 x 3 instead of 6 x 4"
    );
    assert_eq!(
        at(1, LayerErrorKind::Overflow { quantity: Quantity::Inputs, largest: 1e30 }),
        "layer 1: the squares of the inputs overflow, the largest magnitude is 1e30"
    );
    let error = CholeskyError::NotPositiveDefinite { pivot: 2, value: -0.5 };
    let third = LayerErrorKind::ThirdFailure(MapError::Inverse { side: Side::Output, error });
    assert_eq!(
        at(2, third),
        "layer 2: the third refresh in a row failed: the gradient factor cannot be inverted: the matrix is not \
         positive definite: pivot 2 is -5e-1"
    );
}
