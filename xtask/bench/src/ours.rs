//! kfac-linalg: a function per operation. Scratch is allocated before the timed part.

use crate::contest::Contender;
use crate::matrices::{Spectral, lower};
use crate::numbers::{Buffer, Number};
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::eigh::refresh::{self, Settings};
use kfac_linalg::eigh::{Eigensolver, Qr, qr};
use kfac_linalg::product::{self, Accumulate};
use kfac_linalg::shifted::{self, Shifts, Tridiagonal};
use kfac_linalg::{
    Fast, Kernel, MatMut, MatRef, PackedMut, PackedRef, Scalar, cholesky as positive, packed_len,
};

/// Name of this contender.
pub const NAME: &str = "kfac-linalg";

/// Shapes fit, scratch is long enough, inputs are what they should be.
const FITS: &str = "the call is right";

/// A matrix that an operation writes, with scratch.
struct Output<'a, T> {
    matrix: MatMut<'a, T>,
    scratch: Buffer<T>,
}

/// `C = A B`, row by row.
pub fn gemm<'a, T: Number, K: Kernel<T> + 'a>(
    kernel: K,
    c: &'a mut [T],
    a: MatRef<'a, T>,
    b: MatRef<'a, T>,
) -> Contender<'a> {
    let scratch = Buffer::zeros(product::gemm_scratch_len::<T>(a.rows(), b.cols(), a.cols()));
    let matrix = MatMut::row_major(c, a.rows(), b.cols()).expect(FITS);
    let run = move |Output { matrix, scratch }: &mut Output<'_, T>| {
        let store = Accumulate::Replace(T::ONE);
        product::gemm(kernel, matrix.reborrow(), store, a, b, scratch).expect(FITS);
    };
    Contender::new(NAME, Output { matrix, scratch }, run, |output| all(output.matrix.as_ref()))
}

/// `y = A x`, with the bits of [`gemm()`].
pub fn gemv<'a, T: Number>(y: &'a mut [T], a: MatRef<'a, T>, x: &'a [T]) -> Contender<'a> {
    let kernel = Fast::detect();
    let run = move |y: &mut &mut [T]| {
        product::gemv(kernel, y, Accumulate::Replace(T::ONE), a, x).expect(FITS);
    };
    Contender::new(NAME, y, run, |y| y.iter().map(|&y| Scalar::to_f64(y)).collect())
}

/// `y = A x` by dot products.
pub fn gemv_dots<'a, T: Number>(y: &'a mut [T], a: MatRef<'a, T>, x: &'a [T]) -> Contender<'a> {
    let kernel = Fast::detect();
    let run = move |y: &mut &mut [T]| {
        product::gemv_dots(kernel, y, Accumulate::Replace(T::ONE), a, x).expect(FITS);
    };
    Contender::new(NAME, y, run, |y| y.iter().map(|&y| Scalar::to_f64(y)).collect())
}

/// Lower triangle of `C = XᵀX`, in a full square.
pub fn syrk_lower<'a, T: Number>(c: &'a mut [T], x: MatRef<'a, T>) -> Contender<'a> {
    let (kernel, n) = (Fast::detect(), x.cols());
    let scratch = Buffer::zeros(product::syrk_scratch_len::<T>(n, x.rows()));
    let matrix = MatMut::row_major(c, n, n).expect(FITS);
    let run = move |Output { matrix, scratch }: &mut Output<'_, T>| {
        let store = Accumulate::Replace(T::ONE);
        product::syrk_lower(kernel, matrix.reborrow(), store, x, scratch).expect(FITS);
    };
    Contender::new(NAME, Output { matrix, scratch }, run, |output| lower_of(output.matrix.as_ref()))
}

/// The same, in packed storage.
pub fn syrk_packed<T: Number>(x: MatRef<'_, T>) -> Contender<'_> {
    let (kernel, n) = (Fast::detect(), x.cols());
    let scratch = Buffer::zeros(product::syrk_scratch_len::<T>(n, x.rows()));
    let run = move |(c, scratch): &mut (Buffer<T>, Buffer<T>)| {
        let (c, store) = (PackedMut::new(c, n).expect(FITS), Accumulate::Replace(T::ONE));
        product::syrk(kernel, c, store, x, scratch).expect(FITS);
    };
    Contender::new(NAME, (Buffer::zeros(packed_len(n)), scratch), run, move |(c, _)| {
        let c = PackedRef::new(c, n).expect(FITS);
        lower(n, |i, j| Scalar::to_f64(c.at(i, j)))
    })
}

/// Cholesky factor of a symmetric positive definite matrix, in a copy of it.
pub fn cholesky<'a, T: Number>(l: &'a mut [T], a: MatRef<'a, T>) -> Contender<'a> {
    let (kernel, n) = (Fast::detect(), a.rows());
    let scratch = Buffer::zeros(positive::factor_scratch_len::<T>(n));
    let matrix = MatMut::row_major(l, n, n).expect(FITS);
    let run = move |Output { matrix, scratch }: &mut Output<'_, T>| {
        matrix.copy_from(a).expect(FITS);
        positive::factor(kernel, matrix.reborrow(), scratch).expect(FITS);
    };
    Contender::new(NAME, Output { matrix, scratch }, run, |output| lower_of(output.matrix.as_ref()))
}

/// Inverse of a symmetric positive definite matrix, in a copy of it.
pub fn inverse<'a, T: Number>(inverse: &'a mut [T], a: MatRef<'a, T>) -> Contender<'a> {
    let (kernel, n) = (Fast::detect(), a.rows());
    let scratch = Buffer::zeros(positive::inverse_scratch_len::<T>(n));
    let matrix = MatMut::row_major(inverse, n, n).expect(FITS);
    let run = move |Output { matrix, scratch }: &mut Output<'_, T>| {
        matrix.copy_from(a).expect(FITS);
        positive::inverse(kernel, matrix.reborrow(), scratch).expect(FITS);
    };
    Contender::new(NAME, Output { matrix, scratch }, run, |output| lower_of(output.matrix.as_ref()))
}

/// A decomposition `Q diag(d) Qᵀ`, with scratch.
struct Decomposition<T> {
    q: Buffer<T>,
    d: Buffer<T>,
    scratch: Buffer<T>,
}

impl<T: Number> Decomposition<T> {
    fn new(n: usize, scratch: usize) -> Self {
        Self { q: Buffer::zeros(n * n), d: Buffer::zeros(n), scratch: Buffer::zeros(scratch) }
    }

    fn result(&self) -> Vec<f64> {
        let d: Vec<f64> = self.d.iter().map(|&x| Scalar::to_f64(x)).collect();
        Spectral::new(&d, |i, j| Scalar::to_f64(self.q[i * d.len() + j])).result()
    }
}

/// Eigenvectors and eigenvalues, from nothing.
pub fn eigh<'a, T: Number, K: Kernel<T> + 'a, S: Eigensolver + 'a>(
    kernel: K,
    solver: S,
    a: MatRef<'a, T>,
) -> Contender<'a> {
    let n = a.rows();
    let state = Decomposition::new(n, S::METHOD.scratch_len::<T>(n));
    let run = move |Decomposition { q, d, scratch }: &mut Decomposition<T>| {
        solver.cold(kernel, a, q.matrix_mut(n, n), d, scratch).expect(FITS);
    };
    Contender::new(NAME, state, run, Decomposition::result)
}

/// The same by Jacobi's method, from the eigenvectors of the matrix `before`, which are copied every time.
pub fn jacobi_warm<'a, T: Number>(a: MatRef<'a, T>, before: MatRef<'_, T>) -> Contender<'a> {
    let (kernel, n) = (Fast::detect(), a.rows());
    let mut state = Decomposition::new(n, jacobi::scratch_len::<T>(n));
    let mut basis = Buffer::zeros(n * n);
    let Decomposition { d, scratch, .. } = &mut state;
    jacobi::cold(kernel, before, basis.matrix_mut(n, n), d, Budget::FULL, scratch).expect(FITS);
    let run = move |Decomposition { q, d, scratch }: &mut Decomposition<T>| {
        q.copy_from_slice(&basis);
        let q = q.matrix_mut(n, n);
        jacobi::warm(kernel, a, q, d, Budget::FULL, scratch).expect(FITS);
    };
    Contender::new(NAME, state, run, Decomposition::result)
}

/// One subspace step from the eigenvectors of the matrix `before`, which are copied every time. How near it comes is
/// a matter of tests.
pub fn refresh<'a, T: Number>(a: MatRef<'a, T>, before: MatRef<'_, T>) -> Contender<'a> {
    let (kernel, n) = (Fast::detect(), a.rows());
    let mut old = Decomposition::new(n, qr::scratch_len::<T>(n));
    let Decomposition { q, d, scratch } = &mut old;
    qr::cold(kernel, before, q.matrix_mut(n, n), d, scratch).expect(FITS);
    let state = Decomposition::new(n, refresh::step_or_cold_scratch_len::<T>(n, Qr::METHOD));
    let trace = (0..n).fold(T::ZERO, |sum, i| sum + a.at(i, i));
    let settings = Settings::new(trace / <T as Scalar>::from_usize(1000 * n), Qr);
    Contender::without_result(NAME, state, move |Decomposition { q, d, scratch }: &mut Decomposition<T>| {
        q.copy_from_slice(&old.q);
        d.copy_from_slice(&old.d);
        refresh::step_or_cold(kernel, a, q.matrix_mut(n, n), d, settings, scratch).expect(FITS);
    })
}

/// `A = Q T Qᵀ` with a tridiagonal `T`, of which the result is `A` again.
struct Reduction<T> {
    q: Buffer<T>,
    diagonal: Buffer<T>,
    off_diagonal: Buffer<T>,
    scratch: Buffer<T>,
}

impl<T: Number> Reduction<T> {
    fn new(n: usize) -> Self {
        Self {
            q: Buffer::zeros(n * n),
            diagonal: Buffer::zeros(n),
            off_diagonal: Buffer::zeros(n - 1),
            scratch: Buffer::zeros(qr::tridiagonal_scratch_len::<T>(n)),
        }
    }

    fn reduce<K: Kernel<T>>(&mut self, kernel: K, a: MatRef<'_, T>) {
        let n = a.rows();
        let Self { q, diagonal, off_diagonal, scratch } = self;
        qr::tridiagonal(kernel, a, q.matrix_mut(n, n), diagonal, off_diagonal, scratch).expect(FITS);
    }
}

/// What exact damping needs of a factor: reduction and `Q`.
pub fn tridiagonal<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let (kernel, state) = (Fast::detect(), Reduction::new(a.rows()));
    Contender::without_result(NAME, state, move |reduction| reduction.reduce(kernel, a))
}

/// `(d_j A + λ I)⁻¹ b_j` for all columns of `b`, from nothing.
pub fn damped_solve<'a, T: Number>(
    a: MatRef<'a, T>,
    shifts: Shifts<'a, T>,
    b: MatRef<'a, T>,
) -> Contender<'a> {
    let (kernel, [n, columns]) = (Fast::detect(), b.shape());
    let state = (
        Reduction::new(n),
        Buffer::zeros(n * columns),
        Buffer::zeros(shifted::solve_scratch_len::<T>(n, columns)),
    );
    let run = move |(reduction, x, scratch): &mut (Reduction<T>, Buffer<T>, Buffer<T>)| {
        reduction.reduce(kernel, a);
        let Reduction { q, diagonal, off_diagonal, .. } = reduction;
        let reduced = Tridiagonal { q: q.matrix(n, n), diagonal, off_diagonal };
        let mut x = x.matrix_mut(n, columns);
        x.copy_from(b).expect(FITS);
        shifted::solve(kernel, reduced, shifts, x, scratch).expect(FITS);
    };
    Contender::new(NAME, state, run, |(_, x, _)| x.iter().map(|&x| Scalar::to_f64(x)).collect())
}

/// All numbers, row by row.
fn all<T: Number>(a: MatRef<'_, T>) -> Vec<f64> {
    (0..a.rows()).flat_map(|i| (0..a.cols()).map(move |j| Scalar::to_f64(a.at(i, j)))).collect()
}

/// The lower triangle, row by row.
fn lower_of<T: Number>(a: MatRef<'_, T>) -> Vec<f64> {
    lower(a.rows(), |i, j| Scalar::to_f64(a.at(i, j)))
}
