//! Evidence that cannot be learnt from is refused by name, its layer is left as it was, and the steps after it are equal
//! to the bit to a run in which the bad call was not made.

mod common;

use common::bad::{Body, for_every_map, huge, infinity, nan, shape_error};
use common::run::{self, CASES, Evidence, LAST, NET};
use common::{Room, factor, saved};
use kfac_core::error::Quantity;
use kfac_core::evidence::{Moments, OutputGradients, Patches, Rows, Sequence};
use kfac_core::linalg::{Kernel, MatMut, MatRef, Reproducible, Scalar, ShapeError};
use kfac_core::map::{Eigenbasis, FactorMap, Factored, MomentMap, Shifted};
use kfac_core::shape::{Side, Window};
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, LayerShape, Observation};

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
    fn check<T: Scalar, M: MomentMap<T>>(map: M) {
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
    check::<f64, _>(Factored);
    check::<f32, _>(Factored);
    check::<f64, _>(Eigenbasis::full());
    check::<f32, _>(Shifted::full());
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
        assert_eq!(sequence.err(), Some(ShapeError::new(expected, found)));
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
