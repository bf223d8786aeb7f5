//! Jacobi: reconstruction, orthogonality and order on hard spectra, cold and warm.

mod common;

use common::{
    Numbers, identity, minus, minus_identity, norm, random, relu_factor, rounded, times, tolerance,
};
use common::{transposed, widened, with_spectrum};
use kfac_linalg::eigh::EighError;
use kfac_linalg::eigh::jacobi::{self, Budget, Outcome};
use kfac_linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar, ScratchError, ShapeError};

/// Eigenvectors and eigenvalues of one matrix, and how they were found.
#[derive(Clone, Debug)]
struct Found<T> {
    q: Vec<T>,
    d: Vec<T>,
    outcome: Outcome,
}

fn cold<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: &[T],
    n: usize,
    budget: Budget,
) -> Result<Found<T>, EighError> {
    let nan: T = common::nan();
    let (mut q, mut d) = (vec![nan; n * n], vec![nan; n]);
    let scratch = &mut vec![nan; jacobi::scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    let outcome = jacobi::cold(kernel, a, view, &mut d, budget, scratch)?;
    Ok(Found { q, d, outcome })
}

fn warm<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: &[T],
    basis: &[T],
    n: usize,
    budget: Budget,
) -> Result<Found<T>, EighError> {
    let nan: T = common::nan();
    let (mut q, mut d) = (basis.to_vec(), vec![nan; n]);
    let scratch = &mut vec![nan; jacobi::scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    let outcome = jacobi::warm(kernel, a, view, &mut d, budget, scratch)?;
    Ok(Found { q, d, outcome })
}

/// A symmetric matrix, with its eigenvalues where they are known.
struct Hard {
    name: &'static str,
    a: Vec<f64>,
    exact: Option<Vec<f64>>,
}

/// The matrices every solver must survive.
fn hard_matrices(n: usize) -> Vec<Hard> {
    let place = |i: usize| i as f64 / n.max(2) as f64;
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0_f64 } else { -1.0 };
    let spectra: [(&str, &dyn Fn(usize) -> f64); 7] = [
        ("graded over 12 decades", &|i| 10_f64.powf(-12.0 * place(i))),
        ("two clusters", &|i| sign(i).max(1e-3)),
        ("one cluster, spacing 10 eps", &|i| 1.0 + 10.0 * f64::EPSILON * i as f64),
        ("rank n/4", &|i| if 4 * i < n { 1.0 + i as f64 } else { 0.0 }),
        ("alternating signs", &|i| sign(i) * (1.0 + (i / 2) as f64)),
        ("uniform", &|i| 1.0 + i as f64),
        ("negative", &|i| -1.0 - place(i)),
    ];
    let mut cases: Vec<_> = spectra
        .into_iter()
        .map(|(name, d)| {
            let d: Vec<f64> = (0..n).map(d).collect();
            Hard { name, a: with_spectrum(&d, 1), exact: Some(d) }
        })
        .collect();
    let wilkinson = |i: usize, j: usize| match i.abs_diff(j) {
        0 => (i as f64 - (n - 1) as f64 / 2.0).abs(),
        1 => 1.0,
        _ => 0.0,
    };
    let arrow = |i: usize, j: usize| if i == j || i == 0 || j == 0 { 1.0 } else { 0.0 };
    let full = |element: &dyn Fn(usize, usize) -> f64| (0..n * n).map(|at| element(at / n, at % n)).collect();
    cases.push(Hard { name: "ReLU factor", a: relu_factor(n, 2), exact: None });
    cases.push(Hard { name: "Wilkinson", a: full(&wilkinson), exact: None });
    cases.push(Hard { name: "arrow with equal diagonal", a: full(&arrow), exact: None });
    cases
}

/// Reconstruction, orthogonality, order, and the exact eigenvalues where known.
fn assert_decomposes<T: Scalar>(a: &[T], found: &Found<T>, exact: Option<&[f64]>, case: &str) {
    let n = found.d.len();
    let unit = n.max(1) as f64 * T::EPSILON.to_f64();
    let (a, q, d) = (widened(a), widened(&found.q), widened(&found.d));
    let size = norm(&a).max(f64::MIN_POSITIVE);
    let scaled: Vec<f64> = a.iter().map(|x| x / size).collect();
    let qd: Vec<f64> = (0..n * n).map(|at| q[at] * (d[at % n] / size)).collect();
    let residual = norm(&minus(&times(&scaled, &q, [n, n, n]), &qd)) / unit;
    assert!(residual <= tolerance::EIGENVECTORS, "{case}: residual {residual:.2} n eps");
    let gram = times(&transposed(&q, [n, n]), &q, [n, n, n]);
    let orthogonality = norm(&minus_identity(&gram, n)) / unit;
    assert!(orthogonality <= tolerance::EIGENVECTORS, "{case}: orthogonality {orthogonality:.2} n eps");
    assert!(d.windows(2).all(|pair| pair[0] <= pair[1]), "{case}: not ascending");
    assert!(found.outcome.converged, "{case}: {:?}", found.outcome);
    if let Some(exact) = exact {
        let mut exact = exact.to_vec();
        exact.sort_by(f64::total_cmp);
        let top = exact.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
        let error = d.iter().zip(&exact).fold(0.0, |worst: f64, (d, x)| worst.max((d - x).abs()));
        assert!(error <= tolerance::EIGENVALUES * unit * top, "{case}: eigenvalue error {error:e}");
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    (1..=33).chain([64, 100])
}

fn hard_matrices_decompose<T: Scalar, K: Kernel<T>>(kernel: K) {
    for n in sizes() {
        for Hard { name, a, exact } in hard_matrices(n) {
            let a: Vec<T> = rounded(&a);
            let case = format!("{name}, n = {n}");
            let first = cold(kernel, &a, n, Budget::FULL).unwrap();
            assert_decomposes(&a, &first, exact.as_deref(), &case);
            let again = warm(kernel, &a, &first.q, n, Budget::FULL).unwrap();
            assert_decomposes(&a, &again, exact.as_deref(), &format!("{case}, warm"));
            assert!(again.outcome.sweeps <= 1, "{case}: an unchanged matrix took {:?}", again.outcome);
        }
    }
}

#[test]
fn hard_matrices_decompose_in_f32() {
    hard_matrices_decompose::<f32, _>(Reproducible);
    hard_matrices_decompose::<f32, _>(Fast::detect());
}

#[test]
fn hard_matrices_decompose_in_f64() {
    hard_matrices_decompose::<f64, _>(Reproducible);
    hard_matrices_decompose::<f64, _>(Fast::detect());
}

#[test]
fn zero_identity_and_diagonal_matrices_are_exact_and_take_no_sweep() {
    for n in [0, 1, 2, 5, 16] {
        let diagonal: Vec<f32> =
            (0..n * n).map(|at| if at / n == at % n { (at % 3) as f32 } else { 0.0 }).collect();
        for a in [vec![0.0_f32; n * n], identity(n), diagonal] {
            let found = cold(Reproducible, &a, n, Budget::FULL).unwrap();
            assert_eq!(found.outcome, Outcome { sweeps: 0, off_diagonal: 0.0, converged: true });
            let mut exact: Vec<f32> = (0..n).map(|i| a[i * n + i]).collect();
            exact.sort_by(f32::total_cmp);
            assert_eq!(found.d, exact);
            let units = found.q.iter().filter(|&&x| x == 1.0).count();
            let zeros = found.q.iter().filter(|&&x| x == 0.0).count();
            assert_eq!((units, zeros), (n, n * n - n), "a permutation");
        }
    }
}

fn extreme_scales_decompose<T: Scalar>(scales: &[f64]) {
    for &scale in scales {
        for n in [2, 5, 16, 33] {
            let d: Vec<f64> = (0..n).map(|i| scale * (0.1 + i as f64 / n as f64)).collect();
            let a: Vec<T> = rounded(&with_spectrum(&d, 3));
            let found = cold(Reproducible, &a, n, Budget::FULL).unwrap();
            assert_decomposes(&a, &found, Some(&d), &format!("times {scale:e}, n = {n}"));
        }
    }
}

#[test]
fn extreme_scales_neither_overflow_nor_underflow() {
    extreme_scales_decompose::<f32>(&[1e37, 1e20, 1e-20, 1e-30]);
    extreme_scales_decompose::<f64>(&[1e306, 1e200, 1e-200, 1e-290]);
    // Near the subnormal range each element has fewer digits: the matrix that was stored decomposes all the same.
    let a: Vec<f32> = rounded(&with_spectrum(&[1e-34, 2e-34, 5e-34], 4));
    assert_decomposes(&a, &cold(Reproducible, &a, 3, Budget::FULL).unwrap(), None, "times 1e-34");
}

#[test]
fn an_eigenvalue_beyond_the_range_is_named() {
    let a = [f32::MAX; 4];
    assert_eq!(cold(Reproducible, &a, 2, Budget::FULL).unwrap_err(), EighError::Overflow { index: 1 });
}

#[test]
fn eigenvalues_of_the_inverse_root_matrix() {
    // Portable test T26, whose numbers were printed in f32 and are off by 1e-4. These are the roots of the matrix's
    // characteristic polynomial, x³ - 1983 x² + 351 x - 1, to all digits.
    let a = [1195.0, -944.0, -224.0, -944.0, 746.0, 177.0, -224.0, 177.0, 42.0];
    let exact = [0.002_896_397_721_327_855, 0.174_123_688_904_800_9, 1_982.822_979_913_373_8];
    let found = cold(Reproducible, &a, 3, Budget::FULL).unwrap();
    assert_decomposes(&a, &found, Some(&exact), "T26");
    let old = cold(Reproducible, &a.map(|x: f64| x.round() + 0.5), 3, Budget::FULL).unwrap();
    let found = warm(Reproducible, &a, &old.q, 3, Budget::FULL).unwrap();
    assert_decomposes(&a, &found, None, "from the basis of a matrix nearby");
}

/// Adds a little symmetric noise and shrinks the rest: one moving average of a factor.
fn drift<T: Scalar>(a: &mut [T], n: usize, numbers: &mut Numbers) {
    let x: Vec<f64> = (0..n).map(|i| numbers.next().max(0.0) / (1 + i) as f64).collect();
    for at in 0..n * n {
        a[at] = T::from_f64(0.95 * a[at].to_f64() + 0.05 * x[at / n] * x[at % n]);
    }
}

fn refreshes_stay_orthogonal<T: Scalar>(n: usize) {
    let mut numbers = Numbers(5);
    let mut a: Vec<T> = rounded(&relu_factor(n, 6));
    let mut basis = cold(Reproducible, &a, n, Budget::FULL).unwrap().q;
    for refresh in 0..2000 {
        drift(&mut a, n, &mut numbers);
        let found = warm(Reproducible, &a, &basis, n, Budget::FULL).unwrap();
        assert_decomposes(&a, &found, None, &format!("refresh {refresh}, n = {n}"));
        basis = found.q;
    }
    let (last, fresh) = (
        warm(Reproducible, &a, &basis, n, Budget::FULL).unwrap(),
        cold(Reproducible, &a, n, Budget::FULL).unwrap(),
    );
    let error = norm(&minus(&widened(&last.d), &widened(&fresh.d))) / norm(&widened(&fresh.d));
    assert!(error <= tolerance::EIGENVALUES * n as f64 * T::EPSILON.to_f64(), "{error:e}");
}

#[test]
fn two_thousand_warm_refreshes_stay_orthogonal() {
    refreshes_stay_orthogonal::<f32>(16);
    refreshes_stay_orthogonal::<f64>(17);
}

#[test]
fn a_basis_that_is_not_orthonormal_is_mended_or_refused() {
    let n = 12;
    let a = relu_factor(n, 7);
    let basis = cold(Reproducible, &a, n, Budget::FULL).unwrap().q;
    for skew in [1e-12, 1e-6, 1e-3, 0.05] {
        let bent: Vec<f64> =
            basis.iter().zip(random::<f64>(n * n, 8)).map(|(q, x)| q + skew / 4.0 * x).collect();
        let found = warm(Reproducible, &a, &bent, n, Budget::FULL).unwrap();
        assert_decomposes(&a, &found, None, &format!("bent by {skew}"));
    }
    let mut doubled: Vec<f64> = basis.iter().map(|x| 2.0 * x).collect();
    let refused = warm(Reproducible, &a, &doubled, n, Budget::FULL).unwrap_err();
    assert!(
        matches!(refused, EighError::NotOrthonormal { deviation } if (deviation - 3.0 * 12_f64.sqrt()).abs() < 1e-6)
    );
    doubled[5] = f64::NAN;
    let refused = warm(Reproducible, &a, &doubled, n, Budget::FULL).unwrap_err();
    assert_eq!(refused, EighError::NotFinite { row: 0, col: 5 });
}

#[test]
fn a_spent_budget_is_an_error_unless_accepted() {
    let (n, a) = (20, relu_factor(20, 9));
    let one = Budget { sweeps: 1, ..Budget::FULL };
    let Err(EighError::BudgetSpent(spent)) = cold(Reproducible, &a, n, one) else {
        panic!("one sweep cannot be enough");
    };
    assert!(spent.sweeps == 1 && !spent.converged && spent.off_diagonal > 1e-3, "{spent:?}");
    let taken = cold(Reproducible, &a, n, Budget::bounded(1)).unwrap();
    assert_eq!(taken.outcome, spent);
    let gram = times(&transposed(&taken.q, [n, n]), &taken.q, [n, n, n]);
    let deviation = norm(&minus_identity(&gram, n));
    assert!(deviation <= tolerance::EIGENVECTORS * n as f64 * f64::EPSILON, "{deviation:e}");
    // No sweep at all: the diagonal and the identity.
    let none = cold(Reproducible, &[0.0, 1.0, 1.0, 0.0], 2, Budget::bounded(0)).unwrap();
    assert_eq!((none.q, none.d), (identity(2), vec![0.0, 0.0]));
    assert_eq!(none.outcome, Outcome { sweeps: 0, off_diagonal: 1.0, converged: false });
}

#[test]
fn bad_input_is_named_and_leaves_the_result_untouched() {
    let mut scratch = [0.0_f32; 1024];
    let (mut q, mut d) = ([7.0_f32; 9], [7.0_f32; 3]);
    let mut a = [1.0_f32; 9];
    a[2] = f32::NAN; // above the diagonal: not read
    a[7] = f32::INFINITY;
    let a = MatRef::row_major(&a, 3, 3).unwrap();
    let mut run = |a, d: &mut [f32], scratch: &mut [f32]| {
        let starts = [jacobi::cold::<f32, Reproducible>, jacobi::warm::<f32, Reproducible>];
        let [first, second] = starts.map(|start| {
            let view = MatMut::row_major(&mut q, 3, 3).unwrap();
            start(Reproducible, a, view, d, Budget::FULL, scratch).unwrap_err()
        });
        assert_eq!(first, second);
        assert_eq!(q, [7.0; 9]);
        first
    };
    assert_eq!(run(a, &mut d, &mut scratch), EighError::NotFinite { row: 2, col: 1 });
    let needed = jacobi::scratch_len::<f32>(3);
    assert_eq!(run(a, &mut d, &mut scratch[..5]), EighError::Scratch(ScratchError { needed, found: 5 }));
    let short = EighError::Shape(ShapeError { expected: [3, 1], found: [2, 1] });
    assert_eq!(run(a, &mut d[..2], &mut scratch), short);
    let oblong = a.block(0..3, 0..2).unwrap();
    let oblong_error = EighError::Shape(ShapeError { expected: [3, 3], found: [3, 2] });
    assert_eq!(run(oblong, &mut d, &mut scratch), oblong_error);
    assert_eq!(d, [7.0; 3]);
}

#[test]
fn both_kernels_and_every_view_give_a_cold_start_the_same_bits() {
    let n = 9;
    let a: Vec<f64> = relu_factor(n, 10);
    let plain = cold(Reproducible, &a, n, Budget::FULL).unwrap();
    assert_eq!(plain.q, cold(Fast::detect(), &a, n, Budget::FULL).unwrap().q);
    let (mut q, mut d) = (vec![0.0; 2 * n * n], vec![0.0; n]);
    let mut view = MatMut::with_strides(&mut q, [n, n], [2, 2 * n]).unwrap();
    let scratch = &mut vec![0.0; jacobi::scratch_len::<f64>(n)];
    let column_major = MatRef::row_major(&a, n, n).unwrap().transposed();
    jacobi::cold(Reproducible, column_major, view.reborrow(), &mut d, Budget::FULL, scratch).unwrap();
    assert!((0..n * n).all(|at| view.at(at / n, at % n) == plain.q[at]));
}
