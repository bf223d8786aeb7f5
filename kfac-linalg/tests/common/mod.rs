//! What the tests share: numbers without a generator crate, plain loops to compare with, and every tolerance.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

pub mod spectra;

use kfac_linalg::{Kernel, MatMut, MatRef, Scalar, cholesky, product};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// All tolerances, in units of `n eps`.
///
/// The worst case measured stands in brackets. A bound is about twice that, or more where the worst case is a
/// matrix of one or two rows: another order of rounding (fused products, a wider register) may cost that much, and a
/// wrong algorithm misses by orders of magnitude.
pub mod tolerance {
    /// `||A Q - Q D||_F / ||A||_F` (0.95) and `||QᵀQ - I||_F` (1.64); the golden files ask the same of every solver.
    pub const EIGENVECTORS: f64 = 4.0;
    /// `||QᵀQ - I||_F` after a subspace step (3.1).
    pub const STEP_ORTHOGONALITY: f64 = 10.0;
    /// `|d_i - q_iᵀAq_i| / (q_iᵀAq_i + λ)` after a subspace step (2.7e-4 on 4 n samples a batch): third order in the
    /// rotation. Not in units of `n eps`.
    pub const STEP_QUOTIENTS: f64 = 1e-3;
    /// What a subspace step estimates over what it is, or the inverse (1.03, at `n = 3`). Not in units of `n eps`.
    pub const STEP_ESTIMATES: f64 = 1.1;
    /// `|d - exact| / max |exact|` (1.5, half of it from rounding the matrix to the type under test).
    pub const EIGENVALUES: f64 = 4.0;
    /// `||L Lᵀ - A||_F / max(||A||_F, 1)` (0.28): one sum of at most `n` products per element.
    pub const CHOLESKY: f64 = 1.0;
    /// `||A X - B||_F / (||A||_F ||X||_F)` (0.66, at `n = 1`): two triangular solutions.
    pub const SOLVE: f64 = 2.0;
    /// `||(d_j A + λ I) X - B||_F / ((d_j ||A||_F + λ) ||X||_F)` per column (0.9, at `n = 1`): a reduction and a solution.
    pub const SHIFTED: f64 = 2.0;
    /// `|Σ t x - b| / (Σ |t x| + |b|)` (0.5, at `n = 1`), row by row.
    pub const TRIANGLE: f64 = 1.0;
    /// `||A A⁻¹ - I||_F / (||A||_F ||A⁻¹||_F)` (1.17, at `n = 1`): as good as by factor and solve.
    pub const INVERSE: f64 = 2.0;
}

/// A stream of numbers that is the same everywhere: SplitMix64 (Steele, Lea and Flood 2014).
pub struct Numbers(pub u64);

impl Numbers {
    /// Uniform in `[-1, 1)`.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// `len` numbers, uniform in `[-1, 1)`.
pub fn random<T: Scalar>(len: usize, seed: u64) -> Vec<T> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| T::from_f64(numbers.next())).collect()
}

/// What must never be read.
pub fn nan<T: Scalar>() -> T {
    T::from_f64(f64::NAN)
}

/// Rounds every number to `T`.
pub fn rounded<T: Scalar>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::from_f64(x)).collect()
}

/// Widens every number, exactly.
pub fn widened<T: Scalar>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

/// `A B` of row-major matrices, the obvious way.
pub fn times(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for p in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + p] * b[p * n + j];
            }
        }
    }
    c
}

/// The transpose of a row-major `m x n` matrix.
pub fn transposed(a: &[f64], [m, n]: [usize; 2]) -> Vec<f64> {
    (0..n * m).map(|at| a[at % m * n + at / m]).collect()
}

/// `A - I`, row-major `n x n`.
pub fn minus_identity(a: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|at| if at / n == at % n { a[at] - 1.0 } else { a[at] }).collect()
}

/// The identity.
pub fn identity<T: Scalar>(n: usize) -> Vec<T> {
    (0..n * n).map(|at| if at / n == at % n { T::ONE } else { T::ZERO }).collect()
}

/// `A - B`.
pub fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Frobenius norm, without overflow.
pub fn norm(a: &[f64]) -> f64 {
    let top = a.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
    if top == 0.0 { 0.0 } else { top * a.iter().map(|x| (x / top) * (x / top)).sum::<f64>().sqrt() }
}

/// A symmetric matrix with given eigenvalues: `diag(d)` between three random reflections.
pub fn with_spectrum(d: &[f64], seed: u64) -> Vec<f64> {
    let n = d.len();
    let mut a: Vec<f64> = (0..n * n).map(|at| if at / n == at % n { d[at % n] } else { 0.0 }).collect();
    for reflection in 0..3 {
        let v: Vec<f64> = random(n, seed + reflection);
        let square = v.iter().map(|x| x * x).sum::<f64>();
        let h: Vec<f64> = (0..n * n).map(|at| -2.0 * v[at / n] * v[at % n] / square).collect();
        let h: Vec<f64> = (0..n * n).map(|at| if at / n == at % n { 1.0 + h[at] } else { h[at] }).collect();
        a = times(&times(&h, &a, [n, n, n]), &h, [n, n, n]);
    }
    for i in 0..n {
        for j in 0..i {
            a[j * n + i] = a[i * n + j];
        }
    }
    a
}

/// The factor of a layer behind a rectifier: mean of `x xᵀ` with `x >= 0` of decaying size. One large eigenvalue.
pub fn relu_factor(n: usize, seed: u64) -> Vec<f64> {
    let samples = 2 * n;
    let mut x: Vec<f64> = random(samples * n, seed);
    for (at, x) in x.iter_mut().enumerate() {
        *x = x.max(0.0) / (1 + at % n) as f64;
    }
    let gram = times(&transposed(&x, [samples, n]), &x, [n, samples, n]);
    gram.iter().map(|x| x / samples as f64).collect()
}

/// `A = Q T Qᵀ`: `Q`, the diagonal of `T` and what stands beside it, one Householder reflection per column.
pub fn tridiagonal<T: Scalar>(a: &[T], n: usize) -> [Vec<T>; 3] {
    let (mut a, mut q) = (a.to_vec(), identity::<T>(n));
    for k in 0..n.saturating_sub(2) {
        let mut v: Vec<T> = (k + 1..n).map(|i| a[i * n + k]).collect();
        let norm = v.iter().fold(T::ZERO, |sum, &x| sum + x * x).sqrt();
        let away = if v[0] < T::ZERO { -norm } else { norm };
        v[0] += away;
        let square = v.iter().fold(T::ZERO, |sum, &x| sum + x * x);
        if square == T::ZERO {
            continue;
        }
        let factor = (T::ONE + T::ONE) / square;
        // H = I - factor v vᵀ: H A, then A H and Q H row by row.
        let mut dots = vec![T::ZERO; n];
        for (v, row) in v.iter().zip(a.chunks_exact(n).skip(k + 1)) {
            dots.iter_mut().zip(row).for_each(|(dot, &x)| *dot += *v * x);
        }
        for (v, row) in v.iter().zip(a.chunks_exact_mut(n).skip(k + 1)) {
            row.iter_mut().zip(&dots).for_each(|(x, &dot)| *x -= factor * dot * *v);
        }
        for row in a.chunks_exact_mut(n).chain(q.chunks_exact_mut(n)) {
            let row = &mut row[k + 1..];
            let dot = v.iter().zip(&*row).fold(T::ZERO, |sum, (&v, &x)| sum + v * x);
            row.iter_mut().zip(&v).for_each(|(x, &v)| *x -= factor * dot * v);
        }
    }
    let diagonal = (0..n).map(|i| a[i * n + i]).collect();
    let off_diagonal = (1..n).map(|i| a[i * n + i - 1]).collect();
    [q, diagonal, off_diagonal]
}

/// Positive definite, with a condition number of about 100. Each is made once: that is longer than the tests.
pub fn positive_definite(n: usize, seed: u64) -> Vec<f64> {
    static MADE: Mutex<BTreeMap<(usize, u64), Vec<f64>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || {
        let d: Vec<f64> = (0..n).map(|i| 0.01 + (i as f64 + 0.5) / n as f64).collect();
        with_spectrum(&d, seed)
    };
    made.entry((n, seed)).or_insert_with(new).clone()
}

/// FNV-1a over the little-endian bytes.
pub fn hash<T: Scalar>(numbers: &[T]) -> u64 {
    let mut bytes = [0; 8];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for x in numbers {
        x.write_le(&mut bytes[..T::BYTES]);
        for &byte in &bytes[..T::BYTES] {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The routines under test on row-major vectors, with scratch of exactly the promised length, filled with NaN.
pub struct With<K>(pub K);

impl<K> With<K> {
    fn scratch<T: Scalar>(len: usize) -> Vec<T> {
        vec![nan::<T>(); len]
    }

    /// [`product::gemm`].
    pub fn gemm<T: Scalar>(
        &self,
        c: MatMut<'_, T>,
        accumulate: product::Accumulate<T>,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
    ) where
        K: Kernel<T>,
    {
        let len = product::gemm_scratch_len::<T>(c.rows(), c.cols(), a.cols());
        product::gemm(self.0, c, accumulate, a, b, &mut Self::scratch(len)).unwrap();
    }

    /// [`cholesky::factor`].
    pub fn factor<T: Scalar>(&self, a: &mut [T], n: usize) -> Result<(), cholesky::CholeskyError>
    where
        K: Kernel<T>,
    {
        let scratch = &mut Self::scratch(cholesky::factor_scratch_len::<T>(n));
        cholesky::factor(self.0, MatMut::row_major(a, n, n).unwrap(), scratch)
    }

    /// [`cholesky::solve`].
    pub fn solve<T: Scalar>(&self, l: &[T], b: &mut [T], [n, columns]: [usize; 2])
    where
        K: Kernel<T>,
    {
        let scratch = &mut Self::scratch(cholesky::solve_scratch_len::<T>(n, columns));
        let (l, b) = (MatRef::row_major(l, n, n).unwrap(), MatMut::row_major(b, n, columns).unwrap());
        cholesky::solve(self.0, l, b, scratch).unwrap();
    }

    /// [`cholesky::inverse`].
    pub fn inverse<T: Scalar>(
        &self,
        a: &mut [T],
        n: usize,
    ) -> Result<cholesky::Outcome, cholesky::CholeskyError>
    where
        K: Kernel<T>,
    {
        let scratch = &mut Self::scratch(cholesky::inverse_scratch_len::<T>(n));
        cholesky::inverse(self.0, MatMut::row_major(a, n, n).unwrap(), scratch)
    }
}
