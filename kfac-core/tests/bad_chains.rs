//! Moments and sequences that no chain can be made of, and settings out of their range.

mod common;

use common::chain::{Chain, Chains, exact_symmetric, lag_moment};
use common::dense::{Matrix, assert_close};
use common::sequences::{Batch, NET};
use common::{Room, saved};
use kfac_core::error::{Quantity, SettingError};
use kfac_core::evidence::{ChainMoments, OutputGradients, Sequence};
use kfac_core::linalg::{MatRef, Reproducible, Scalar};
use kfac_core::map::{ChainLimit, ChainMap, ChainSymmetric, MapError};
use kfac_core::shape::Side;
use kfac_core::{LayerError, LayerErrorKind, LayerShape, Preconditioner};

#[test]
fn a_batch_that_is_masked_whole_is_empty() {
    fn check<M: ChainMap<f64>>(map: M) {
        let mut room = Room::<f64>::new::<M, Reproducible>(&NET);
        let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
        let before = saved(&kfac);
        let [a, g] = [4, 3].map(|width| vec![f64::NAN; 6 * width]);
        let a = Sequence::with_lengths(MatRef::row_major(&a, 6, 4).unwrap(), 3, &[0, 0]).unwrap();
        let g = OutputGradients::per_case(MatRef::row_major(&g, 6, 3).unwrap());
        let empty = Err(LayerError { layer: 0, kind: LayerErrorKind::EmptyBatch });
        assert_eq!(kfac.observe(2).add(0, &a, g, scratch), empty);
        assert_eq!(saved(&kfac), before);
    }
    check(ChainSymmetric::full());
    check(ChainLimit::full());
}

/// What is refused of moments, and what of them is named; the layer is left as it was.
#[test]
fn refused_chain_moments_leave_their_layer_as_it_was_and_say_what_is_wrong() {
    fn check<T: Scalar, M: ChainMap<T>>(map: M) {
        let mut room = Room::new::<M, Reproducible>(&NET);
        let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
        let eye = |n: usize| -> Vec<T> {
            (0..n * n).map(|at| T::from_usize(usize::from(at % (n + 1) == 0))).collect()
        };
        let names = [
            (Quantity::InputMoment, 5),
            (Quantity::InputLagMoment, 5),
            (Quantity::OutputMoment, 3),
            (Quantity::OutputLagMoment, 3),
        ];
        let with = |place: usize, at: usize, x: f64| {
            let mut good = names.map(|(_, n)| eye(n));
            good[place][at] = T::from_f64(x);
            good
        };
        let good_lengths = [(4, T::ONE), (2, T::ONE)];
        for step in 0..2 {
            let before = saved(&kfac);
            let mut refused = |moments: &[Vec<T>; 4], lengths: &[(usize, T)], sizes: [usize; 4], kind| {
                let at = |i: usize| MatRef::row_major(&moments[i], sizes[i], sizes[i]).unwrap();
                let moments = ChainMoments { a: at(0), a_lag: at(1), g: at(2), g_lag: at(3), lengths };
                let found = kfac.observe(7).add_chain_moments(0, moments, scratch);
                assert_eq!(found, Err(LayerError { layer: 0, kind }), "{} at step {step}", M::NAME);
                assert_eq!(saved(&kfac), before);
            };
            let sizes = names.map(|(_, n)| n);
            for (place, (quantity, n)) in names.into_iter().enumerate() {
                let (row, column) = (2, 1);
                for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let kind = LayerErrorKind::NotFinite { quantity, row, column };
                    refused(&with(place, 2 * n + 1, bad), &good_lengths, sizes, kind);
                }
                let largest = T::MAX.to_f64();
                let kind = LayerErrorKind::Overflow { quantity, largest };
                refused(&with(place, 2 * n + 1, -largest), &good_lengths, sizes, kind);
                let mut smaller = sizes;
                smaller[place] -= 1;
                let kind = common::bad::shape_error(quantity, [n, n], [n - 1, n - 1]);
                refused(&with(0, 0, 1.0), &good_lengths, smaller, kind);
            }
            // Lag moments are read above the diagonal too.
            let kind = LayerErrorKind::NotFinite { quantity: Quantity::InputLagMoment, row: 0, column: 4 };
            refused(&with(1, 4, f64::NAN), &good_lengths, sizes, kind);
            let good = with(0, 0, 1.0);
            for share in [-1.0, f64::INFINITY, T::MAX.to_f64()] {
                let kind = LayerErrorKind::LengthShare { length: 2, share };
                refused(&good, &[(4, T::ONE), (2, T::from_f64(share))], sizes, kind);
            }
            for empty in [&[][..], &[(0, T::ONE)], &[(3, T::ZERO)]] {
                refused(&good, empty, sizes, LayerErrorKind::EmptyBatch);
            }
            Batch::new(&[3, 2], 5).observe(&mut kfac, &[2], scratch);
        }
        let nan = [(1, T::from_f64(f64::NAN))];
        let good = with(0, 0, 1.0);
        let at = |i: usize| MatRef::row_major(&good[i], names[i].1, names[i].1).unwrap();
        let moments = ChainMoments { a: at(0), a_lag: at(1), g: at(2), g_lag: at(3), lengths: &nan };
        let error = kfac.observe(7).add_chain_moments(0, moments, scratch).unwrap_err();
        assert!(matches!(error.kind, LayerErrorKind::LengthShare { length: 1, share } if share.is_nan()));
        assert_eq!(error.to_string(), "layer 0: sequences of length 1 cannot have a share of NaN");
    }
    check::<f64, _>(ChainSymmetric::full());
    check::<f32, _>(ChainLimit::full());
}

/// A lag moment from outside at the end of what is accepted, and then sequences at the end of theirs.
#[test]
fn lag_sums_at_the_end_of_the_range_stay_finite_for_good() {
    let net = [LayerShape::dense(2, 2).without_bias()];
    let mut room = Room::<f32>::new::<ChainLimit, Reproducible>(&net);
    let (kfac, scratch) = room.precondition(&net, ChainLimit::full(), Reproducible);
    let mut kfac = kfac.with_decay(0.99).unwrap();
    let (eye, large) = ([1.0, 0.0, 0.0, 1.0], [0.0, 8.5e37, 0.0, 0.0]);
    let [eye, large] = [&eye, &large].map(|x| MatRef::row_major(x, 2, 2).unwrap());
    let moments = ChainMoments { a: eye, a_lag: large, g: eye, g_lag: eye, lengths: &[(1, 1.0)] };
    kfac.observe(1).add_chain_moments(0, moments, scratch).unwrap();
    let (rows, ones) = ([4.5e18_f32; 4], [1.0_f32; 4]);
    let rows = Sequence::new(MatRef::row_major(&rows, 2, 2).unwrap(), 2).unwrap();
    let g = OutputGradients::per_case(MatRef::row_major(&ones, 2, 2).unwrap());
    for _ in 0..200 {
        let mut observation = kfac.observe(2);
        (0..2).for_each(|_| observation.add(0, &rows, g, scratch).unwrap());
        assert!(lag_moment(&kfac, 0, Side::Input).data.iter().all(|x| x.is_finite()));
    }
}

/// Four steps that cancel each other, or correlations of exactly 1: there is no inverse, and the last one stays.
#[test]
fn a_pair_of_directions_that_adds_up_to_nothing_is_an_error_with_its_numbers() {
    fn check<M: ChainMap<f64>>(map: M, sign: f64, error: MapError) {
        let identity = |one: f64| {
            let zero = Matrix::zeros(2, 2).shifted(1.0);
            Chain { one: zero.scaled(one), zero }
        };
        let chains =
            |one: f64, other: f64| Chains { a: identity(one), g: identity(other), lengths: vec![(4, 1.0)] };
        let net = chains(0.0, 0.0).net();
        let mut room = Room::<f64>::new::<M, Reproducible>(&net);
        let (kfac, scratch) = room.precondition(&net, map, Reproducible);
        let mut kfac = kfac.with_decay(0.0).unwrap();
        kfac.set_damping(f64::MIN_POSITIVE).unwrap();
        chains(0.5, 0.25).observe(&mut kfac, scratch);
        kfac.refresh(scratch).unwrap();
        let u = |kfac: &mut Preconditioner<'_, f64, M, Reproducible>, scratch: &mut [f64]| {
            let mut u = [1.0, 2.0, 3.0, 4.0];
            kfac.precondition_flat(&mut u, scratch).unwrap();
            u
        };
        let good = u(&mut kfac, scratch);
        chains(1.0, sign).observe(&mut kfac, scratch);
        for failures in 1..=2 {
            assert_eq!(kfac.refresh(scratch).unwrap().failures, 1, "{failures}");
            assert_eq!(u(&mut kfac, scratch), good);
        }
        let kind = LayerErrorKind::ThirdFailure(error);
        assert_eq!(kfac.refresh(scratch), Err(LayerError { layer: 0, kind }));
        assert_eq!(u(&mut kfac, scratch), good);
        assert_eq!(kfac.layer_report(0).unwrap().failures, 3);
    }
    let weight = |correlation| MapError::ChainWeight { correlation, weight: 0.0 };
    check(exact_symmetric(), -1.0, weight(-1.0));
    check(ChainLimit::full().without_bound(), 1.0, weight(1.0));
    let text = weight(-1.0).to_string();
    assert_eq!(text, "steps of correlation -1e0 have the weight 0e0, which has no inverse");
}

/// `G = diag(1.5, -0.5)`, `A = 2`: `π = 2`, and what is left of the negative one is the damping.
#[test]
fn negative_eigenvalues_of_a_moment_count_as_zero() {
    fn check<M: ChainMap<f64>>(map: M) {
        let net = [LayerShape::dense(1, 2).without_bias()];
        let mut room = Room::<f64>::new::<M, Reproducible>(&net);
        let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
        let (a, g, zeros) = ([2.0], [1.5, 0.0, 0.0, -0.5], [0.0; 4]);
        let view = |x, n| MatRef::row_major(x, n, n).unwrap();
        let (a, a_lag, g, g_lag) = (view(&a, 1), view(&zeros, 1), view(&g, 2), view(&zeros, 2));
        let moments = ChainMoments { a, a_lag, g, g_lag, lengths: &[(3, 1.0)] };
        kfac.observe(1).add_chain_moments(0, moments, scratch).unwrap();
        kfac.set_damping(0.25).unwrap();
        kfac.refresh(scratch).unwrap();
        let mut u = [1.0, 1.0];
        kfac.precondition_flat(&mut u, scratch).unwrap();
        assert_close(M::NAME, &u, &[1.0 / (3.0 * 1.75), 1.0 / (3.0 * 0.25)], 1e-14);
    }
    check(ChainSymmetric::full());
    check(ChainLimit::full());
}

#[test]
fn settings_of_a_chain_out_of_their_range_are_refused_by_name() {
    let refused = |error: Option<SettingError>, setting, value: f64| {
        let error = error.unwrap();
        assert_eq!((error.setting, error.value.to_bits()), (setting, value.to_bits()));
    };
    for bad in [0.0, -0.5, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
        refused(ChainSymmetric::full().with_bound(bad).err(), "bound of the correlation", bad);
        refused(ChainLimit::full().with_bound(bad).err(), "bound of the correlation", bad);
    }
    for bad in [0.0, -1e-3, f64::NAN, f64::INFINITY] {
        refused(ChainSymmetric::full().with_floor(bad).err(), "floor of the chain weight", bad);
    }
    assert_eq!(ChainLimit::full().with_bound(1.0), Ok(ChainLimit::full().without_bound()));
}
