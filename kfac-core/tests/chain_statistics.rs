//! What the chain maps learn of sequences: against loops over them.

mod common;

use common::chain::{exact_symmetric, lag_moment};
use common::dense::{Matrix, assert_close};
use common::sequences::{Average, Batch, LAMBDA, NET, precondition};
use common::{Room, bits, factor, random, saved};
use kfac_core::LayerShape;
use kfac_core::evidence::{ChainMoments, Inputs, OutputGradients, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar};
use kfac_core::map::{ChainLimit, ChainMap, ChainSymmetric};
use kfac_core::shape::Side;
use std::any::type_name;

/// Seven sequences of unequal length, some longer than a panel of either kernel, one of no step, two of one.
const LENGTHS: [usize; 7] = [5, 1, 140, 17, 0, 1, 4];

/// Lag moments, lengths and what a map makes of them, over three updates in parts; and they are the same for all maps that
/// keep them.
fn learns<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(map: M, kernel: K) {
    let tolerance = 1e3 * T::EPSILON.to_f64();
    for parts in [&[7][..], &[2, 5], &[3, 1, 3]] {
        let mut room = Room::new::<M, K>(&NET);
        let (kfac, scratch) = room.precondition(&NET, map, kernel);
        let mut kfac = kfac.with_decay(T::from_f64(0.6)).unwrap();
        let batches = [10, 20, 30].map(|seed| Batch::<T>::new(&LENGTHS, seed));
        for update in 0..3 {
            batches[update].observe(&mut kfac, parts, scratch);
            let want = Average::of(&batches.each_ref()[..=update], 0.6);
            let what = format!("{} in {}: {parts:?}, update {update}", M::NAME, type_name::<T>());
            for (side, [zero, one]) in Side::BOTH.into_iter().zip(&want.sums) {
                let weight = 1.0 / want.weights[side.index()];
                assert_close(&what, &factor(&kfac, 0, side).data, &zero.scaled(weight).data, tolerance);
                assert_close(&what, &lag_moment(&kfac, 0, side).data, &one.scaled(weight).data, tolerance);
            }
        }
    }
}

#[test]
fn lag_moments_are_averages_over_neighbouring_positions_in_whatever_parts_they_come() {
    learns::<f64, _, _>(exact_symmetric(), Reproducible);
    learns::<f64, _, _>(ChainLimit::full(), Fast::detect());
    learns::<f32, _, _>(ChainLimit::full(), Reproducible);
    learns::<f32, _, _>(exact_symmetric(), Fast::detect());
}

/// From sequences to `U`, against the dense sum over pairs of the symmetrised moments; the lengths fade out as the sums do.
#[test]
fn sequences_are_preconditioned_as_the_sum_over_pairs_of_their_averaged_lengths_asks() {
    fn check<K: Kernel<f64>>(kernel: K, parts: &[usize]) {
        let mut room = Room::<f64>::new::<ChainSymmetric, K>(&NET);
        let (kfac, scratch) = room.precondition(&NET, exact_symmetric(), kernel);
        let mut kfac = kfac.with_decay(0.6).unwrap();
        kfac.set_damping(LAMBDA).unwrap();
        let batches =
            [(&[5, 1, 50, 17, 0, 1, 4], 10), (&[2, 2, 2, 3, 3, 3, 64], 20), (&[1, 9, 9, 9, 1, 1, 1], 30)]
                .map(|(lengths, seed)| Batch::new(lengths, seed));
        for update in 0..3 {
            batches[update].observe(&mut kfac, parts, scratch);
            kfac.refresh(scratch).unwrap();
            let mut chains = Average::of(&batches.each_ref()[..=update], 0.6).chains();
            for chain in [&mut chains.a, &mut chains.g] {
                let one = chain.one.clone();
                chain.one = Matrix::from_fn(one.rows, one.rows, |i, j| 0.5 * (one.at(i, j) + one.at(j, i)));
            }
            let want = chains.damped(LAMBDA).solve(&random(15, 90));
            assert_close(&format!("update {update}"), &precondition(&mut kfac, scratch), &want, 1e-11);
        }
    }
    for parts in [&[7][..], &[2, 5], &[3, 1, 3]] {
        check(Reproducible, parts);
        check(Fast::detect(), parts);
    }
}

/// The 1st, 2nd, 4th and 5th of five positions: two pairs.
#[test]
fn a_position_that_is_masked_in_between_has_no_neighbours() {
    struct Holed<'a>(Sequence<'a, f64>);
    impl Inputs<f64> for Holed<'_> {
        fn cases(&self) -> usize {
            1
        }
        fn positions(&self) -> usize {
            5
        }
        fn features(&self) -> usize {
            2
        }
        fn is_valid(&self, _: usize, position: usize) -> bool {
            position != 2
        }
        fn write_row(&self, case: usize, position: usize, out: &mut [f64]) {
            self.0.write_row(case, position, out);
        }
        fn add_row(&self, case: usize, position: usize, out: &mut [f64]) {
            self.0.add_row(case, position, out);
        }
    }
    let net = [LayerShape::dense(2, 1).without_bias()];
    let mut room = Room::<f64>::new::<ChainLimit, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, ChainLimit::full(), Reproducible);
    let a = [1.0, 2.0, 3.0, 5.0, f64::NAN, 0.0, 7.0, 11.0, 13.0, 17.0];
    let inputs = Holed(Sequence::new(MatRef::row_major(&a, 5, 2).unwrap(), 5).unwrap());
    let g = [2.0, 3.0, f64::NAN, 5.0, 7.0];
    let g = OutputGradients::per_case(MatRef::row_major(&g, 5, 1).unwrap());
    kfac.observe(1).add(0, &inputs, g, scratch).unwrap();
    let want = [3.0 + 13.0 * 7.0, 2.0 * 3.0 + 13.0 * 11.0, 5.0 + 17.0 * 7.0, 10.0 + 17.0 * 11.0];
    assert_eq!(lag_moment(&kfac, 0, Side::Input).data, want.map(|x| x / 4.0));
    assert_eq!(lag_moment(&kfac, 0, Side::Output).data, [6.0 + 35.0]);
}

/// Moments of a batch count as the batch does, among batches of other lengths: with counts for shares.
#[test]
fn finished_chain_moments_weigh_as_much_as_the_sequences_that_they_are_of() {
    fn check<M: ChainMap<f64>>(map: M) {
        let batches = [(&[5, 1, 40], 10), (&[2, 2, 64], 20), (&[1, 9, 9], 30)]
            .map(|(lengths, seed)| Batch::<f64>::new(lengths, seed));
        let run = |is_finished: [bool; 3]| {
            let mut room = Room::<f64>::new::<M, Reproducible>(&NET);
            let (kfac, scratch) = room.precondition(&NET, map, Reproducible);
            let mut kfac = kfac.with_decay(0.6).unwrap();
            kfac.set_damping(LAMBDA).unwrap();
            let mut found = vec![];
            for (batch, is_finished) in batches.iter().zip(is_finished) {
                if is_finished {
                    let over = |side, lag, count: f64| batch.sum(side, lag).scaled(1.0 / count).data;
                    let [a, a_lag] = [0, 1].map(|lag| over(Side::Input, lag, batch.positions()));
                    let [g, g_lag] = [0, 1].map(|lag| over(Side::Output, lag, 3.0));
                    let [a, a_lag] = [&a, &a_lag].map(|x| MatRef::row_major(x, 5, 5).unwrap());
                    let [g, g_lag] = [&g, &g_lag].map(|x| MatRef::row_major(x, 3, 3).unwrap());
                    let lengths: Vec<(usize, f64)> =
                        batch.lengths.iter().map(|&length| (length, 1.0)).collect();
                    let moments = ChainMoments { a, a_lag, g, g_lag, lengths: &lengths };
                    kfac.observe(3).add_chain_moments(0, moments, scratch).unwrap();
                } else {
                    batch.observe(&mut kfac, &[3], scratch);
                }
                kfac.refresh(scratch).unwrap();
                for side in Side::BOTH {
                    found.push(factor(&kfac, 0, side).data);
                    found.push(lag_moment(&kfac, 0, side).data);
                }
                found.push(precondition(&mut kfac, scratch));
            }
            found
        };
        let want = run([false; 3]);
        for is_finished in [[true, false, false], [false, true, false], [true; 3]] {
            for (found, want) in run(is_finished).iter().zip(&want) {
                assert_close(&format!("{} {is_finished:?}", M::NAME), found, want, 1e-11);
            }
        }
    }
    check(exact_symmetric());
    check(ChainLimit::full());
}

/// With sequences: lag sums, lengths and what they gave are all in the saved state.
#[test]
fn a_run_over_sequences_that_was_interrupted_continues_to_the_bit() {
    fn check<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(map: M, kernel: K) {
        let run = |from: usize, state: Option<&[u8]>| -> Vec<(Vec<u8>, Vec<u64>)> {
            let mut room = Room::new::<M, K>(&NET);
            room.numbers.fill(T::from_f64(f64::INFINITY));
            let (mut kfac, scratch) = room.precondition(&NET, map, kernel);
            if let Some(state) = state {
                kfac.verify(state).unwrap().restore();
                assert_eq!(saved(&kfac), state);
            }
            let step = |step: usize| {
                Batch::new(&[1 + step, 4, 20], step as u64).observe(&mut kfac, &[1, 2], scratch);
                kfac.refresh(scratch).unwrap();
                let u = precondition(&mut kfac, scratch);
                (saved(&kfac), bits(&u))
            };
            (from..5).map(step).collect()
        };
        let whole = run(0, None);
        for after in 0..5 {
            assert_eq!(run(after + 1, Some(&whole[after].0)), whole[after + 1..], "{} {after}", M::NAME);
        }
    }
    check::<f64, _, _>(ChainSymmetric::full(), Reproducible);
    check::<f32, _, _>(ChainSymmetric::full(), Fast::detect());
    check::<f32, _, _>(ChainLimit::full(), Reproducible);
    check::<f64, _, _>(ChainLimit::full(), Fast::detect());
}
