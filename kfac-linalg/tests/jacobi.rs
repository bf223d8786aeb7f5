//! Jacobi: warm starts and budgets. What it shares with other solvers is in `eigh.rs`.

mod common;

use common::spectra::{Found, Hard, assert_decomposes, hard_matrices};
use common::{Numbers, identity, minus, minus_identity, norm, random, relu_factor, rounded, times};
use common::{tolerance, transposed, widened, with_spectrum};
use kfac_linalg::eigh::EighError;
use kfac_linalg::eigh::jacobi::{self, Budget, Outcome};
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar, ScratchError,
    ShapeError,
};

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

fn an_unchanged_matrix_takes_one_sweep<T: Scalar, K: Kernel<T>>(kernel: K) {
    for n in (1..=9).chain([16, 33, 64]) {
        for Hard { name, a, exact } in hard_matrices(n) {
            let a: Vec<T> = rounded(&a);
            let case = format!("{name}, n = {n}");
            let first = cold(kernel, &a, n, Budget::FULL).unwrap();
            let again = warm(kernel, &a, &first.q, n, Budget::FULL).unwrap();
            assert_decomposes(&a, &again, exact.as_deref(), &case);
            assert!(again.outcome.sweeps <= 1, "{case}:  {:?}", again.outcome);
        }
    }
}

#[test]
fn an_unchanged_matrix_takes_one_sweep_at_most() {
    an_unchanged_matrix_takes_one_sweep::<f32, _>(Reproducible);
    an_unchanged_matrix_takes_one_sweep::<f32, _>(Fast::detect());
    an_unchanged_matrix_takes_one_sweep::<f64, _>(Reproducible);
    an_unchanged_matrix_takes_one_sweep::<f64, _>(Fast::detect());
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

/// One step of a moving average of vectors whose sizes fall to a thousandth: a factor with a condition of a million.
fn drift<T: Scalar>(a: &mut [T], n: usize, numbers: &mut Numbers) {
    let size = |i: usize| 1e-3_f64.powf(i as f64 / (n - 1) as f64);
    let x: Vec<f64> = (0..n).map(|i| numbers.next() * size(i)).collect();
    for at in 0..n * n {
        a[at] = T::from_f64(0.95 * a[at].to_f64() + 0.05 * x[at / n] * x[at % n]);
    }
}

fn refreshes_stay_orthogonal<T: Scalar, K: Kernel<T>>(kernel: K, n: usize) {
    let mut numbers = Numbers(5);
    let mut a: Vec<T> = vec![T::ZERO; n * n];
    (0..200).for_each(|_| drift(&mut a, n, &mut numbers));
    let mut basis = cold(kernel, &a, n, Budget::FULL).unwrap().q;
    for refresh in 0..2000 {
        drift(&mut a, n, &mut numbers);
        let found = warm(kernel, &a, &basis, n, Budget::FULL).unwrap();
        assert_decomposes(&a, &found, None, &format!("refresh {refresh}, n = {n}"));
        basis = found.q;
    }
    let (last, fresh) =
        (warm(kernel, &a, &basis, n, Budget::FULL).unwrap(), cold(kernel, &a, n, Budget::FULL).unwrap());
    let error = norm(&minus(&widened(&last.d), &widened(&fresh.d))) / norm(&widened(&fresh.d));
    assert!(error <= tolerance::EIGENVALUES * n as f64 * T::EPSILON.to_f64(), "{error:e}");
}

#[test]
fn two_thousand_warm_refreshes_stay_orthogonal() {
    refreshes_stay_orthogonal::<f32, _>(Reproducible, 16);
    refreshes_stay_orthogonal::<f32, _>(Fast::detect(), 32);
    refreshes_stay_orthogonal::<f64, _>(Fast::detect(), 17);
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
    let short = EighError::Shape(ShapeError::vector("d", 3, 2));
    assert_eq!(run(a, &mut d[..2], &mut scratch), short);
    let oblong = a.block(0..3, 0..2).unwrap();
    let oblong_error = EighError::Shape(ShapeError::matrix("A", [3, 3], [3, 2]));
    assert_eq!(run(oblong, &mut d, &mut scratch), oblong_error);
    assert_eq!(d, [7.0; 3]);
}

fn every_register_width_gives_the_same_bits<T: Scalar>() {
    for n in [1, 2, 3, 9, 31, 32, 33, 50] {
        let a: Vec<T> = rounded(&relu_factor(n, 10));
        let plain = cold(Reproducible, &a, n, Budget::FULL).unwrap();
        let next: Vec<T> = a.iter().map(|&x| x + x * x).collect();
        let again = warm(Reproducible, &next, &plain.q, n, Budget::FULL).unwrap();
        for set in InstructionSet::available() {
            let found = cold(ReproducibleOn(set), &a, n, Budget::FULL).unwrap();
            assert!(found.q == plain.q && found.d == plain.d, "cold, n = {n}, {set}");
            let found = warm(ReproducibleOn(set), &next, &plain.q, n, Budget::FULL).unwrap();
            assert!(found.q == again.q && found.d == again.d, "warm, n = {n}, {set}");
        }
    }
}

#[test]
fn every_register_width_gives_the_same_bits_in_f32_and_f64() {
    every_register_width_gives_the_same_bits::<f32>();
    every_register_width_gives_the_same_bits::<f64>();
}

#[test]
fn a_hostile_start_converges_or_says_that_its_budget_is_spent() {
    let n = 32;
    let a: Vec<f32> = rounded(&relu_factor(n, 11));
    // The eigenvectors of a matrix that has nothing to do with this one.
    let other: Vec<f32> = rounded(&with_spectrum(&(0..n).map(|i| i as f64).collect::<Vec<_>>(), 12));
    let basis = cold(Reproducible, &other, n, Budget::FULL).unwrap().q;
    for kernel in InstructionSet::available().map(Fast::on) {
        let found = warm(kernel, &a, &basis, n, Budget::FULL).unwrap();
        assert_decomposes(&a, &found, None, "hostile");
        let spent = warm(kernel, &a, &basis, n, Budget { sweeps: 2, ..Budget::FULL }).unwrap_err();
        let EighError::BudgetSpent(spent) = spent else { panic!("{spent:?}") };
        assert!(spent.sweeps == 2 && !spent.converged && spent.off_diagonal > 1e-6, "{spent:?}");
    }
}
