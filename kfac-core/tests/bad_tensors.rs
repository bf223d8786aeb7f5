//! Bad gradients, settings, storage and second moments of tensors: refused by name, nothing changed.
#![cfg(feature = "alloc")] // Some of its storage is on the heap.

mod common;

use common::bad::{huge, infinity, nan, shape_error};
use common::random;
use common::tensor::{TensorRoom, saved};
use kfac_core::error::{Quantity, SettingError};
use kfac_core::linalg::eigh::jacobi::Budget;
use kfac_core::linalg::eigh::roots::RootError;
use kfac_core::linalg::eigh::{EighError, Jacobi};
use kfac_core::linalg::{Reproducible, Scalar, ScratchError};
use kfac_core::map::MapError;
use kfac_core::memory::{Buffer, Storage, StorageError};
use kfac_core::schedule::Schedule;
use kfac_core::tensor::{
    Accumulation, AxisError, BasisRefresh, GradientMap, Grafting, RootOrder, Shampoo, Soap,
    TensorPreconditioner, TensorSetupError, TensorShape, TensorSlot, scratch_len, state_len,
};
use kfac_core::{LayerError, LayerErrorKind};

const NET: [TensorShape; 3] = [TensorShape::new([3, 2]), TensorShape::new([2, 2, 3]), TensorShape::new([4])];

/// A body for both maps and number types.
trait Body {
    fn run<T: Scalar, M: GradientMap<T>>(&self, map: M);
}

fn for_every_map(body: &impl Body) {
    fn of_type<T: Scalar>(body: &impl Body) {
        let t = T::from_f64;
        let shampoo = Shampoo::new(Accumulation::Sum { epsilon: t(0.125) });
        body.run::<T, _>(shampoo);
        let grafting = Grafting::Adam { decay: t(0.5), epsilon: t(1e-4) };
        body.run::<T, _>(Shampoo { grafting, beta1: Some(t(0.5)), ..shampoo });
        body.run::<T, _>(Soap::published());
        body.run::<T, _>(Soap { refresh: BasisRefresh::Decomposition, ..Soap::published() });
    }
    of_type::<f32>(body);
    of_type::<f64>(body);
}

fn gradients<T: Scalar>(seed: u64) -> Vec<Vec<T>> {
    (0..).zip(NET).map(|(tensor, shape)| random(shape.entries(), seed + 10 * tensor)).collect()
}

type Tensors<'s, T, M> = TensorPreconditioner<'s, T, M, Reproducible>;

/// What every verb answers to these gradients; none of them may change anything.
fn answers<T: Scalar, M: GradientMap<T>>(
    preconditioner: &mut Tensors<'_, T, M>,
    bad: &[Vec<T>],
    scratch: &mut [T],
) -> LayerError {
    let before = saved(preconditioner);
    let same = |got: &[Vec<T>]| assert_eq!(format!("{got:?}"), format!("{bad:?}"));
    let error = preconditioner.observe(bad, scratch).unwrap_err();
    let mut u = bad.to_vec();
    assert_eq!(preconditioner.precondition(&mut u, scratch), Err(error));
    same(&u);
    assert_eq!(preconditioner.step(&mut u, scratch), Err(error));
    same(&u);
    assert_eq!(saved(preconditioner), before, "{error}");
    error
}

struct BadGradients;

impl Body for BadGradients {
    fn run<T: Scalar, M: GradientMap<T>>(&self, map: M) {
        let mut room = TensorRoom::new(&NET, map);
        let (mut preconditioner, scratch) = room.precondition(&NET, map, Reproducible);
        for seed in 0..3 {
            preconditioner.step(&mut gradients(seed), scratch).unwrap();
        }
        let quantity = Quantity::Gradient;
        let good = gradients::<T>(7);
        for value in [nan::<T>(), infinity()] {
            // Of sides 2, 2, 3: rows of three.
            for (tensor, at, row, column) in [(0, 0, 0, 0), (1, 7, 2, 1), (1, 11, 3, 2), (2, 3, 0, 3)] {
                let mut bad = good.clone();
                bad[tensor][at] = value;
                let kind = LayerErrorKind::NotFinite { quantity, row, column };
                let error = answers(&mut preconditioner, &bad, scratch);
                assert_eq!(error, LayerError { layer: tensor, kind });
            }
        }
        let mut bad = good.clone();
        bad[2][1] = huge();
        let kind = LayerErrorKind::Overflow { quantity, largest: huge::<T>().to_f64() };
        assert_eq!(answers(&mut preconditioner, &bad, scratch), LayerError { layer: 2, kind });

        for len in [11, 13] {
            let mut bad = good.clone();
            bad[1].resize(len, T::ONE);
            let kind = shape_error(quantity, [12, 1], [len, 1]);
            assert_eq!(answers(&mut preconditioner, &bad, scratch), LayerError { layer: 1, kind });
        }
        let kind = shape_error(quantity, [4, 1], [0, 1]);
        assert_eq!(answers(&mut preconditioner, &good[..2], scratch), LayerError { layer: 2, kind });
        let more = [&good[..], &good[..1]].concat();
        let kind = LayerErrorKind::NoSuchLayer { layers: 3 };
        assert_eq!(answers(&mut preconditioner, &more, scratch), LayerError { layer: 3, kind });

        let (needed, found) = (preconditioner.scratch_len(), preconditioner.scratch_len() - 1);
        let kind = LayerErrorKind::Scratch(ScratchError { needed, found });
        let short = &mut scratch[..found];
        assert_eq!(answers(&mut preconditioner, &good, short), LayerError { layer: 0, kind });
        assert_eq!(preconditioner.refresh(short), Err(LayerError { layer: 0, kind }));
        assert_eq!(preconditioner.refresh_all(short), Err(LayerError { layer: 0, kind }));
    }
}

#[test]
fn bad_gradients_are_refused_by_every_verb_and_nothing_changes() {
    for_every_map(&BadGradients);
}

/// Each gradient has room, their sum has not.
#[test]
fn second_moments_that_would_overflow_are_refused() {
    let net = [TensorShape::new([2]), TensorShape::new([2])];
    let large = 8e18_f32;
    let sum = Shampoo::new(Accumulation::Sum { epsilon: 1.0 });
    let adagrad = Grafting::AdaGrad { epsilon: 1.0 };
    let fading = Accumulation::Average { decay: 0.0, epsilon: 1.0 };
    for map in [sum, Shampoo { accumulation: fading, grafting: adagrad, ..sum }] {
        let mut room = TensorRoom::new(&net, map);
        let (mut preconditioner, scratch) = room.precondition(&net, map, Reproducible);
        let gradients = [[1.0, 1.0], [large, 0.0]];
        preconditioner.observe(&gradients, scratch).unwrap();
        let before = saved(&preconditioner);
        let error = preconditioner.observe(&gradients, scratch).unwrap_err();
        let kind = LayerErrorKind::Overflow { quantity: Quantity::Gradient, largest: large.into() };
        assert_eq!(error, LayerError { layer: 1, kind });
        assert_eq!(saved(&preconditioner), before);
        preconditioner.observe(&[[1.0, 1.0], [1e10, 0.0]], scratch).unwrap();
    }
}

struct NotYet;

impl Body for NotYet {
    fn run<T: Scalar, M: GradientMap<T>>(&self, map: M) {
        let mut room = TensorRoom::new(&NET, map);
        let (preconditioner, scratch) = room.precondition(&NET, map, Reproducible);
        let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
        let mut preconditioner = preconditioner.with_schedule(schedule).unwrap();
        let g = gradients::<T>(1);
        let refused = |preconditioner: &mut Tensors<'_, T, M>, scratch: &mut [T], kind| {
            let mut u = g.clone();
            let error = preconditioner.precondition(&mut u, scratch).unwrap_err();
            assert_eq!((error.kind, &u), (kind, &g));
        };
        assert_eq!(preconditioner.refresh(scratch).unwrap().without_statistics, 3);
        refused(&mut preconditioner, scratch, LayerErrorKind::NoStatistics);
        preconditioner.observe(&g, scratch).unwrap();
        assert_eq!(preconditioner.refresh(scratch).unwrap().units, 3);
        refused(&mut preconditioner, scratch, LayerErrorKind::NotReady);
        assert_eq!(preconditioner.tensor_report(0).unwrap().age, None);
        preconditioner.refresh(scratch).unwrap();
        assert!(preconditioner.is_ready());
        if M::NAME == "soap" {
            refused(&mut preconditioner, scratch, LayerErrorKind::NoMomentsInBasis);
            preconditioner.observe(&g, scratch).unwrap();
        }
        let mut u = g.clone();
        preconditioner.precondition(&mut u, scratch).unwrap();
    }
}

#[test]
fn a_tensor_is_never_preconditioned_by_what_is_not_there_yet() {
    for_every_map(&NotYet);
}

/// While it warms up, the grafted method needs no root; then there must be one.
#[test]
fn a_warm_up_needs_no_roots_and_its_end_does() {
    let shampoo = Shampoo::new(Accumulation::Sum { epsilon: 0.5_f64 });
    let map = Shampoo { grafting: Grafting::Sgd, warm_up: 2, ..shampoo };
    let mut room = TensorRoom::new(&NET, map);
    let (mut preconditioner, scratch) = room.precondition(&NET, map, Reproducible);
    let g = gradients::<f64>(1);
    for _ in 0..2 {
        preconditioner.observe(&g, scratch).unwrap();
        let mut u = g.clone();
        preconditioner.precondition(&mut u, scratch).unwrap();
        assert_eq!(u, g);
    }
    let error = preconditioner.precondition(&mut g.clone(), scratch).unwrap_err();
    assert_eq!(error, LayerError { layer: 0, kind: LayerErrorKind::NotReady });
}

struct ZeroGradients;

impl Body for ZeroGradients {
    fn run<T: Scalar, M: GradientMap<T>>(&self, map: M) {
        let mut room = TensorRoom::new(&NET, map);
        let (mut preconditioner, scratch) = room.precondition(&NET, map, Reproducible);
        for step in 0..4 {
            let mut u: Vec<Vec<T>> = NET.iter().map(|shape| vec![T::ZERO; shape.entries()]).collect();
            let report = preconditioner.step(&mut u, scratch).unwrap();
            assert!(u.iter().flatten().all(|&u| u == T::ZERO), "{} at step {step}: {u:?}", M::NAME);
            assert_eq!((report.refresh.units, report.refresh.failures), (6, 0));
        }
        // And then there is something.
        let mut u = gradients::<T>(3);
        preconditioner.step(&mut u, scratch).unwrap();
        assert!(u.iter().flatten().all(|u| u.is_finite()) && u.iter().flatten().any(|&u| u != T::ZERO));
    }
}

#[test]
fn zero_gradients_give_zero_steps() {
    for_every_map(&ZeroGradients);
}

/// Without an epsilon and without a gradient, a second moment of nothing: no root.
#[test]
fn a_root_that_fails_stays_in_force_and_the_third_failure_is_an_error() {
    let map = Shampoo::new(Accumulation::Average { decay: 0.0_f64, epsilon: 0.0 });
    let net = [TensorShape::new([2]), TensorShape::new([2])];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, Reproducible);
    let (good, zero) = ([[1.0, 2.0], [0.0, 4.0]], [[3.0, 1.0], [0.0, 0.0]]);
    preconditioner.step(&mut good.clone(), scratch).unwrap();
    let expected = LayerErrorKind::ThirdFailure(MapError::Axis {
        axis: 0,
        error: AxisError::Root(RootError::Singular { index: 0 }),
    });
    for failures in 1..=4 {
        preconditioner.observe(&zero, scratch).unwrap();
        let outcome = preconditioner.refresh(scratch);
        let reports = [0, 1].map(|tensor| preconditioner.tensor_report(tensor).unwrap());
        assert_eq!(reports.map(|report| report.failures), [0, failures]);
        assert_eq!(reports.map(|report| report.age), [Some(0), Some(u64::from(failures))]);
        if failures < 3 {
            let report = outcome.unwrap();
            assert_eq!((report.units, report.failures), (1, 1));
        } else {
            assert_eq!(outcome, Err(LayerError { layer: 1, kind: expected }));
        }
        // The root of the good one: its direction has the eigenvalue 16.
        let mut u = [[0.0, 0.0], [0.0, 8.0]];
        let preconditioned = preconditioner.precondition(&mut u, scratch).unwrap();
        assert_eq!(preconditioned.stale_layers, 1);
        assert!((u[1][1] - 2.0).abs() <= 8.0 * f64::EPSILON, "{u:?}");
    }
    preconditioner.observe(&good, scratch).unwrap();
    preconditioner.refresh(scratch).unwrap();
    assert_eq!(preconditioner.tensor_report(1).unwrap().failures, 0);
    let sentence = LayerError { layer: 1, kind: expected }.to_string();
    assert_eq!(
        sentence,
        "layer 1: the third refresh in a row failed: axis 0: no root of the second moment: eigenvalue 0 is zero, and so \
         is the floor (`Floor::Relative(n * EPSILON)` is above the noise)"
    );
}

/// No sweep suffices, and nothing but convergence is accepted.
#[test]
fn a_basis_that_cannot_be_found_is_an_error_of_its_axis() {
    let solver = Jacobi { budget: Budget { sweeps: 0, tolerance: 0.5, accept: 0.0 } };
    let Soap { beta1, beta2, shampoo_beta, epsilon, refresh, .. } = Soap::<f64>::published();
    let map = Soap { beta1, beta2, shampoo_beta, epsilon, refresh, solver };
    let net = [TensorShape::new([1, 3])];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, Reproducible);
    preconditioner.observe(&[[1.0, 2.0, 3.0]], scratch).unwrap();
    assert_eq!(preconditioner.refresh(scratch).unwrap().failures, 1);
    assert_eq!(preconditioner.refresh(scratch).unwrap().failures, 1);
    let error = preconditioner.refresh(scratch).unwrap_err();
    let LayerErrorKind::ThirdFailure(MapError::Axis { axis, error }) = error.kind else { panic!("{error}") };
    assert!(axis == 1 && matches!(error, AxisError::Eigh(EighError::BudgetSpent(_))), "{error}");
}

/// `U` beyond the range: the tensors before it are done, it is not.
#[test]
fn a_step_that_overflows_is_refused_and_its_tensor_keeps_its_state() {
    let map = Shampoo {
        root: RootOrder::Fixed(1),
        beta1: Some(0.5),
        ..Shampoo::new(Accumulation::Average { decay: 0.5_f32, epsilon: 1e-30 })
    };
    let net = [TensorShape::new([2]), TensorShape::new([2])];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, Reproducible);
    preconditioner.observe(&[[1.0, 0.0], [0.0, 0.0]], scratch).unwrap();
    preconditioner.refresh(scratch).unwrap();
    let mut u = [[1.0, 0.0], [1e12, 0.0]];
    let error = preconditioner.precondition(&mut u, scratch).unwrap_err();
    let kind = LayerErrorKind::NotFinite { quantity: Quantity::Preconditioned, row: 0, column: 0 };
    assert_eq!(error, LayerError { layer: 1, kind });
    assert_eq!(u[1], [1e12, 0.0]);
    assert_eq!(preconditioner.first_moment(1).unwrap(), [0.0, 0.0]);
    let counts = [0, 1].map(|tensor| preconditioner.tensor_report(tensor).unwrap().preconditioned);
    assert_eq!(counts, [1, 0]);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    fn refused<M: GradientMap<f64>>(map: M, setting: &'static str, value: f64) {
        let error = TensorPreconditioner::on_heap(&NET, map, Reproducible).err();
        let Some(TensorSetupError::Setting(SettingError { setting: name, value: found })) = error else {
            panic!("{setting}: {error:?}")
        };
        assert_eq!((name, found.to_bits()), (setting, value.to_bits()));
    }
    let shampoo = Shampoo::new(Accumulation::Sum { epsilon: 0.0 });
    let (epsilon, decay) = ("epsilon of the accumulation", "decay of the accumulation");
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        refused(Shampoo::new(Accumulation::Sum { epsilon: bad }), epsilon, bad);
        refused(Shampoo::new(Accumulation::Average { decay: 0.5, epsilon: bad }), epsilon, bad);
    }
    for bad in [-0.5, 1.0, f64::NAN] {
        refused(Shampoo::new(Accumulation::Average { decay: bad, epsilon: 0.0 }), decay, bad);
        refused(Shampoo::new(Accumulation::AverageFromEpsilon { decay: bad, epsilon: 0.0 }), decay, bad);
        refused(Shampoo::new(Accumulation::CorrectedAverage { decay: bad, epsilon: 0.0 }), decay, bad);
        refused(Shampoo { beta1: Some(bad), ..shampoo }, "beta1", bad);
        let grafting = Grafting::RmsProp { decay: bad, epsilon: 1.0 };
        refused(Shampoo { grafting, ..shampoo }, "decay of the grafting", bad);
        let soap = Soap::published();
        refused(Soap { beta1: Some(bad), ..soap }, "beta1", bad);
        refused(Soap { beta2: bad, ..soap }, "beta2", bad);
        refused(Soap { shampoo_beta: bad, ..soap }, "shampoo_beta", bad);
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(Soap { epsilon: bad, ..Soap::published() }, "epsilon", bad);
        let (adagrad, adam) =
            (Grafting::AdaGrad { epsilon: bad }, Grafting::Adam { decay: 0.5, epsilon: bad });
        refused(Shampoo { grafting: adagrad, ..shampoo }, "epsilon of the grafting", bad);
        refused(Shampoo { grafting: adam, ..shampoo }, "epsilon of the grafting", bad);
    }
    refused(Shampoo { warm_up: 3, ..shampoo }, "warm_up without grafting", 3.0);
    refused(Shampoo { root: RootOrder::Fixed(0), ..shampoo }, "order of the root", 0.0);
    let preconditioner = TensorPreconditioner::on_heap(&NET, shampoo, Reproducible).unwrap();
    let error = preconditioner.with_schedule(Schedule { statistics_every: 0, refresh_every: 1 }).err();
    assert_eq!(error, Some(SettingError { setting: "statistics_every", value: 0.0 }));
}

#[test]
fn storage_too_small_and_tensors_that_are_empty_or_too_large_are_refused() {
    let map = Shampoo::new(Accumulation::Sum { epsilon: 0.5_f64 });
    let attempt = |net: &[TensorShape], numbers: usize, slots: usize| {
        let (mut numbers, mut slots) = (vec![0.0; numbers], vec![TensorSlot::EMPTY; slots]);
        let storage =
            Storage { numbers: Buffer::Borrowed(&mut numbers), slots: Buffer::Borrowed(&mut slots) };
        TensorPreconditioner::new(net, map, Reproducible, storage).err()
    };
    // 9 + 4 + 6 + 3, then twice 4 + 3 and 9 + 6, then 16 + 10.
    let needed = state_len(&NET, map.layout());
    assert_eq!(needed, 22 + 29 + 26);
    assert_eq!(attempt(&NET, needed, 3), None);
    let storage = |error| Some(TensorSetupError::Storage(error));
    let found = needed - 1;
    assert_eq!(attempt(&NET, found, 3), storage(StorageError::Numbers { needed, found }));
    assert_eq!(attempt(&NET, needed, 2), storage(StorageError::Slots { needed: 3, found: 2 }));
    let empty = [NET[0], TensorShape::new([3, 0])];
    assert_eq!(attempt(&empty, 100, 2), storage(StorageError::EmptyLayer { layer: 1 }));

    for sides in [[usize::MAX, 2], [usize::MAX, usize::MAX], [1 << 40, 1 << 40], [1 << 31, 1]] {
        let net = [TensorShape::new(sides)];
        assert!(state_len(&net, map.layout()) > usize::MAX / 64, "{sides:?}");
        let _ = scratch_len::<f64>(&net, map.layout());
        let _ = scratch_len::<f32>(&net, Soap::<f32>::published().layout());
        assert!(attempt(&net, 100, 1).is_some());
        assert!(TensorPreconditioner::on_heap(&net, map, Reproducible).is_err(), "{sides:?}");
    }
}
