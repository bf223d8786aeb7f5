//! What the chain maps make of moments: against dense sums over all pairs of steps, and against other maps.

mod common;

use common::chain::{
    Chain, Chains, NO_DAMPING, balanced, chains, exact_symmetric, u_of_moments, u_on_every_kernel,
};
use common::dense::{Matrix, assert_close, dot, relative_difference};
use common::sequences::{Batch, LAMBDA, NET, precondition};
use common::{Room, bits, random, widened};
use kfac_core::evidence::{ChainMoments, OutputGradients, Rows};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar};
use kfac_core::map::{ChainLimit, ChainMap, ChainSymmetric, Eigenbasis, Ekfac, FactorMap, Factored};
use kfac_core::shape::Side;
use std::any::type_name;

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
            for (found, tolerance) in u_on_every_kernel(exact_symmetric(), &chains, lambda, &v) {
                assert_close(&what, &found, &want, tolerance);
            }
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
        for (found, tolerance) in u_on_every_kernel(map, &chains, lambda, &v) {
            assert_close(&format!("bound {bound}"), &found, &want, tolerance);
        }
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
        let chains = chains(turn, &[(6, 1.0)]);
        let net = chains.net();
        let mut room = Room::<f64>::new::<M, Reproducible>(&net);
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
