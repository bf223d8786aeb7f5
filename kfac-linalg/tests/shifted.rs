//! Shifted solves: the dense systems as the oracle, and the error of a preconditioner in single precision.

mod common;

use common::{Numbers, norm, positive_definite, random, rounded, times, tolerance, tridiagonal, widened};
use kfac_linalg::product::{Accumulate, gemm, gemm_scratch_len};
use kfac_linalg::shifted::{self, Operand, ShiftedError, Shifts, Tridiagonal};
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar, ScratchError,
    ShapeError,
};

/// A reduced matrix and its shifts.
#[derive(Clone)]
struct System<T> {
    n: usize,
    q: Vec<T>,
    diagonal: Vec<T>,
    off_diagonal: Vec<T>,
    d: Vec<T>,
    lambda: T,
}

impl<T: Scalar> System<T> {
    fn new(a: &[f64], n: usize, d: &[f64], lambda: f64) -> Self {
        let [q, diagonal, off_diagonal] = tridiagonal(&rounded::<T>(a), n);
        Self { n, q, diagonal, off_diagonal, d: rounded(d), lambda: T::from_f64(lambda) }
    }

    /// Columns `j` of row-major `b`, solved; scratch is as short as promised and full of NaN.
    fn solve<K: Kernel<T>>(&self, kernel: K, b: &[T]) -> Result<Vec<T>, ShiftedError> {
        let (n, columns, mut x) = (self.n, self.d.len(), b.to_vec());
        let scratch = &mut vec![common::nan(); shifted::solve_scratch_len::<T>(n, columns)];
        let view = MatMut::row_major(&mut x, n, columns).unwrap();
        let shifts = Shifts { d: &self.d, lambda: self.lambda };
        let outcome = shifted::solve(kernel, self.reduced(), shifts, view, scratch);
        if outcome.is_err() {
            assert!(
                x.iter().zip(b).all(|(x, b)| x == b || b.to_f64().is_nan()),
                "{outcome:?}: b has changed"
            );
        }
        outcome.map(|()| x)
    }

    fn reduced(&self) -> Tridiagonal<'_, T> {
        let q = MatRef::row_major(&self.q, self.n, self.n).unwrap();
        Tridiagonal { q, diagonal: &self.diagonal, off_diagonal: &self.off_diagonal }
    }
}

/// `len` factors from 2 down to 0.
fn factors(len: usize) -> Vec<f64> {
    (0..len).map(|j| 2.0 - 2.0 * j as f64 / (len.max(2) - 1) as f64).collect()
}

fn columns_solve_their_dense_systems<T: Scalar, K: Kernel<T>>(kernel: K) {
    for n in [0, 1, 2, 3, 5, 31, 32, 33, 100] {
        let a: Vec<f64> = widened(&rounded::<T>(&positive_definite(n, 1)));
        for columns in [0, 1, 3, 16, 17, 47, 64, 65, 150] {
            let system = System::<T>::new(&a, n, &factors(columns), 0.3);
            let b: Vec<T> = random(n * columns, 2);
            let x = widened(&system.solve(kernel, &b).unwrap());
            let ax = times(&a, &x, [n, n, columns]);
            for j in 0..columns {
                let of_column = |x: &[f64]| -> Vec<f64> { (0..n).map(|i| x[i * columns + j]).collect() };
                let (x, ax, b) = (of_column(&x), of_column(&ax), of_column(&widened(&b)));
                let d = system.d[j].to_f64();
                let residual: Vec<f64> =
                    (0..n).map(|i| d * ax[i] + system.lambda.to_f64() * x[i] - b[i]).collect();
                let unit = n as f64 * T::EPSILON.to_f64() * (d * norm(&a) + 0.3) * norm(&x);
                let error = norm(&residual) / unit.max(f64::MIN_POSITIVE);
                assert!(error <= tolerance::SHIFTED, "n = {n}, column {j} of {columns}: {error:.2} n eps");
            }
        }
    }
}

#[test]
fn columns_solve_their_dense_systems_in_f32() {
    columns_solve_their_dense_systems::<f32, _>(Reproducible);
    InstructionSet::available().for_each(|set| columns_solve_their_dense_systems::<f32, _>(Fast::on(set)));
}

#[test]
fn columns_solve_their_dense_systems_in_f64() {
    columns_solve_their_dense_systems::<f64, _>(Reproducible);
    InstructionSet::available().for_each(|set| columns_solve_their_dense_systems::<f64, _>(Fast::on(set)));
}

/// Column by column in memory: any strides will do.
fn by_columns<T: Scalar>(x: &mut [T], columns: usize) -> MatMut<'_, T> {
    let n = x.len() / columns;
    MatMut::row_major(x, columns, n).unwrap().transposed()
}

/// To the bit what `solve` is between its two products.
#[test]
fn rotated_columns_are_solved_as_between_the_products() {
    fn check<T: Scalar, K: Kernel<T>>(kernel: K) {
        for (n, columns) in [(0, 3), (1, 1), (33, 17), (40, 150)] {
            let a: Vec<f64> = widened(&rounded::<T>(&positive_definite(n, 1)));
            let system = System::<T>::new(&a, n, &factors(columns), 0.3);
            let b: Vec<T> = random(n * columns, 2);
            let want = system.solve(kernel, &b).unwrap();

            let one = Accumulate::Replace(T::ONE);
            let packed = &mut vec![common::nan(); gemm_scratch_len::<T>(n, columns, n)];
            let (mut x, mut out) = (vec![T::ZERO; n * columns], vec![T::ZERO; n * columns]);
            let (form, b) = (system.reduced(), MatRef::row_major(&b, n, columns).unwrap());
            gemm(kernel, by_columns(&mut x, columns), one, form.q.transposed(), b, packed).unwrap();
            let len = shifted::solve_rotated_scratch_len::<T>(n, columns);
            let shifts = Shifts { d: &system.d, lambda: system.lambda };
            let scratch = &mut vec![common::nan(); len];
            shifted::solve_rotated(kernel, form, shifts, by_columns(&mut x, columns), scratch).unwrap();
            let into = MatMut::row_major(&mut out, n, columns).unwrap();
            gemm(kernel, into, one, form.q, by_columns(&mut x, columns).as_ref(), packed).unwrap();
            assert!(out == want, "{n} x {columns}");
            if n * columns > 0 {
                let short = &mut scratch[..len - 1];
                let refused =
                    shifted::solve_rotated(kernel, form, shifts, by_columns(&mut x, columns), short);
                let error = ScratchError { needed: len, found: len - 1 };
                assert_eq!(refused, Err(ShiftedError::Scratch(error)));
            }
        }
    }
    check::<f64, _>(Reproducible);
    check::<f32, _>(Fast::detect());
}

#[test]
fn a_diagonal_matrix_is_divided_by() {
    let (n, diagonal) = (5, vec![4.0_f32, 2.0, 1.0, 0.5, 0.0]);
    let system = System {
        n,
        q: common::identity(n),
        off_diagonal: vec![0.0; n - 1],
        d: vec![1.0, 0.5],
        lambda: 4.0,
        diagonal: diagonal.clone(),
    };
    let x = system.solve(Reproducible, &vec![1.0; 2 * n]).unwrap();
    for (row, t) in x.chunks(2).zip(&diagonal) {
        // Exact divisors or not, one reciprocal is correctly rounded.
        assert_eq!(row, [1.0 / (t + 4.0), 1.0 / (0.5 * t + 4.0)]);
    }
}

fn bits_depend_on_the_column_alone<T: Scalar>() {
    let (n, columns) = (70, 75);
    let system = System::<T>::new(&positive_definite(n, 3), n, &factors(columns), 0.1);
    let b: Vec<T> = random(n * columns, 4);
    let whole = system.solve(Reproducible, &b).unwrap();
    for set in InstructionSet::available() {
        assert!(whole == system.solve(ReproducibleOn(set), &b).unwrap(), "{set}");
    }
    for j in 0..columns {
        let one = System { d: vec![system.d[j]], ..system.clone() };
        let column: Vec<T> = (0..n).map(|i| b[i * columns + j]).collect();
        let alone = one.solve(Reproducible, &column).unwrap();
        assert!((0..n).all(|i| alone[i] == whole[i * columns + j]), "column {j}");
    }
    // Rows of the right-hand sides far apart, columns side by side: another view of the same numbers.
    let mut wide = vec![T::ZERO; 2 * n * columns];
    let mut view = MatMut::with_strides(&mut wide, [n, columns], [2, 2 * n]).unwrap();
    view.copy_from(MatRef::row_major(&b, n, columns).unwrap()).unwrap();
    let scratch = &mut vec![T::ZERO; shifted::solve_scratch_len::<T>(n, columns)];
    let shifts = Shifts { d: &system.d, lambda: system.lambda };
    shifted::solve(Reproducible, system.reduced(), shifts, view.reborrow(), scratch).unwrap();
    assert!((0..n * columns).all(|at| view.at(at / columns, at % columns) == whole[at]));
}

#[test]
fn bits_of_a_column_depend_on_that_column_alone() {
    bits_depend_on_the_column_alone::<f32>();
    bits_depend_on_the_column_alone::<f64>();
}

#[test]
fn a_matrix_that_is_not_positive_definite_is_named_with_column_and_pivot() {
    let (n, columns) = (20, 70);
    let mut system = System::<f64>::new(&positive_definite(n, 5), n, &vec![1.0; columns], 0.01);
    let b = random(n * columns, 6);
    system.d[67] = -1.0;
    let first = 0.01 - system.diagonal[0];
    let expected = ShiftedError::NotPositiveDefinite { column: 67, pivot: 0, value: first };
    assert_eq!(system.solve(Fast::detect(), &b).unwrap_err(), expected);
    system.d[67] = 1.0;
    // Rows 0 to 9 stand alone and are fine; row 10 begins with a negative diagonal element.
    (system.off_diagonal[9], system.diagonal[10]) = (0.0, -3.0);
    let expected = ShiftedError::NotPositiveDefinite { column: 0, pivot: 10, value: -3.0 + 0.01 };
    assert_eq!(system.solve(Reproducible, &b).unwrap_err(), expected);
    assert_eq!(expected.to_string(), "the matrix of column 0 is not positive definite: pivot 10 is -2.99e0");
    // Without damping the zero matrix has no inverse.
    let zero = System::<f32>::new(&[0.0; 4], 2, &[1.0], 0.0);
    let expected = ShiftedError::NotPositiveDefinite { column: 0, pivot: 0, value: 0.0 };
    assert_eq!(zero.solve(Reproducible, &[1.0, 1.0]).unwrap_err(), expected);
}

#[test]
fn what_is_not_finite_is_named() {
    let (n, columns) = (9, 20);
    let system = System::<f32>::new(&positive_definite(n, 7), n, &factors(columns), 0.1);
    let b: Vec<f32> = random(n * columns, 8);
    let named = |operand, row, col| ShiftedError::NotFinite { operand, row, col };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut broken = system.clone();
        broken.q[4 * n + 2] = bad;
        assert_eq!(broken.solve(Fast::detect(), &b).unwrap_err(), named(Operand::Basis, 4, 2));
        let mut broken = system.clone();
        broken.diagonal[8] = bad;
        assert_eq!(broken.solve(Fast::detect(), &b).unwrap_err(), named(Operand::Diagonal, 8, 0));
        let mut broken = system.clone();
        broken.off_diagonal[7] = bad;
        assert_eq!(broken.solve(Fast::detect(), &b).unwrap_err(), named(Operand::OffDiagonal, 7, 0));
        let mut broken = system.clone();
        broken.d[19] = bad;
        assert_eq!(broken.solve(Fast::detect(), &b).unwrap_err(), named(Operand::Factors, 19, 0));
        let broken = System { lambda: bad, ..system.clone() };
        assert_eq!(broken.solve(Fast::detect(), &b).unwrap_err(), named(Operand::Lambda, 0, 0));
        for (row, col) in [(0, 0), (8, 19), (3, 16)] {
            let mut broken = b.clone();
            broken[row * columns + col] = bad;
            let error = system.solve(Fast::detect(), &broken).unwrap_err();
            assert_eq!(error, named(Operand::RightHandSides, row, col));
        }
    }
    let mut large = system.clone();
    large.d[3] = f32::MAX;
    large.diagonal[5] = 2.0;
    assert_eq!(large.solve(Reproducible, &b).unwrap_err(), ShiftedError::Overflow { column: 3 });
    // 1 / 2^-130 is no number of this type.
    let tiny = System { d: vec![0.0; columns], lambda: f32::MIN_POSITIVE / 16.0, ..system };
    assert_eq!(tiny.solve(Reproducible, &b).unwrap_err(), ShiftedError::Overflow { column: 0 });
}

#[test]
fn wrong_shapes_and_short_scratch_are_refused() {
    let system = System::<f64>::new(&positive_definite(4, 9), 4, &[1.0, 2.0], 0.1);
    let needed = shifted::solve_scratch_len::<f64>(4, 2);
    let shifts = Shifts { d: &system.d, lambda: 0.1 };
    let run = |a, shifts, scratch: usize| {
        let (mut b, mut scratch) = ([7.0; 8], vec![0.0; scratch]);
        let view = MatMut::row_major(&mut b, 4, 2).unwrap();
        let error = shifted::solve(Reproducible, a, shifts, view, &mut scratch).unwrap_err();
        assert_eq!(b, [7.0; 8]);
        error
    };
    let vector = |name, expected, found| ShiftedError::Shape(ShapeError::vector(name, expected, found));
    let a = system.reduced();
    let short = ShiftedError::Scratch(ScratchError { needed, found: needed - 1 });
    assert_eq!(run(a, shifts, needed - 1), short);
    assert_eq!(run(a, Shifts { d: &system.d[..1], ..shifts }, needed), vector("d", 2, 1));
    assert_eq!(
        run(Tridiagonal { diagonal: &system.diagonal[1..], ..a }, shifts, needed),
        vector("the diagonal", 4, 3)
    );
    let long = Tridiagonal { off_diagonal: &system.diagonal, ..a };
    assert_eq!(run(long, shifts, needed), vector("the off-diagonal", 3, 4));
    let oblong = Tridiagonal { q: a.q.block(0..4, 0..3).unwrap(), ..a };
    assert_eq!(run(oblong, shifts, needed), ShiftedError::Shape(ShapeError::matrix("Q", [4, 4], [4, 3])));
}

/// The moving average, decay 0.95, of 100 batches of 128 Gaussian vectors whose variances fall as `i^-2`.
fn gauss_factor(n: usize) -> Vec<f64> {
    let mut numbers = Numbers(10);
    // Twelve uniform numbers make a good Gaussian one; a few reflections mix the coordinates.
    let (batches, batch) = (100, 128);
    let mut moments = vec![0.0; n * n];
    for step in 0..batches {
        let decay = (1.0 - 1.0 / f64::from(step + 1)).min(0.95);
        let x: Vec<f32> = (0..batch * n)
            .map(|at| ((0..12).map(|_| numbers.next()).sum::<f64>() / 2.0 / (1 + at % n) as f64) as f32)
            .collect();
        let mut gram = vec![0.0_f32; n * n];
        let (x, view) =
            (MatRef::row_major(&x, batch, n).unwrap(), MatMut::row_major(&mut gram, n, n).unwrap());
        common::With(Fast::detect()).gemm(
            view,
            kfac_linalg::product::Accumulate::Replace(1.0),
            x.transposed(),
            x,
        );
        for (moment, x) in moments.iter_mut().zip(&gram) {
            *moment = decay * *moment + (1.0 - decay) * f64::from(*x) / batch as f64;
        }
    }
    for seed in 0..3 {
        let v: Vec<f64> = random(n, 20 + seed);
        let square = v.iter().map(|x| x * x).sum::<f64>();
        for transpose in [false, true] {
            let at = |i: usize, j: usize| if transpose { j * n + i } else { i * n + j };
            let mut dots = vec![0.0; n];
            for i in 0..n {
                (0..n).for_each(|j| dots[j] += v[i] * moments[at(i, j)]);
            }
            for i in 0..n {
                (0..n).for_each(|j| moments[at(i, j)] -= 2.0 * v[i] * dots[j] / square);
            }
        }
    }
    moments
}

#[test]
fn a_preconditioner_in_single_precision_keeps_three_digits_on_a_falling_spectrum() {
    let (n, sides) = (512, 16);
    let a: Vec<f64> = widened(&rounded::<f32>(&gauss_factor(n)));
    let lambda = 1e-3 * (0..n).map(|i| a[i * n + i]).sum::<f64>() / n as f64;
    let d: Vec<f64> = (1..=sides).map(|j| f64::from(j).powf(-1.5)).collect();
    let mean = d.iter().sum::<f64>() / d.len() as f64;
    let d: Vec<f64> = d.iter().map(|d| d / mean).collect();
    let b: Vec<f64> = random(n * d.len(), 11);
    let exact = System::<f64>::new(&a, n, &d, lambda).solve(Fast::detect(), &b).unwrap();
    let single = System::<f32>::new(&a, n, &d, lambda);
    for kernel in InstructionSet::available().map(Fast::on) {
        let found = widened(&single.solve(kernel, &rounded(&b)).unwrap());
        let error = norm(&common::minus(&found, &exact)) / norm(&exact);
        // faer's decomposition in f32, divided and rotated back, is off by 4e-2 on such a factor.
        assert!(error <= 2e-3, "{error:e}");
    }
}
