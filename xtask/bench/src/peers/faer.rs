//! faer: its low-level entry points, so that workspace is not allocated in the timed part.
//!
//! Products read the very memory that the others read. Decompositions work on faer's own matrices, whose columns
//! begin on cache lines.

use crate::contest::Contender;
use crate::matrices::{Spectral, lower};
use crate::numbers::Number;
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, Par};
use kfac_linalg::shifted::Shifts;
use kfac_linalg::{MatRef, Scalar};

/// Name of this contender.
pub const NAME: &str = "faer";

/// `C = A B`, row by row.
pub fn gemm<'a, T: Number>(c: &'a mut [T], a: MatRef<'a, T>, b: MatRef<'a, T>) -> Contender<'a> {
    let c = MatMut::from_row_major_slice_mut(c, a.rows(), b.cols());
    let (a, b) = (view(a), view(b));
    Contender::new(
        NAME,
        c,
        move |c| matmul(c.as_mut(), Accum::Replace, a, b, T::ONE, Par::Seq),
        |c| (0..c.nrows()).flat_map(|i| c.as_ref().row(i).iter().map(|&x| Scalar::to_f64(x))).collect(),
    )
}

/// Lower triangle of `C = XᵀX`, row by row.
pub fn syrk<'a, T: Number>(c: &'a mut [T], x: MatRef<'a, T>) -> Contender<'a> {
    let c = MatMut::from_row_major_slice_mut(c, x.cols(), x.cols());
    let x = view(x);
    let run = move |c: &mut MatMut<'_, T>| {
        triangular::matmul(
            c.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Replace,
            x.transpose(),
            BlockStructure::Rectangular,
            x,
            BlockStructure::Rectangular,
            T::ONE,
            Par::Seq,
        );
    };
    Contender::new(NAME, c, run, |c| lower(c.nrows(), |i, j| Scalar::to_f64(c[(i, j)])))
}

struct Positive<'a, T> {
    a: faer::MatRef<'a, T>,
    factor: Mat<T>,
    inverse: Mat<T>,
    workspace: MemBuffer,
}

impl<'a, T: Number> Positive<'a, T> {
    fn new(a: MatRef<'a, T>) -> Self {
        let n = a.rows();
        let factor = llt::factor::cholesky_in_place_scratch::<T>(n, Par::Seq, Default::default());
        let workspace = factor.or(llt::inverse::inverse_scratch::<T>(n, Par::Seq));
        let (factor, inverse) = (Mat::zeros(n, n), Mat::zeros(n, n));
        Self { a: view(a), factor, inverse, workspace: MemBuffer::new(workspace) }
    }

    fn factor(&mut self) {
        self.factor.copy_from(self.a);
        let (stack, regular) = (MemStack::new(&mut self.workspace), Default::default());
        llt::factor::cholesky_in_place(self.factor.as_mut(), regular, Par::Seq, stack, Default::default())
            .expect("the matrix is positive definite");
    }

    fn inverse(&mut self) {
        let stack = MemStack::new(&mut self.workspace);
        llt::inverse::inverse(self.inverse.as_mut(), self.factor.as_ref(), Par::Seq, stack);
    }
}

/// Cholesky factor of a symmetric positive definite matrix, in a copy of it.
pub fn cholesky<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let result =
        |state: &Positive<'_, T>| lower(state.factor.nrows(), |i, j| Scalar::to_f64(state.factor[(i, j)]));
    Contender::new(NAME, Positive::new(a), Positive::factor, result)
}

/// Lower triangle of its inverse, through the factor.
pub fn inverse<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let run = |state: &mut Positive<'_, T>| {
        state.factor();
        state.inverse();
    };
    let result =
        |state: &Positive<'_, T>| lower(state.inverse.nrows(), |i, j| Scalar::to_f64(state.inverse[(i, j)]));
    Contender::new(NAME, Positive::new(a), run, result)
}

/// A decomposition `Q diag(d) Qᵀ`, with workspace.
struct Decomposition<T> {
    q: Mat<T>,
    d: Diag<T>,
    workspace: MemBuffer,
}

impl<T: Number> Decomposition<T> {
    fn new(n: usize) -> Self {
        let workspace =
            self_adjoint_evd_scratch::<T>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
        Self { q: Mat::zeros(n, n), d: Diag::zeros(n), workspace: MemBuffer::new(workspace) }
    }

    fn decompose(&mut self, a: faer::MatRef<'_, T>) {
        let stack = MemStack::new(&mut self.workspace);
        self_adjoint_evd(a, self.d.as_mut(), Some(self.q.as_mut()), Par::Seq, stack, Default::default())
            .expect("the eigenvalues converge");
    }
}

/// Eigenvectors and eigenvalues of a symmetric matrix.
pub fn eigh<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let state = Decomposition::new(a.rows());
    let a = view(a);
    let run = move |state: &mut Decomposition<T>| state.decompose(a);
    Contender::new(NAME, state, run, |Decomposition { q, d, .. }| {
        let d: Vec<f64> = d.column_vector().iter().map(|&x| Scalar::to_f64(x)).collect();
        Spectral::new(&d, |i, j| Scalar::to_f64(q[(i, j)])).result()
    })
}

/// `(d_j A + λ I)⁻¹ b_j` for all columns of `b`, through the eigenvectors of `A`.
pub fn damped_solve<'a, T: Number>(
    a: MatRef<'a, T>,
    Shifts { d, lambda }: Shifts<'a, T>,
    b: MatRef<'a, T>,
) -> Contender<'a> {
    let [n, columns] = b.shape();
    let state = (Decomposition::new(n), Mat::<T>::zeros(n, columns), Mat::<T>::zeros(n, columns));
    let (a, b) = (view(a), view(b));
    let run = move |(eigen, rotated, x): &mut (Decomposition<T>, Mat<T>, Mat<T>)| {
        eigen.decompose(a);
        let q = eigen.q.as_ref();
        matmul(rotated.as_mut(), Accum::Replace, q.transpose(), b, T::ONE, Par::Seq);
        for (j, &d) in d.iter().enumerate() {
            for (i, &value) in eigen.d.column_vector().iter().enumerate() {
                rotated[(i, j)] /= d * value + lambda;
            }
        }
        matmul(x.as_mut(), Accum::Replace, q, rotated.as_ref(), T::ONE, Par::Seq);
    };
    let numbers = |x: &Mat<T>| {
        (0..x.nrows()).flat_map(|i| x.row(i).iter().map(|&x| Scalar::to_f64(x)).collect::<Vec<_>>()).collect()
    };
    Contender::new(NAME, state, run, move |(_, _, x)| numbers(x))
}

/// Rows or columns of a matrix, whichever are contiguous.
fn view<T: Number>(a: MatRef<'_, T>) -> faer::MatRef<'_, T> {
    let [rows, cols] = a.shape();
    if a.col_stride() == 1 {
        faer::MatRef::from_row_major_slice_with_stride(a.data(), rows, cols, a.row_stride())
    } else {
        faer::MatRef::from_column_major_slice_with_stride(a.data(), rows, cols, a.col_stride())
    }
}
