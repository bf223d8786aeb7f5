//! What all solvers promise, in one body for every solver, kernel and number type.

mod common;

use common::spectra::{Found, assert_decomposes, hard_matrices};
use common::{identity, minus, minus_identity, norm, relu_factor, rounded, times, transposed};
use common::{widened, with_spectrum};
use kfac_linalg::eigh::{Eigensolver, EighError, Jacobi, Method, Outcome, Qr};
use kfac_linalg::{Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar};
use kfac_linalg::{ScratchError, ShapeError};

/// Decomposes, with NaN wherever nothing may be read.
fn decompose<T: Scalar, K: Kernel<T>, S: Eigensolver>(
    kernel: K,
    solver: S,
    a: &[T],
    n: usize,
) -> Result<Found<T>, EighError> {
    let nan: T = common::nan();
    let a: Vec<T> = (0..n * n).map(|at| if at % n > at / n { nan } else { a[at] }).collect();
    let (mut q, mut d) = (vec![nan; n * n], vec![nan; n]);
    let scratch = &mut vec![nan; S::METHOD.scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(&a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    let outcome = solver.cold(kernel, a, view, &mut d, scratch)?;
    Ok(Found { q, d, outcome })
}

/// Runs a body `(T, kernel, solver)` for all number types, kernels and solvers.
macro_rules! for_all {
    ($body:ident) => {
        for_all!($body, f32);
        for_all!($body, f64);
    };
    ($body:ident, $float:ident) => {
        $body::<$float, _, _>(Reproducible, Qr);
        $body::<$float, _, _>(Reproducible, Jacobi::default());
        $body::<$float, _, _>(Fast::detect(), Jacobi::default());
        for set in InstructionSet::available() {
            $body::<$float, _, _>(Fast::on(set), Qr);
        }
    };
}

fn hard_matrices_decompose_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, solver: S) {
    for n in (1..=9).chain([15, 16, 17, 31, 32, 33, 64, 65, 100]) {
        for case in hard_matrices(n) {
            let a: Vec<T> = rounded(&case.a);
            let name = format!("{}, n = {n}, {:?}", case.name, S::METHOD);
            let found = decompose(kernel, solver, &a, n).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_decomposes(&a, &found, case.exact.as_deref(), &name);
        }
    }
}

#[test]
fn hard_matrices_decompose() {
    for_all!(hard_matrices_decompose_with);
}

fn exact_matrices_stay_exact_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, solver: S) {
    for n in [0, 1, 2, 3, 5, 16, 33] {
        let diagonal: Vec<T> =
            (0..n * n).map(|at| T::from_usize(if at / n == at % n { at % 3 } else { 0 })).collect();
        for a in [vec![T::ZERO; n * n], identity(n), diagonal] {
            let found = decompose(kernel, solver, &a, n).unwrap();
            assert_eq!(found.outcome, Outcome { sweeps: 0, off_diagonal: 0.0, converged: true });
            let mut exact: Vec<f64> = (0..n).map(|i| a[i * n + i].to_f64()).collect();
            exact.sort_by(f64::total_cmp);
            assert_eq!(widened(&found.d), exact);
            let units = found.q.iter().filter(|&&x| x == T::ONE).count();
            let zeros = found.q.iter().filter(|&&x| x == T::ZERO).count();
            assert_eq!((units, zeros), (n, n * n - n), "a permutation");
        }
    }
}

#[test]
fn zero_identity_and_diagonal_matrices_are_exact_and_take_no_sweep() {
    for_all!(exact_matrices_stay_exact_with);
}

fn extreme_scales_decompose_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, solver: S) {
    let single = T::BYTES == 4;
    for scale in if single { [1e37, 1e20, 1e-20, 1e-30] } else { [1e306, 1e200, 1e-200, 1e-290] } {
        for n in [2, 5, 16, 33] {
            let d: Vec<f64> = (0..n).map(|i| scale * (0.1 + i as f64 / n as f64)).collect();
            let a: Vec<T> = rounded(&with_spectrum(&d, 3));
            let found = decompose(kernel, solver, &a, n).unwrap();
            assert_decomposes(&a, &found, Some(&d), &format!("times {scale:e}, n = {n}"));
        }
    }
    // Near the subnormal range each element has fewer digits: the matrix that was stored decomposes all the same.
    let scale = if single { 1e-34 } else { 1e-304 };
    let a: Vec<T> = rounded(&with_spectrum(&[1.0, 2.0, 5.0].map(|d| d * scale), 4));
    assert_decomposes(&a, &decompose(kernel, solver, &a, 3).unwrap(), None, "subnormal");
    // A matrix of two parts whose units have nothing in common.
    let n = 6;
    let part = |i: usize| if i < n / 2 { 1.0 } else { scale };
    let a: Vec<f64> = (0..n * n)
        .map(
            |at| if part(at / n) == part(at % n) { part(at / n) / (1 + at / n + at % n) as f64 } else { 0.0 },
        )
        .collect();
    let a: Vec<T> = rounded(&a);
    assert_decomposes(&a, &decompose(kernel, solver, &a, n).unwrap(), None, "two units");
}

#[test]
fn extreme_scales_neither_overflow_nor_underflow() {
    for_all!(extreme_scales_decompose_with);
}

fn overflow_is_named_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, solver: S) {
    for n in [2, 3] {
        let refused = decompose(kernel, solver, &[T::MAX; 9][..n * n], n).unwrap_err();
        assert_eq!(refused, EighError::Overflow { index: n - 1 });
    }
}

#[test]
fn an_eigenvalue_beyond_the_range_is_named() {
    for_all!(overflow_is_named_with);
}

fn bad_input_is_named_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, solver: S) {
    let (n, seven) = (3, T::from_f64(7.0));
    let needed = S::METHOD.scratch_len::<T>(n);
    let mut scratch = vec![T::ZERO; needed];
    let (mut q, mut d) = ([seven; 9], [seven; 3]);
    let mut a = [T::ONE; 9];
    a[2] = common::nan(); // above the diagonal: not read
    a[7] = T::ONE / T::ZERO;
    let a = MatRef::row_major(&a, n, n).unwrap();
    let mut run = |a: MatRef<'_, T>, d: &mut [T], scratch: &mut [T]| {
        let view = MatMut::row_major(&mut q, n, n).unwrap();
        let refused = solver.cold(kernel, a, view, d, scratch).unwrap_err();
        assert!(q.iter().all(|&x| x == seven));
        refused
    };
    assert_eq!(run(a, &mut d, &mut scratch), EighError::NotFinite { row: 2, col: 1 });
    let short = EighError::Scratch(ScratchError { needed, found: needed - 1 });
    assert_eq!(run(a, &mut d, &mut scratch[1..]), short);
    let short = EighError::Shape(ShapeError::vector("d", 3, 2));
    assert_eq!(run(a, &mut d[..2], &mut scratch), short);
    let oblong = EighError::Shape(ShapeError::matrix("A", [3, 3], [3, 2]));
    assert_eq!(run(a.block(0..3, 0..2).unwrap(), &mut d, &mut scratch), oblong);
    assert!(d.iter().all(|&x| x == seven));
}

#[test]
fn bad_input_is_named_and_leaves_the_result_untouched() {
    for_all!(bad_input_is_named_with);
}

fn every_view_gives_the_same_bits_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, solver: S) {
    let n = 40;
    let a: Vec<T> = rounded(&relu_factor(n, 10));
    let want = decompose(kernel, solver, &a, n).unwrap();
    let column_major = MatRef::row_major(&a, n, n).unwrap().transposed();
    let (mut q, mut d) = (vec![T::ZERO; 2 * n * n], vec![T::ZERO; n]);
    let scratch = &mut vec![T::ZERO; S::METHOD.scratch_len::<T>(n)];
    for strides in [[2, 2 * n], [1, n], [2 * n, 1]] {
        let mut view = MatMut::with_strides(&mut q, [n, n], strides).unwrap();
        solver.cold(kernel, column_major, view.reborrow(), &mut d, scratch).unwrap();
        assert!((0..n * n).all(|at| view.at(at / n, at % n) == want.q[at]), "{strides:?}");
        assert_eq!(d, want.d);
    }
}

#[test]
fn every_view_gives_the_same_bits() {
    for_all!(every_view_gives_the_same_bits_with);
}

fn register_width_moves_no_bit<T: Scalar>() {
    for n in [1, 2, 3, 5, 16, 33, 100, 150] {
        let a: Vec<T> = rounded(&relu_factor(n, 3));
        let want = decompose(Reproducible, Qr, &a, n).unwrap();
        for set in InstructionSet::available() {
            let found = decompose(ReproducibleOn(set), Qr, &a, n).unwrap();
            assert_eq!((found.d, found.outcome), (want.d.clone(), want.outcome), "{set}, n = {n}");
            assert_eq!(found.q, want.q, "Q on {set}, n = {n}");
        }
    }
}

#[test]
fn the_register_width_moves_no_bit() {
    register_width_moves_no_bit::<f32>();
    register_width_moves_no_bit::<f64>();
}

/// Frobenius norms over `||A||` and over `√n`, in `eps`: the units of LAPACK's tests.
fn large_matrix_is_accurate<T: Scalar>(d: &[f64]) {
    let (n, eps) = (d.len(), T::EPSILON.to_f64());
    let a: Vec<T> = rounded(&with_spectrum(d, 4));
    let Found { q, d, .. } = decompose(Fast::detect(), Qr, &a, n).unwrap();
    let (a, q, d) = (widened(&a), widened(&q), widened(&d));
    let qd: Vec<f64> = (0..n * n).map(|at| q[at] * d[at % n]).collect();
    let residual = norm(&minus(&times(&a, &q, [n, n, n]), &qd)) / norm(&a) / eps;
    let gram = times(&transposed(&q, [n, n]), &q, [n, n, n]);
    let orthogonality = norm(&minus_identity(&gram, n)) / (n as f64).sqrt() / eps;
    assert!(residual <= 100.0, "residual {residual:.0} eps");
    assert!(orthogonality <= 100.0, "orthogonality {orthogonality:.0} eps");
}

#[test]
fn large_matrices_are_accurate_to_100_eps() {
    // The hardest spectrum known for this solver: two clusters.
    large_matrix_is_accurate::<f32>(&(0..512).map(|i| [1.0, 1e-3][i % 2]).collect::<Vec<_>>());
    large_matrix_is_accurate::<f64>(&(0..257).map(|i| 1.0 + f64::from(i)).collect::<Vec<_>>());
}

#[test]
fn eigenvalues_of_the_inverse_root_matrix() {
    // Portable test T26, whose numbers were printed in f32 and are off by 1e-4. These are the roots of the matrix's
    // characteristic polynomial, x³ - 1983 x² + 351 x - 1, to all digits.
    let a = [1195.0, -944.0, -224.0, -944.0, 746.0, 177.0, -224.0, 177.0, 42.0];
    let exact = [0.002_896_397_721_327_855, 0.174_123_688_904_800_9, 1_982.822_979_913_373_8];
    for found in [decompose(Reproducible, Qr, &a, 3), decompose(Reproducible, Jacobi::default(), &a, 3)] {
        assert_decomposes(&a, &found.unwrap(), Some(&exact), "T26");
    }
}

#[test]
fn scratch_lengths_are_constants_and_grow_with_n() {
    const fn of<S: Eigensolver>(n: usize) -> usize {
        S::METHOD.scratch_len::<f32>(n)
    }
    const LENS: [usize; 2] = [of::<Qr>(64), of::<Jacobi>(64)];
    assert_eq!(LENS, [Method::Qr.scratch_len::<f32>(64), Method::Jacobi.scratch_len::<f32>(64)]);
    for n in 0..300 {
        assert!(of::<Qr>(n) <= of::<Qr>(n + 1), "{n}");
        assert!(of::<Jacobi>(n) <= of::<Jacobi>(n + 1), "{n}");
    }
}
