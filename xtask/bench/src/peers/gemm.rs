//! The `gemm` crate, whose only entry point takes pointers.
#![allow(unsafe_code)]

use crate::contest::Contender;
use crate::numbers::Number;
use gemm::Parallelism;
use kfac_linalg::{MatRef, Scalar};

/// Name of this contender.
pub const NAME: &str = "gemm";

/// `C = A B`, row by row.
pub fn gemm<'a, T: Number>(c: &'a mut [T], a: MatRef<'a, T>, b: MatRef<'a, T>) -> Contender<'a> {
    let ([m, k], n) = (a.shape(), b.cols());
    assert!(b.rows() == k && c.len() == m * n, "the shapes fit");
    let strides = |a: MatRef<'a, T>| (a.col_stride() as isize, a.row_stride() as isize);
    let ((a_col, a_row), (b_col, b_row)) = (strides(a), strides(b));
    let run = move |c: &mut &mut [T]| {
        // SAFETY: a view's slice reaches from its first element to its last, so the pointers of A and B are valid for
        // their shapes at their strides; C is `m x n`, row by row, and borrowed exclusively. Shapes have been compared.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.data().as_ptr(),
                a_col,
                a_row,
                b.data().as_ptr(),
                b_col,
                b_row,
                T::ZERO,
                T::ONE,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    };
    Contender::new(NAME, c, run, |c| c.iter().map(|&x| Scalar::to_f64(x)).collect())
}
