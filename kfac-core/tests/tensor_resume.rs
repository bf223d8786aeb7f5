//! Resume is exact for tensors too, and saved bytes that do not fit are refused whole.

mod common;

use common::tensor::{TensorRoom, saved};
use common::{bits, random};
use kfac_core::LayerErrorKind;
use kfac_core::linalg::eigh::Jacobi;
use kfac_core::linalg::{Fast, Kernel, Reproducible, Scalar};
use kfac_core::saved::StateError;
use kfac_core::schedule::Schedule;
use kfac_core::tensor::{
    Accumulation, BasisRefresh, GradientMap, Grafting, Shampoo, Soap, TensorPreconditioner, TensorShape,
    saved_len, state_len,
};

/// A matrix, a tensor with an axis that is left alone, a vector, a scalar.
const NET: [TensorShape; 4] = [
    TensorShape::new([4, 3]),
    TensorShape::new([2, 6, 3]).limited(4),
    TensorShape::new([5]),
    TensorShape::new([]),
];
/// Statistics every 2 steps, axes dealt over 3: a checkpoint falls into the middle of both periods.
const SCHEDULE: Schedule = Schedule { statistics_every: 2, refresh_every: 3 };
const STEPS: usize = 9;

/// All that a step leaves behind.
type Mark = (Vec<u8>, Vec<Vec<u64>>);

fn step<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    preconditioner: &mut TensorPreconditioner<'_, T, M, K>,
    step: usize,
    scratch: &mut [T],
) -> Mark {
    let seeds = (0_u64..).map(|tensor| 10 * step as u64 + tensor);
    let mut u: Vec<Vec<T>> =
        NET.iter().zip(seeds).map(|(shape, seed)| random(shape.entries(), seed)).collect();
    preconditioner.step(&mut u, scratch).unwrap();
    (saved(preconditioner), u.iter().map(|u| bits(u)).collect())
}

/// The marks of steps `from..`, going on from saved bytes where there are any.
fn marks<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    map: M,
    kernel: K,
    from: usize,
    state: Option<&[u8]>,
) -> Vec<Mark> {
    let mut room = TensorRoom::new(&NET, map);
    let (preconditioner, scratch) = room.precondition(&NET, map, kernel);
    let mut preconditioner = preconditioner.with_schedule(SCHEDULE).unwrap();
    if let Some(state) = state {
        preconditioner.verify(state).unwrap().restore();
        assert_eq!(saved(&preconditioner), state, "{}: the bytes change on a round trip", M::NAME);
    }
    (from..STEPS).map(|at| step(&mut preconditioner, at, scratch)).collect()
}

fn shampoo<T: Scalar>() -> Shampoo<T> {
    let t = T::from_f64;
    Shampoo {
        grafting: Grafting::Adam { decay: t(0.875), epsilon: t(1e-3) },
        warm_up: 2,
        beta1: Some(t(0.75)),
        ..Shampoo::new(Accumulation::CorrectedAverage { decay: t(0.75), epsilon: t(0.125) })
    }
}

#[test]
fn a_run_that_was_interrupted_after_any_step_continues_to_the_bit() {
    fn resumes<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(map: M, kernel: K) {
        let whole = marks::<T, M, K>(map, kernel, 0, None);
        for after in 0..STEPS {
            let resumed = marks::<T, M, K>(map, kernel, after + 1, Some(&whole[after].0));
            assert_eq!(resumed, whole[after + 1..], "saved after step {after} of {}", M::NAME);
        }
    }
    fn of_type<T: Scalar, K: Kernel<T>>(kernel: K) {
        resumes::<T, _, K>(shampoo(), kernel);
        resumes::<T, _, K>(shampoo().with_solver(Jacobi::default()), kernel);
        resumes::<T, _, K>(Soap::published(), kernel);
        resumes::<T, _, K>(Soap { refresh: BasisRefresh::Decomposition, ..Soap::published() }, kernel);
    }
    of_type::<f64, _>(Reproducible);
    of_type::<f32, _>(Reproducible);
    of_type::<f64, _>(Fast::detect());
    of_type::<f32, _>(Fast::detect());
}

/// Two failures, a checkpoint, and the next one is the third.
#[test]
fn failures_are_counted_across_an_interruption() {
    // Without an epsilon, nothing has no root.
    let map = Shampoo::new(Accumulation::Sum { epsilon: 0.0_f64 });
    let net = [TensorShape::new([2, 3])];
    let (mut room, mut other) = (TensorRoom::new(&net, map), TensorRoom::new(&net, map));
    let (mut tensors, scratch) = room.precondition(&net, map, Reproducible);
    tensors.observe(&[[0.0; 6]], scratch).unwrap();
    (0..2).for_each(|_| assert_eq!(tensors.refresh(scratch).unwrap().failures, 2));
    let (mut resumed, scratch) = other.precondition(&net, map, Reproducible);
    resumed.verify(&saved(&tensors)).unwrap().restore();
    assert_eq!(resumed.tensor_report(0), tensors.tensor_report(0));
    assert_eq!(resumed.tensor_report(0).unwrap().failures, 2);
    let error = resumed.refresh(scratch).unwrap_err();
    assert!(matches!(error.kind, LayerErrorKind::ThirdFailure(_)), "{error}");
}

/// A state to restore and its bytes.
fn with_saved_state(
    check: impl FnOnce(&mut TensorPreconditioner<'_, f32, Shampoo<f32>, Reproducible>, Vec<u8>),
) {
    let mut room = TensorRoom::new(&NET, shampoo());
    let (mut preconditioner, scratch) = room.precondition(&NET, shampoo(), Reproducible);
    let (bytes, _) = (0..3).map(|at| step(&mut preconditioner, at, scratch)).last().unwrap();
    check(&mut preconditioner, bytes);
}

#[test]
fn a_saved_state_is_as_long_as_promised_and_little_else_than_the_numbers() {
    with_saved_state(|preconditioner, bytes| {
        let layout = shampoo::<f32>().layout();
        assert_eq!([preconditioner.saved_len(), saved_len::<f32>(&NET, layout)], [bytes.len(); 2]);
        let numbers = 4 * state_len(&NET, layout);
        assert_eq!(bytes.len() - numbers, 19 + 8 + 8 + NET.len() * (37 + 104));
    });
}

#[test]
fn saved_bytes_cut_short_too_long_or_damaged_are_refused() {
    with_saved_state(|preconditioner, bytes| {
        for len in 0..bytes.len() {
            let error = preconditioner.verify(&bytes[..len]).err();
            let named = matches!(error, Some(StateError::Magic | StateError::Length { .. }));
            assert!(named, "cut to {len}: {error:?}");
        }
        let (needed, found) = (bytes.len(), bytes.len() + 1);
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(preconditioner.verify(&longer).err(), Some(StateError::Length { needed, found }));
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            damaged[at] ^= 0x80;
            assert!(preconditioner.verify(&damaged).is_err(), "byte {at}");
            damaged[at] ^= 0x80;
        }
        assert_eq!(saved(preconditioner), bytes);
    });
}

#[test]
fn saved_bytes_of_another_map_or_shape_are_refused_by_name() {
    with_saved_state(|preconditioner, bytes| {
        let other = |net: &[TensorShape]| {
            let mut room = TensorRoom::new(net, shampoo());
            saved(&room.precondition(net, shampoo::<f32>(), Reproducible).0)
        };
        let [first, second, third, last] = NET;
        for (tensor, net) in [
            (0, [TensorShape::new([3, 4]), second, third, last]),
            (1, [first, second.limited(6), third, last]),
            (2, [first, second, TensorShape::new([5, 1]), last]),
        ] {
            let error = preconditioner.verify(&other(&net)).err();
            assert_eq!(error, Some(StateError::Tensor { tensor, expected: NET[tensor] }));
        }
        let error = preconditioner.verify(&other(&NET[1..])).err();
        assert_eq!(error, Some(StateError::Layers { expected: 4, found: 3 }));
        let mut room = TensorRoom::<f32>::new(&NET, Soap::published());
        let soap = saved(&room.precondition(&NET, Soap::published(), Reproducible).0);
        assert_eq!(preconditioner.verify(&soap).err(), Some(StateError::Map { expected: "shampoo" }));
        assert_eq!(saved(preconditioner), bytes);
        let sentence = StateError::Tensor { tensor: 0, expected: first }.to_string();
        assert_eq!(sentence, "saved tensor 0 has another shape than [4, 3]");
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

#[test]
fn saved_numbers_that_no_run_leaves_behind_are_refused_with_their_tensor() {
    with_saved_state(|preconditioner, bytes| {
        let step = 19 + 37 * NET.len();
        let slot = |tensor: usize| step + 8 + 104 * tensor;
        let numbers = slot(NET.len());
        // The first tensor: two moments and roots, then the second moment, then the first.
        let second = numbers + 4 * (10 + 16 + 6 + 9);
        for (what, at, value, layer) in [
            ("the step", step, &u64::MAX.to_le_bytes()[..], None),
            ("updates without a weight", slot(1) + 8, &0.0_f64.to_le_bytes(), Some(1)),
            ("a weight without updates", slot(1), &0_u32.to_le_bytes(), Some(1)),
            ("a negative weight", slot(2) + 16, &(-1.0_f64).to_le_bytes(), Some(2)),
            ("a weight that is not finite", slot(0) + 24, &f64::NAN.to_le_bytes(), Some(0)),
            ("a first moment without gradients", slot(3) + 4, &0_u32.to_le_bytes(), Some(3)),
            ("a refresh to come", slot(1) + 32, &1000_u64.to_le_bytes(), Some(1)),
            ("the first number", numbers, &f32::NAN.to_le_bytes(), Some(0)),
            ("a negative second moment", second, &(-1.0_f32).to_le_bytes(), Some(0)),
            ("the last number", bytes.len() - 12, &f32::INFINITY.to_le_bytes(), Some(3)),
        ] {
            let mut changed = bytes.clone();
            changed[at..at + value.len()].copy_from_slice(value);
            let error = preconditioner.verify(&with_checksum(changed)).err();
            assert_eq!(error, Some(StateError::Value { layer }), "{what}");
        }
        // A negative number is no fault where no square lies.
        for at in [numbers, second - 4, second + 4 * 12] {
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&(-1.0_f32).to_le_bytes());
            assert!(preconditioner.verify(&with_checksum(changed)).is_ok());
        }
        assert_eq!(saved(preconditioner), bytes);
    });
}
