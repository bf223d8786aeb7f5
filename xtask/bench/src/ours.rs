//! kfac-linalg: a function per operation. Scratch is allocated before the timed part.

use crate::contest::Contender;
use crate::matrices::{Spectral, lower};
use crate::numbers::{Buffer, Number};
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::product::{self, Accumulate};
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

/// Eigenvectors and eigenvalues by Jacobi's method.
pub fn jacobi<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let (kernel, n) = (Fast::detect(), a.rows());
    let state = Decomposition::new(n, jacobi::scratch_len::<T>(n));
    let run = move |Decomposition { q, d, scratch }: &mut Decomposition<T>| {
        let q = q.matrix_mut(n, n);
        jacobi::cold(kernel, a, q, d, Budget::FULL, scratch).expect(FITS);
    };
    Contender::new(NAME, state, run, Decomposition::result)
}

/// The same from the eigenvectors of the matrix `before`, which are copied every time.
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

/// All numbers, row by row.
fn all<T: Number>(a: MatRef<'_, T>) -> Vec<f64> {
    (0..a.rows()).flat_map(|i| (0..a.cols()).map(move |j| Scalar::to_f64(a.at(i, j)))).collect()
}

/// The lower triangle, row by row.
fn lower_of<T: Number>(a: MatRef<'_, T>) -> Vec<f64> {
    lower(a.rows(), |i, j| Scalar::to_f64(a.at(i, j)))
}
