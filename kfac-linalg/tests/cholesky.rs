//! Cholesky: reconstruction, residuals, the inverse against its definition, and every way to fail.

mod common;

use common::{With, identity, minus, minus_identity, norm, positive_definite, random, relu_factor};
use common::{rounded, times, tolerance, transposed, widened};
use kfac_linalg::cholesky::{self, CholeskyError};
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, Scalar, ScratchError, ShapeError,
};

/// Around groups of eight rows and blocks of 64.
const SIZES: [usize; 16] = [0, 1, 2, 3, 5, 8, 9, 31, 33, 63, 64, 65, 100, 128, 129, 257];

/// `L` as a full matrix: zeros above the diagonal.
fn lower<T: Scalar>(l: &[T], n: usize) -> Vec<f64> {
    (0..n * n).map(|at| if at % n <= at / n { l[at].to_f64() } else { 0.0 }).collect()
}

/// `what <= bound n eps`.
fn assert_small<T: Scalar>(what: f64, bound: f64, n: usize, case: &str) {
    let units = what / (n.max(1) as f64 * T::EPSILON.to_f64());
    assert!(units <= bound, "{case}: {units:.3} n eps, more than {bound}");
}

/// Runs a test for both types under both kernels, the fast one on every instruction set.
macro_rules! for_every_kernel {
    ($body:ident) => {
        $body::<f32, _>(Reproducible, "f32, Reproducible");
        $body::<f64, _>(Reproducible, "f64, Reproducible");
        for set in InstructionSet::available() {
            $body::<f32, _>(Fast::on(set), &format!("f32, Fast on {set}"));
            $body::<f64, _>(Fast::on(set), &format!("f64, Fast on {set}"));
        }
    };
}

fn factor_multiplies_back<T: Scalar, K: Kernel<T>>(kernel: K, types: &str) {
    for n in SIZES {
        let mut l: Vec<T> = rounded(&positive_definite(n, 1));
        let a = widened(&l);
        for at in (0..n * n).filter(|at| at % n > at / n) {
            l[at] = common::nan::<T>(); // never read
        }
        With(kernel).factor(&mut l, n).unwrap();
        let full = lower(&l, n);
        let back = times(&full, &transposed(&full, [n, n]), [n, n, n]);
        let error = norm(&minus(&back, &a));
        assert_small::<T>(error / norm(&a).max(1.0), tolerance::CHOLESKY, n, &format!("{types}, n = {n}"));
        let untouched = (0..n * n).filter(|at| at % n > at / n).all(|at| l[at].to_f64().is_nan());
        assert!(untouched, "{types}, n = {n}: written above the diagonal");
    }
}

#[test]
fn the_factor_multiplies_back_to_the_matrix() {
    for_every_kernel!(factor_multiplies_back);
}

fn solution_has_a_small_residual<T: Scalar, K: Kernel<T>>(kernel: K, types: &str) {
    for (n, columns) in SIZES.into_iter().flat_map(|n| [(n, 1), (n, 19)]) {
        let a: Vec<T> = rounded(&positive_definite(n, 2));
        let b: Vec<T> = random(n * columns, 3);
        let (mut l, mut x) = (a.clone(), b.clone());
        With(kernel).factor(&mut l, n).unwrap();
        With(kernel).solve(&l, &mut x, [n, columns]);
        let (a, b, x) = (widened(&a), widened(&b), widened(&x));
        let residual = norm(&minus(&times(&a, &x, [n, n, columns]), &b));
        let size = (norm(&a) * norm(&x)).max(f64::MIN_POSITIVE);
        assert_small::<T>(residual / size, tolerance::SOLVE, n, &format!("{types}, {n} x {columns}"));
    }
}

#[test]
fn solutions_have_a_small_residual() {
    for_every_kernel!(solution_has_a_small_residual);
}

fn inverse_times_matrix_is_the_identity<T: Scalar, K: Kernel<T>>(kernel: K, types: &str) {
    for n in SIZES {
        let relu = relu_factor(n, 4);
        let damped: Vec<f64> = relu.iter().zip(identity::<f64>(n)).map(|(a, i)| a + 1e-3 * i).collect();
        for (name, a) in [("spread", positive_definite(n, 5)), ("damped ReLU factor", damped)] {
            let case = format!("{types}, {name}, n = {n}");
            let a: Vec<T> = rounded(&a);
            let mut x = a.clone();
            for at in (0..n * n).filter(|at| at % n > at / n) {
                x[at] = common::nan::<T>(); // never read
            }
            With(kernel).inverse(&mut x, n).unwrap();
            assert!((0..n * n).all(|at| x[at] == x[at % n * n + at / n]), "{case}: not symmetric to the bit");
            let (a, x) = (widened(&a), widened(&x));
            let error = norm(&minus_identity(&times(&a, &x, [n, n, n]), n));
            let size = (norm(&a) * norm(&x)).max(1.0);
            assert_small::<T>(error / size, tolerance::INVERSE, n, &case);
        }
    }
}

#[test]
fn the_inverse_times_the_matrix_is_the_identity() {
    for_every_kernel!(inverse_times_matrix_is_the_identity);
}

#[test]
fn the_inverse_is_the_solution_for_the_identity() {
    for n in [1, 5, 32, 40, 150] {
        let a: Vec<f64> = positive_definite(n, 6);
        let (mut l, mut x, mut solved) = (a.clone(), a.clone(), identity(n));
        With(Reproducible).factor(&mut l, n).unwrap();
        With(Reproducible).solve(&l, &mut solved, [n, n]);
        With(Reproducible).inverse(&mut x, n).unwrap();
        let error = norm(&minus(&x, &solved)) / norm(&x);
        // Both are inverses to n eps times the condition number, here 100.
        assert_small::<f64>(error, 100.0 * tolerance::INVERSE, n, &format!("n = {n}"));
    }
}

#[test]
fn the_log_determinant_is_the_sum_over_eigenvalues() {
    for n in [0, 1, 2, 31, 33, 64, 130] {
        let d: Vec<f64> = (0..n).map(|i| 0.01 + i as f64 / n as f64).collect();
        let mut a = common::with_spectrum(&d, 7);
        let found = With(Reproducible).inverse(&mut a, n).unwrap().log_determinant;
        let exact: f64 = d.iter().map(|d| d.ln()).sum();
        // The smallest eigenvalue, 0.01, is known to n eps / 0.01.
        assert!(
            (found - exact).abs() <= 200.0 * (n * n) as f64 * f64::EPSILON,
            "{n}: {found} is not {exact}"
        );
    }
}

#[test]
fn every_view_of_a_matrix_gives_the_same_bits() {
    let n = 150;
    let a: Vec<f32> = rounded(&positive_definite(n, 8));
    let (mut factor, mut inverse) = (a.clone(), a.clone());
    With(Reproducible).factor(&mut factor, n).unwrap();
    With(Reproducible).inverse(&mut inverse, n).unwrap();
    for strides in [[1, n], [1, n + 3], [3, 3 * n], [n + 5, 1]] {
        let filled = |data: &mut Vec<f32>| {
            for at in 0..n * n {
                data[at / n * strides[0] + at % n * strides[1]] = a[at];
            }
        };
        let mut spread = vec![0.0_f32; 4 * n * n];
        let scratch = &mut vec![0.0; cholesky::inverse_scratch_len::<f32>(n)];

        filled(&mut spread);
        let mut view = MatMut::with_strides(&mut spread, [n, n], strides).unwrap();
        cholesky::factor(Reproducible, view.reborrow(), scratch).unwrap();
        assert!(
            (0..n * n).all(|at| view.at(at / n, at % n).to_bits() == factor[at].to_bits()),
            "{strides:?}"
        );

        filled(&mut spread);
        let mut view = MatMut::with_strides(&mut spread, [n, n], strides).unwrap();
        cholesky::inverse(Reproducible, view.reborrow(), scratch).unwrap();
        assert!(
            (0..n * n).all(|at| view.at(at / n, at % n).to_bits() == inverse[at].to_bits()),
            "{strides:?}"
        );
    }
}

/// Spoils pivot `at` and expects to be told so, with the value left there.
fn failure_names_the_pivot<T: Scalar, K: Kernel<T>>(kernel: K, types: &str) {
    for n in [1, 2, 9, 33, 64, 65, 130] {
        for at in [0, n / 2, n - 1] {
            for bad in [-0.5, 0.0, f64::NAN, f64::INFINITY] {
                // All ones, and one more on the diagonal: the first row clears the ones, every other pivot is 1.
                let pivot = |i| if i == at { bad } else { 1.0 };
                let element = |i: usize, j: usize| match (i == j, i) {
                    (true, 0) => pivot(0),
                    (true, i) => 1.0 + pivot(i),
                    _ => 1.0,
                };
                let a: Vec<T> = (0..n * n).map(|at| T::from_f64(element(at / n, at % n))).collect();
                let (mut factored, mut inverted) = (a.clone(), a);
                let failures = [
                    With(kernel).factor(&mut factored, n),
                    With(kernel).inverse(&mut inverted, n).map(|_| ()),
                ];
                for failure in failures {
                    let Err(CholeskyError::NotPositiveDefinite { pivot, value }) = failure else {
                        panic!("{types}: pivot {at} of {n} is {bad}, yet {failure:?}");
                    };
                    let same = value == bad || value.is_nan() && bad.is_nan();
                    assert!(pivot == at && same, "{types}: pivot {at} of {n} is {bad}: {pivot}, {value}");
                }
            }
        }
    }
}

#[test]
fn a_failure_names_the_pivot_and_its_value() {
    for_every_kernel!(failure_names_the_pivot);
}

#[test]
fn a_singular_matrix_is_refused() {
    // Portable test T28: never silently infinite.
    let mut a = [1.0_f64, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0];
    let failure = With(Reproducible).inverse(&mut a, 3).unwrap_err();
    assert_eq!(failure, CholeskyError::NotPositiveDefinite { pivot: 2, value: 0.0 });
    assert_eq!(failure.to_string(), "the matrix is not positive definite: pivot 2 is 0e0");
    assert_eq!(failure.to_string(), "the matrix is not positive definite: pivot 2 is 0e0");
}

#[test]
fn the_inverse_of_an_ill_conditioned_matrix() {
    // Portable test T25: the square root of the inverse is known exactly.
    let root = [1.0, 1.0, 1.0, 1.0, 2.0, -3.0, 1.0, -3.0, 18.0];
    let mut a = [1195.0, -944.0, -224.0, -944.0, 746.0, 177.0, -224.0, 177.0, 42.0];
    With(Reproducible).inverse(&mut a, 3).unwrap();
    let exact = times(&root, &root, [3, 3, 3]);
    let error = norm(&minus(&a, &exact)) / norm(&exact);
    assert!(error <= 1e-6, "{error:e}"); // condition number 7e5
}

#[test]
fn shapes_and_scratch_are_checked_before_anything_is_written() {
    let mut a = [4.0_f64; 6];
    let oblong = CholeskyError::Shape(ShapeError::matrix("A", [2, 2], [2, 3]));
    let refused = cholesky::factor(Reproducible, MatMut::row_major(&mut a, 2, 3).unwrap(), &mut []);
    assert_eq!(refused, Err(oblong));
    let refused = cholesky::inverse(Reproducible, MatMut::row_major(&mut a, 2, 3).unwrap(), &mut []);
    assert_eq!(refused, Err(oblong));
    let needed = cholesky::inverse_scratch_len::<f64>(2);
    let refused = cholesky::inverse(Reproducible, MatMut::row_major(&mut a, 2, 2).unwrap(), &mut [0.0; 3]);
    assert_eq!(refused, Err(CholeskyError::Scratch(ScratchError { needed, found: 3 })));
    let l = MatRef::row_major(&[1.0, 0.0, 1.0, 0.0], 2, 2).unwrap();
    let scratch = &mut [0.0; cholesky::solve_scratch_len::<f64>(2, 3)];
    let refused = cholesky::solve(Reproducible, l, MatMut::row_major(&mut a, 2, 3).unwrap(), scratch);
    assert_eq!(refused, Err(CholeskyError::NotPositiveDefinite { pivot: 1, value: 0.0 }));
    assert_eq!(a, [4.0; 6]);
}
