//! nalgebra: its decompositions take the matrix and allocate what they need.

use crate::contest::Contender;
use crate::matrices::{Spectral, lower};
use crate::numbers::Number;
use kfac_linalg::{MatRef, Scalar};
use nalgebra::{Cholesky, DMatrix, DVector, SymmetricEigen};

/// Name of this contender.
pub const NAME: &str = "nalgebra";

/// Lower triangle of the inverse of a symmetric positive definite matrix, through its Cholesky factor.
pub fn inverse<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let a = matrix(a);
    let n = a.nrows();
    Contender::new(
        NAME,
        DMatrix::zeros(n, n),
        move |inverse| {
            *inverse = Cholesky::new(a.clone()).expect("the matrix is positive definite").inverse();
        },
        move |inverse| lower(n, |i, j| Scalar::to_f64(inverse[(i, j)])),
    )
}

/// Eigenvectors and eigenvalues of a symmetric matrix.
pub fn eigh<T: Number>(a: MatRef<'_, T>) -> Contender<'_> {
    let a = matrix(a);
    let n = a.nrows();
    let state = SymmetricEigen { eigenvectors: DMatrix::zeros(n, n), eigenvalues: DVector::zeros(n) };
    Contender::new(
        NAME,
        state,
        move |eigen| *eigen = SymmetricEigen::new(a.clone()),
        |eigen| {
            let d: Vec<f64> = eigen.eigenvalues.iter().map(|&x| Scalar::to_f64(x)).collect();
            Spectral::new(&d, |i, j| Scalar::to_f64(eigen.eigenvectors[(i, j)])).result()
        },
    )
}

fn matrix<T: Number>(a: MatRef<'_, T>) -> DMatrix<T> {
    DMatrix::from_fn(a.rows(), a.cols(), |i, j| a.at(i, j))
}
