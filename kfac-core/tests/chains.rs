//! Recurrent chains: against dense sums over all pairs of steps, and against loops over sequences.

mod common;

use common::chain::{Chain, Chains, balanced, lag_moment};
use common::dense::{Matrix, assert_close, dot, relative_difference};
use common::{Room, bits, factor, random, saved, widened};
use kfac_core::error::{Quantity, SettingError};
use kfac_core::evidence::{ChainMoments, Inputs, OutputGradients, Rows, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar};
use kfac_core::map::{
    ChainLimit, ChainMap, ChainSymmetric, Eigenbasis, Ekfac, FactorMap, Factored, MapError,
};
use kfac_core::shape::Side;
use kfac_core::{LayerError, LayerErrorKind, LayerShape, Preconditioner};
use std::any::type_name;

/// No step at all: what is added to a moment of order 1 leaves every bit.
const NO_DAMPING: f64 = 1e-37;

fn exact_symmetric() -> ChainSymmetric {
    ChainSymmetric::full().without_bound().without_floor()
}

fn chains(turn: f64, lengths: &[(usize, f64)]) -> Chains {
    Chains {
        a: Chain::new(&[0.9, -0.7, 0.4, 0.1], turn, 3),
        g: Chain::new(&[0.8, -0.5, 0.2], turn, 7).scaled(0.3),
        lengths: lengths.to_vec(),
    }
}

/// `U` of a map that is handed the moments.
fn u_of_moments<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
    map: M,
    kernel: K,
    chains: &Chains,
    lambda: f64,
    v: &[f64],
) -> Vec<f64> {
    let net = chains.net();
    let mut room = Room::new::<M, K>(&net);
    let (mut kfac, scratch) = room.precondition(&net, map, kernel);
    chains.observe(&mut kfac, scratch);
    kfac.set_damping(T::from_f64(lambda)).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u: Vec<T> = v.iter().map(|&x| T::from_f64(x)).collect();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    widened(&u)
}

/// On both kernels, in both number types, with the tolerance of each.
fn on_all(mut check: impl FnMut([Vec<f64>; 2], f64), u: impl Fn(&'static str) -> Vec<f64>) {
    let double = [u("f64 reproducible"), u("f64 fast")];
    check(double, 1e-12);
    check([u("f32 reproducible"), u("f32 fast")], 1e-3);
}

/// One call of [`u_of_moments`] by the name of its kernel and number type.
fn named<M: ChainMap<f32> + ChainMap<f64>>(
    map: M,
    chains: &Chains,
    lambda: f64,
    v: &[f64],
) -> impl Fn(&'static str) -> Vec<f64> {
    move |name| match name {
        "f64 reproducible" => u_of_moments::<f64, M, _>(map, Reproducible, chains, lambda, v),
        "f64 fast" => u_of_moments::<f64, M, _>(map, Fast::detect(), chains, lambda, v),
        "f32 reproducible" => u_of_moments::<f32, M, _>(map, Reproducible, chains, lambda, v),
        _ => u_of_moments::<f32, M, _>(map, Fast::detect(), chains, lambda, v),
    }
}

#[test]
fn the_symmetric_map_inverts_the_sum_over_all_pairs_of_steps_of_a_symmetric_chain() {
    let v: Vec<f64> = random(12, 5);
    for lengths in [
        &[(1, 1.0)][..],
        &[(2, 1.0)],
        &[(7, 1.0)],
        &[(20, 1.0)],
        &[(64, 1.0)],
        &[(2, 0.5), (5, 0.25), (9, 0.25)],
        &[(1, 0.125), (12, 0.875)],
        &[(3, 0.4), (64, 0.6)],
    ] {
        for lambda in [NO_DAMPING, 0.3] {
            let chains = chains(0.0, lengths);
            let want = chains.damped(lambda).solve(&v);
            let what = format!("{lengths:?}, damping {lambda}");
            on_all(
                |found, tolerance| found.iter().for_each(|u| assert_close(&what, u, &want, tolerance)),
                named(exact_symmetric(), &chains, lambda, &v),
            );
        }
    }
}

/// Where `D` were taken at the mean length, `U` would be off by more than a tenth; shares need not add up to 1.
#[test]
fn the_weight_is_a_mean_over_lengths_and_never_that_of_the_mean_length() {
    let v: Vec<f64> = random(4, 5);
    let mixed = Chains {
        a: Chain::new(&[0.9, 0.8], 0.0, 3),
        g: Chain::new(&[0.9, 0.85], 0.0, 7),
        lengths: vec![(1, 0.75), (33, 0.25)],
    };
    let u =
        |chains: &Chains| u_of_moments::<f64, _, _>(exact_symmetric(), Reproducible, chains, NO_DAMPING, &v);
    let at_mean = Chains { lengths: vec![(9, 1.0)], ..mixed.clone() };
    assert_eq!(at_mean.mean_length(), mixed.mean_length());
    assert!(relative_difference(&u(&at_mean), &u(&mixed)) > 0.1);
    // The counts of 8 cases, and one that has no step.
    let net = mixed.net();
    let mut room = Room::<f64>::new::<ChainSymmetric, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, exact_symmetric(), Reproducible);
    let g = mixed.g.scaled(mixed.mean_length());
    let square = |x: &'_ Matrix| -> (Vec<f64>, usize) { (x.data.clone(), x.rows) };
    let held = [&mixed.a.zero, &mixed.a.one, &g.zero, &g.one].map(square);
    let [a, a_lag, g, g_lag] = held.each_ref().map(|(x, n)| MatRef::row_major(x, *n, *n).unwrap());
    let lengths = &[(33, 2.0), (0, 5.0), (1, 6.0)];
    kfac.observe(8).add_chain_moments(0, ChainMoments { a, a_lag, g, g_lag, lengths }, scratch).unwrap();
    kfac.set_damping(NO_DAMPING).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut found = v.clone();
    kfac.precondition_flat(&mut found, scratch).unwrap();
    assert_close("counts", &found, &u(&mixed), 1e-13);
}

/// Twice the length, half the error: but for terms of `1/T²` and `ψ^T`.
#[test]
fn the_error_of_the_limit_falls_like_one_over_the_length_and_that_of_the_symmetric_map_does_not() {
    let v: Vec<f64> = random(12, 5);
    let a = Chain::new(&[0.4, -0.35, 0.3, 0.1], 0.7, 3);
    let g = Chain::new(&[0.4, -0.3, 0.2], 0.7, 7);
    let errors = [10, 20, 40, 80].map(|length| {
        let chains = Chains { a: a.clone(), g: g.clone(), lengths: vec![(length, 1.0)] };
        let exact = chains.solve(&v);
        let limit = ChainLimit::full().without_bound();
        let error = |u: Vec<f64>| relative_difference(&u, &exact);
        [
            error(u_of_moments::<f64, _, _>(limit, Reproducible, &chains, NO_DAMPING, &v)),
            error(u_of_moments::<f64, _, _>(exact_symmetric(), Reproducible, &chains, NO_DAMPING, &v)),
        ]
    });
    for pair in errors.windows(2) {
        let [limit, symmetric] = [0, 1].map(|map| pair[0][map] / pair[1][map]);
        assert!((1.9..2.1).contains(&limit), "{errors:?}");
        assert!(symmetric < 1.2, "{errors:?}");
    }
    assert!(errors[3][0] < 0.5 * errors[3][1], "{errors:?}");
}

/// The formula of the limit, written out in the symmetric roots of `X₀` and with dense blocks: `M* N⁻¹ M`.
#[test]
fn the_limit_is_the_formula_of_the_paper() {
    let v: Vec<f64> = random(12, 5);
    let chains = chains(0.3, &[(3, 0.5), (8, 0.5)]);
    for (lambda, bound) in [(0.2, 1.0), (0.2, 0.5)] {
        let damped = chains.damped(lambda);
        let [a, g] = [&damped.a, &damped.g].map(|chain| {
            let root = inverse_root(&chain.zero);
            let psi = root.times_matrix(&chain.one).times_matrix(&root);
            (root, psi)
        });
        let both = |a: &Matrix, g: &Matrix, x: &[f64]| a.kron(g).times(x);
        let minus = |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x - y).collect() };
        let x = both(&a.0, &g.0, &Matrix::new(3, 4, v.clone()).column_stacked());
        let x = minus(&x, &both(&a.1.transposed(), &g.1.transposed(), &x));
        // 1 - μ_G μ_Aᵀ in the eigenvectors of both: a dense matrix, with the bound on each μ.
        let [squares_a, squares_g] = [&a.1, &g.1]
            .map(|psi| function_of(&psi.transposed().times_matrix(psi), |mu| mu.min(bound * bound)));
        let quotient = squares_a.kron(&squares_g).scaled(-1.0).shifted(1.0);
        let x = quotient.solve(&x);
        let x = minus(&x, &both(&a.1, &g.1, &x));
        let x: Vec<f64> = both(&a.0, &g.0, &x).iter().map(|x| x / chains.mean_length()).collect();
        let want = Matrix::from_column_stacked(3, &x).data;
        let map = ChainLimit::full().with_bound(bound).unwrap();
        on_all(
            |found, tolerance| {
                found.iter().for_each(|u| assert_close(&format!("bound {bound}"), u, &want, tolerance));
            },
            named(map, &chains, lambda, &v),
        );
    }
}

/// `Q f(d) Qᵀ` of a symmetric matrix, by Jacobi's rotations.
fn function_of(matrix: &Matrix, f: impl Fn(f64) -> f64) -> Matrix {
    let n = matrix.rows;
    let (mut a, mut q) = (matrix.clone(), Matrix::zeros(n, n).shifted(1.0));
    for (p, r) in (0..50).flat_map(|_| (0..n).flat_map(move |p| (p + 1..n).map(move |r| (p, r)))) {
        if a.at(p, r) == 0.0 {
            continue;
        }
        let angle = 0.5 * (2.0 * a.at(p, r)).atan2(a.at(r, r) - a.at(p, p));
        let (sin, cos) = angle.sin_cos();
        let rotation = Matrix::from_fn(n, n, |i, j| match (i == p, i == r, j == p, j == r) {
            (true, _, true, _) | (_, true, _, true) => cos,
            (true, _, _, true) => sin,
            (_, true, true, _) => -sin,
            _ => f64::from(u8::from(i == j)),
        });
        a = rotation.transposed().times_matrix(&a).times_matrix(&rotation);
        q = q.times_matrix(&rotation);
    }
    let scaled = Matrix::from_fn(n, n, |i, j| q.at(i, j) * f(a.at(j, j)));
    scaled.times_matrix(&q.transposed())
}

fn inverse_root(matrix: &Matrix) -> Matrix {
    function_of(matrix, |d| 1.0 / d.sqrt())
}

const SHAPE: LayerShape = LayerShape::dense(4, 3);
const NET: [LayerShape; 1] = [SHAPE];
const LAMBDA: f64 = 0.03;

/// Sequences in which each step takes over half of the last, padded with NaN.
struct Batch<T> {
    steps: usize,
    lengths: Vec<usize>,
    inputs: Vec<T>,
    gradients: Vec<T>,
}

impl<T: Scalar> Batch<T> {
    fn new(lengths: &[usize], seed: u64) -> Self {
        let steps = *lengths.iter().max().unwrap();
        let [inputs, gradients] = [(4, seed), (3, seed + 1)].map(|(width, seed)| {
            let noise: Vec<f64> = random(lengths.len() * steps * width, seed);
            let mut rows = vec![T::from_f64(f64::NAN); noise.len()];
            for (case, &length) in lengths.iter().enumerate() {
                let mut row = vec![0.0; width];
                for at in case * steps..case * steps + length {
                    for (j, x) in row.iter_mut().enumerate() {
                        *x = 0.5 * *x + noise[at * width + j];
                        rows[at * width + j] = T::from_f64(*x);
                    }
                }
            }
            rows
        });
        Self { steps, lengths: lengths.to_vec(), inputs, gradients }
    }

    /// In parts of so many cases; the gradients are those of a mean loss over 7 cases.
    fn observe<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        parts: &[usize],
        scratch: &mut [T],
    ) {
        let mut observation = kfac.observe(self.lengths.len());
        let mut first = 0;
        for &part in parts {
            let rows = part * self.steps;
            let [a, g] = [(&self.inputs, 4), (&self.gradients, 3)].map(|(x, width)| {
                MatRef::row_major(&x[first * self.steps * width..][..rows * width], rows, width).unwrap()
            });
            let a = Sequence::with_lengths(a, self.steps, &self.lengths[first..][..part]).unwrap();
            observation.add(0, &a, OutputGradients::of_mean_loss(g, 7), scratch).unwrap();
            first += part;
        }
        assert_eq!(first, self.lengths.len());
    }

    /// `ā` or `g` at a position.
    fn row(&self, side: Side, at: usize) -> Vec<f64> {
        match side {
            Side::Input => [&widened(&self.inputs[4 * at..][..4])[..], &[1.0]].concat(),
            Side::Output => self.gradients[3 * at..][..3].iter().map(|g| 7.0 * g.to_f64()).collect(),
        }
    }

    /// `Σ x_t x_{t-lag}ᵀ` over the cases.
    fn sum(&self, side: Side, lag: usize) -> Matrix {
        let width = SHAPE.side(side);
        let mut sum = Matrix::zeros(width, width);
        for (case, &length) in self.lengths.iter().enumerate() {
            for t in case * self.steps + lag..case * self.steps + length {
                sum.add_outer(1.0, &self.row(side, t), &self.row(side, t - lag));
            }
        }
        sum
    }

    fn positions(&self) -> f64 {
        self.lengths.iter().sum::<usize>() as f64
    }
}

/// The sums and weights of a running average over batches: `ε = min(1 - 1/k, decay)`.
struct Average {
    sums: [[Matrix; 2]; 2],
    weights: [f64; 2],
    lengths: Vec<(usize, f64)>,
}

impl Average {
    fn of<T: Scalar>(batches: &[&Batch<T>], decay: f64) -> Self {
        let mut sums =
            Side::BOTH.map(|side| [(); 2].map(|()| Matrix::zeros(SHAPE.side(side), SHAPE.side(side))));
        let (mut weights, mut lengths) = ([0.0; 2], Vec::<(usize, f64)>::new());
        for (k, batch) in batches.iter().enumerate() {
            let keep = (1.0 - 1.0 / (k + 1) as f64).min(decay);
            let share = (1.0 - keep) / batch.lengths.len() as f64;
            for (side, sums) in Side::BOTH.into_iter().zip(&mut sums) {
                for (lag, sum) in sums.iter_mut().enumerate() {
                    let new = batch.sum(side, lag);
                    *sum = Matrix::from_fn(sum.rows, sum.rows, |i, j| {
                        keep * sum.at(i, j) + share * new.at(i, j)
                    });
                }
            }
            let cases = batch.lengths.iter().filter(|&&length| length > 0).count() as f64;
            for (weight, count) in weights.iter_mut().zip([batch.positions(), cases]) {
                *weight = keep * *weight + share * count;
            }
            lengths.iter_mut().for_each(|(_, weight)| *weight *= keep);
            lengths.extend(batch.lengths.iter().filter(|&&length| length > 0).map(|&length| (length, share)));
        }
        let total = weights[1];
        lengths.iter_mut().for_each(|(_, weight)| *weight /= total);
        Self { sums, weights, lengths }
    }

    /// In the paper's scale: at both sides over the count of positions.
    fn chains(&self) -> Chains {
        let [a, g] = self
            .sums
            .each_ref()
            .map(|[zero, one]| Chain { zero: zero.clone(), one: one.clone() }.scaled(1.0 / self.weights[0]));
        Chains { a, g, lengths: self.lengths.clone() }
    }
}

fn precondition<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    scratch: &mut [T],
) -> Vec<f64> {
    let mut u = random(15, 90);
    kfac.precondition_flat(&mut u, scratch).unwrap();
    widened(&u)
}

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

/// Of one step each, and of many that have nothing in common: `Factored`, to rounding.
#[test]
fn without_neighbours_or_without_correlation_both_maps_are_the_factored_one() {
    fn of_rows<M: FactorMap<f64>>(map: M) -> Vec<f64> {
        let mut room = Room::<f64>::new::<M, Reproducible>(&NET);
        let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
        let (a, g) = (random(9 * 4, 1), random(9 * 3, 2));
        let [a, g] = [(&a, 4), (&g, 3)].map(|(x, n)| MatRef::row_major(x, 9, n).unwrap());
        kfac.observe(9).add(0, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
        kfac.set_damping(LAMBDA).unwrap();
        kfac.refresh(scratch).unwrap();
        precondition(&mut kfac, scratch)
    }
    let want = of_rows(Factored);
    assert_close("symmetric", &of_rows(ChainSymmetric::full()), &want, 1e-12);
    assert_close("limit", &of_rows(ChainLimit::full()), &want, 1e-12);

    let chains = chains(0.0, &[(6, 1.0)]);
    let zero = |chain: &Chain| Chain { one: chain.one.scaled(0.0), ..chain.clone() };
    let still = Chains { a: zero(&chains.a), g: zero(&chains.g), ..chains };
    let v: Vec<f64> = random(12, 5);
    let [input, output] = balanced(&still.a.zero, &still.g.zero.scaled(6.0), 0.2);
    let damped = still.a.zero.shifted(input).kron(&still.g.zero.scaled(6.0).shifted(output));
    let want = damped.solve(&Matrix::new(3, 4, v.clone()).column_stacked());
    let want = Matrix::from_column_stacked(3, &want).data;
    for found in [
        u_of_moments::<f64, _, _>(ChainSymmetric::full(), Reproducible, &still, 0.2, &v),
        u_of_moments::<f64, _, _>(ChainLimit::full(), Reproducible, &still, 0.2, &v),
    ] {
        assert_close("no lag", &found, &want, 1e-12);
    }
}

#[test]
fn both_chains_differ_from_every_other_map_and_from_each_other_by_more_than_a_hundredth() {
    fn u<M: FactorMap<f64>>(map: M) -> Vec<f64> {
        let mut room = Room::<f64>::new::<M, Reproducible>(&NET);
        let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
        kfac.set_damping(LAMBDA).unwrap();
        let batch = Batch::new(&[9, 12, 5, 12, 7], 10);
        for _ in 0..2 {
            batch.observe(&mut kfac, &[5], scratch);
            if !kfac.is_ready() {
                kfac.refresh(scratch).unwrap();
            }
        }
        precondition(&mut kfac, scratch)
    }
    let maps = [
        ("symmetric", u(ChainSymmetric::full())),
        ("limit", u(ChainLimit::full())),
        ("factored", u(Factored)),
        ("eigenbasis", u(Eigenbasis::full())),
        ("ekfac", u(Ekfac::full())),
    ];
    for (i, (name, one)) in maps.iter().enumerate().take(2) {
        for (other, two) in &maps[i + 1..] {
            let difference = relative_difference(one, two);
            assert!(difference > 0.01, "{name} and {other}: {difference}");
        }
    }
    // The solver is no part of what is computed.
    assert_close("jacobi", &u(ChainSymmetric::jacobi()), &maps[0].1, 1e-11);
    assert_close("jacobi", &u(ChainLimit::jacobi()), &maps[1].1, 1e-11);
}

/// One sequence of two steps knows two directions of five and of three: in one that neither side knows, `U` is `V` over the
/// damping of both, and no noise of the others is blown up beside it.
#[test]
fn factors_without_full_rank_are_preconditioned_at_a_tiny_damping() {
    fn check<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(map: M, kernel: K, (lambda, tolerance): (f64, f64)) {
        let mut room = Room::new::<M, K>(&NET);
        let (mut kfac, scratch) = room.precondition(&NET, map, kernel);
        let batch = Batch::<T>::new(&[2], 40);
        batch.observe(&mut kfac, &[1], scratch);
        kfac.set_damping(T::from_f64(lambda)).unwrap();
        kfac.refresh(scratch).unwrap();
        let what = format!("{} in {}", M::NAME, type_name::<T>());
        let u = precondition(&mut kfac, scratch);
        let product = dot(&u, &random::<f64>(15, 90));
        assert!(product.is_finite() && product > 0.0, "{what}: {product:e}");

        let [a, g] = Side::BOTH.map(|side| unknown_to(&batch, side));
        let mut v = Matrix::zeros(3, 5);
        v.add_outer(1.0, &g, &a);
        let mut u: Vec<T> = v.data.iter().map(|&x| T::from_f64(x)).collect();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        assert_close(&what, &widened(&u), &v.scaled(1.0 / lambda).data, tolerance);
    }
    /// What is left of a vector without its parts along the two rows.
    fn unknown_to<T: Scalar>(batch: &Batch<T>, side: Side) -> Vec<f64> {
        let [first, second] = [0, 1].map(|at| batch.row(side, at));
        let without = |x: &[f64], y: &[f64]| -> Vec<f64> {
            x.iter().zip(y).map(|(x_i, y_i)| x_i - dot(x, y) / dot(y, y) * y_i).collect()
        };
        let second = without(&second, &first);
        let rest: Vec<f64> = random(first.len(), 77);
        without(&without(&without(&rest, &first), &second), &first)
    }
    check::<f64, _, _>(ChainSymmetric::full(), Reproducible, (1e-10, 1e-8));
    check::<f64, _, _>(ChainLimit::full(), Fast::detect(), (1e-10, 1e-8));
    check::<f32, _, _>(ChainSymmetric::full(), Fast::detect(), (1e-8, 0.02));
    check::<f32, _, _>(ChainLimit::full(), Reproducible, (1e-8, 0.02));
}

/// 0.9 and 0.8 are correlations of `chains`; what exceeds a bound is set to it, `D` that falls below a floor too.
#[test]
fn correlations_are_bounded_and_weights_have_a_floor() {
    fn eigenvalues<M: ChainMap<f64>>(map: M, turn: f64) -> [Vec<f64>; 2] {
        let (chains, mut room) =
            (chains(turn, &[(6, 1.0)]), Room::<f64>::new::<M, Reproducible>(&chains_net()));
        let net = chains.net();
        let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
        assert!(kfac.chain_eigenvalues(0, Side::Input).is_none());
        chains.observe(&mut kfac, scratch);
        kfac.set_damping(NO_DAMPING).unwrap();
        kfac.refresh(scratch).unwrap();
        assert!(
            kfac.chain_eigenvalues(1, Side::Input).is_none() && kfac.lag_moment(1, Side::Input).is_none()
        );
        Side::BOTH.map(|side| kfac.chain_eigenvalues(0, side).unwrap().to_vec())
    }
    fn chains_net() -> [LayerShape; 1] {
        chains(0.0, &[(1, 1.0)]).net()
    }
    let close = |found: [Vec<f64>; 2], want: [&[f64]; 2]| {
        found.iter().zip(want).for_each(|(found, want)| assert_close("eigenvalues", found, want, 1e-12));
    };
    close(eigenvalues(exact_symmetric(), 0.0), [&[-0.7, 0.1, 0.4, 0.9], &[-0.5, 0.2, 0.8]]);
    // The antisymmetric part is none of its business.
    close(eigenvalues(exact_symmetric(), 0.3), [&[-0.7, 0.1, 0.4, 0.9], &[-0.5, 0.2, 0.8]]);
    let bounded = ChainSymmetric::full().with_bound(0.45).unwrap();
    close(eigenvalues(bounded, 0.0), [&[-0.45, 0.1, 0.4, 0.45], &[-0.45, 0.2, 0.45]]);
    let squares = |bound: f64| {
        let map = ChainLimit::full().with_bound(bound).unwrap();
        close(
            eigenvalues(map, 0.0),
            [
                &[0.01, 0.16, 0.49, 0.81].map(|x: f64| x.min(bound * bound)),
                &[0.04, 0.25, 0.64].map(|x: f64| x.min(bound * bound)),
            ],
        );
    };
    squares(1.0);
    squares(0.6);
    // The defaults.
    let strong = Chains {
        a: Chain::new(&[0.999, 0.1], 0.0, 3),
        g: Chain::new(&[0.999, -0.999], 0.0, 7),
        lengths: vec![(50, 1.0)],
    };
    let v: Vec<f64> = random(4, 5);
    let u = |map: ChainSymmetric| u_of_moments::<f64, _, _>(map, Reproducible, &strong, NO_DAMPING, &v);
    let explicit = ChainSymmetric::full().with_bound(0.95).unwrap().with_floor(1e-3).unwrap();
    assert_eq!(bits(&u(ChainSymmetric::full())), bits(&u(explicit)));
    assert_eq!(ChainSymmetric::default(), explicit);
    assert_eq!(ChainLimit::default(), ChainLimit::full().with_bound(0.95).unwrap());
    // D/T at -0.998 is 2e-3 or so, and at 0.998 48.
    let floored = ChainSymmetric::full().without_bound().with_floor(0.5).unwrap();
    assert!(relative_difference(&u(floored), &u(exact_symmetric())) > 0.1);
    let want = Chains { g: Chain::new(&[0.999, -0.999], 0.0, 7), ..strong.clone() }.solve(&v);
    assert_close("no floor", &u(exact_symmetric()), &want, 1e-9);
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
